"""Maps of a two-dimensional latent space: coloured by class, by cluster, by a value, with a sampling on top."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from lalib.data.checks import check_choice, check_int, check_type
from lalib.data.door import check_codes, check_index
from lalib.figures.marks import MANY_POINTS, check_numbers, labels_of, points
from lalib.figures.style import GREY, INK, apply_layout, colour, heading, symbol

MANY_GROUPS = 20  # more get no legend
COLOUR_TITLES = {"class": "class", "cluster": "cluster", "error": "reconstruction error (MAE per pixel)"}
HOVER = "image %{customdata}<br>(%{x:.3g}, %{y:.3g})"


def latent_map(
    codes: torch.Tensor,
    images=None,
    *,
    color: str | torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    selected: torch.Tensor | None = None,
    color_title: str | None = None,
    axes: str = "latent coordinate",
    title: str | None = None,
) -> go.Figure:
    """The codes as points; `selected` ones keep their colour inside a dark ring while the others fade.

    codes: (N, 2). images: the ImageSet that belongs to them, or labels (N,), for the colours by class.
    color: "class" (the default where there are labels); "error" or "cluster", with the numbers in `values`; or the
        numbers themselves, (N,): whole ones are groups, others a colour scale titled `color_title`.
    selected: (n,) indices into the codes, e.g. what `la.select` returns. axes: what the coordinates are called.
    Raises ValueError for codes that are not two wide (`la.project` makes them so) and for numbers of another length.
    """
    codes = check_map(codes)
    colours = _colours(len(codes), images, color, values, color_title)
    picks = None if selected is None else check_index(selected, len(codes), "selected")
    fig = go.Figure(colours.map(codes, picks))
    for g in colours.groups if picks is None else ():  # a name at the median is read without telling colours apart
        x, y = codes[colours.numbers == g].median(dim=0).values.tolist()
        box = {"bgcolor": "rgba(255,255,255,0.8)", "bordercolor": colour(g), "borderwidth": 1.5, "borderpad": 2}
        fig.add_annotation(x=x, y=y, text=colours.names.get(g, str(g)), showarrow=False, font={"size": 12}, **box)
    equal_axes(fig, axes)
    by = {"value": colours.title, "error": COLOUR_TITLES["error"]}.get(colours.kind, colours.kind)
    usual = (f"Encodings by {by}" if by else "Encodings") + ("" if picks is None else f", {len(picks)} selected")
    return apply_layout(fig, title or usual, f"{len(codes):,} images", width=760, height=620)


def latent_maps(
    codes: Mapping[str, torch.Tensor],
    images=None,
    *,
    selected: Mapping[str, torch.Tensor] | None = None,
    columns: int = 2,
    axes: str = "latent coordinate",
    title: str | None = None,
) -> go.Figure:
    """Several maps of the same images side by side, one per autoencoder, coloured by class.

    codes: name -> (N, 2). images: an ImageSet or labels (N,). selected: name -> (n,) indices.
    """
    selected = {} if selected is None else check_type("selected", selected, Mapping)
    if not check_type("codes", codes, Mapping):
        raise ValueError("codes must hold at least one name and its codes (N, 2), got none")
    for name in selected:
        check_choice("selected", name, codes)
    columns = min(check_int("columns", columns, low=1), len(codes))
    rows = math.ceil(len(codes) / columns)
    gaps = {"horizontal_spacing": 0.22 / columns, "vertical_spacing": 0.24 / rows}
    fig = make_subplots(rows=rows, cols=columns, subplot_titles=list(codes), **gaps)
    for place, (name, one) in enumerate(codes.items()):
        one, picks = check_map(one, name), selected.get(name)
        if picks is not None:
            picks = check_index(picks, len(one), f"selected[{name!r}]")
        colours = _colours(len(one), images)
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        for trace in colours.map(one, picks):
            fig.add_trace(trace.update(showlegend=bool(place == 0 and trace.showlegend is not False)), **cell)
        equal_axes(fig, axes, **cell)
    title = title or ("Encodings by class" if colours.kind else "Encodings")
    return apply_layout(fig, title, f"{len(one):,} images", width=120 + 400 * columns, height=110 + 380 * rows)


def clusters(codes: torch.Tensor, assignment: torch.Tensor, *, title: str | None = None, **options) -> go.Figure:
    """The map coloured by cluster. codes: (N, 2); assignment: (N,) cluster numbers; options: those of latent_map."""
    fig = latent_map(codes, color="cluster", values=assignment, **options)
    sizes = check_numbers(assignment, "values").unique(return_counts=True)[1]
    spread = f"{len(codes):,} images, {int(sizes.min()):,} to {int(sizes.max()):,} in a cluster"
    return fig.update_layout(title_text=heading(title or f"{len(sizes)} clusters", spread))


def difficulty(codes: torch.Tensor, values: torch.Tensor, *, name: str = "difficulty", **options) -> go.Figure:
    """Points that are difficult to learn: the map coloured by one number per image.

    codes: (N, 2); values: (N,), e.g. errors or a column of `la.codes.difficulty`; name: their title and unit.
    """
    options = {"title": f"Encodings by {name}", "color_title": name} | options
    return latent_map(codes, color=check_numbers(values, "values").float(), **options)


def check_map(codes: torch.Tensor, name: str = "codes", n: int | None = None) -> torch.Tensor:
    """`codes` as a finite tensor (N, 2) on the CPU; ValueError otherwise. n: how many there must be, one per image."""
    codes = check_codes(codes, name).cpu()
    if codes.shape != (len(codes) if n is None else n, 2):
        hint = "one row per image, which la.project(codes) makes two-dimensional"
        raise ValueError(f"a map needs {name} of shape ({n or 'N'}, 2), got {tuple(codes.shape)}: {hint}")
    return codes


class _Colours(NamedTuple):
    """numbers (N,): of groups if they are whole, else on a scale with a title; None: all points are grey."""

    numbers: torch.Tensor | None
    names: Mapping[int, str]
    kind: str | None
    title: str

    @property
    def groups(self):
        """The groups there are, if they are few enough to be named."""
        if self.numbers is None or self.numbers.is_floating_point():
            return ()
        present = self.numbers.unique().tolist()
        return present if len(present) <= MANY_GROUPS else ()

    def map(self, codes, picks):
        """Traces of all codes, or of all, faded, and those at `picks` in rings."""
        marker = {"size": 6 if len(codes) <= MANY_POINTS else 4, "opacity": 0.85 if picks is None else 0.25}
        every = self.traces(codes, torch.arange(len(codes)), marker)
        if picks is None:
            return every
        ring = {"symbol": "circle-open", "color": INK, "size": 13 if len(picks) <= 200 else 9, "line": {"width": 1.6}}
        look = {"name": f"selected ({len(picks)})", "showlegend": True, "hovertemplate": HOVER}
        faded = [trace.update(showlegend=False, hoverinfo="skip") for trace in every]
        return [*faded, *self.traces(codes, picks, {"size": 6}), points(codes, picks, marker=ring, **look)]

    def traces(self, codes, index, marker):
        """Traces of codes[index]: one per group, if these are few."""
        traces = []
        for g in self.groups:
            look = {"marker": marker | {"color": colour(g), "symbol": symbol(g)}, "hovertemplate": HOVER}
            look |= {"name": self.names.get(g, str(g)), "legendgroup": str(g)}
            traces.append(points(codes, index[self.numbers[index] == g], **look))
        if traces:
            return traces
        look, hover = {"color": GREY}, HOVER
        if self.numbers is not None and self.numbers.is_floating_point():
            bar = {"title": {"text": self.title, "side": "right"}, "thickness": 16, "len": 0.8, "y": 0.4}
            limits = {"cmin": float(self.numbers.min()), "cmax": float(self.numbers.max())}
            look = {"color": self.numbers[index].numpy(), "colorscale": "Viridis", "colorbar": bar} | limits
            hover = "image %{customdata}<br>%{marker.color:.4g}<extra></extra>"
        elif self.numbers is not None:
            each = self.numbers[index].tolist()
            look = {"color": [colour(g) for g in each], "symbol": [symbol(g) for g in each]}
        return [points(codes, index, marker=marker | look, hovertemplate=hover, showlegend=False)]


def _colours(n, images, color=None, values=None, title=None):
    labels, names = labels_of(images, n)
    if color is None and (labels is None or labels.ndim == 2):
        return _Colours(None, {}, None, "")
    color = "class" if color is None else color
    if not isinstance(color, str):
        return _Colours(check_numbers(color, "the colours", n), {}, "value", title or "value")
    title = title or COLOUR_TITLES[check_choice("color", color, COLOUR_TITLES)]
    if color == "class":
        if labels is None:
            raise ValueError("color='class' needs images with labels, or labels (N,), as the second argument; got none")
        if labels.ndim == 2:
            hint = "show one of them with color=images.labels[:, k]"
            raise ValueError(f"color='class' needs one class per image, got {labels.shape[1]} labels per image: {hint}")
        return _Colours(labels, dict(enumerate(names)), color, title)
    if values is None:
        raise ValueError(f"color={color!r} needs values=, one number per image, shape ({n},)")
    values = check_numbers(values, "values", n)
    return _Colours(values.long() if color == "cluster" else values.float(), {}, color, title)


def equal_axes(fig: go.Figure, axes: str, **cell: int) -> None:
    """One unit is as long in both directions, in the panel at `cell` (row, col); axes: what they are called."""
    fig.update_xaxes(title_text=f"{axes} 1", constrain="domain", zeroline=False, **cell)
    equal = {"scaleanchor": next(fig.select_yaxes(**cell)).anchor or "x", "scaleratio": 1, "constrain": "domain"}
    fig.update_yaxes(title_text=f"{axes} 2", zeroline=False, **equal, **cell)
    fig.update_layout(legend={"itemsizing": "constant", "title": {"text": ""}})
