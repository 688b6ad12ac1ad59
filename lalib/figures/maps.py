"""Maps of a two-dimensional latent space: coloured by class, by cluster, by a value, with a sampling on top."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from lalib.data.checks import check_choice, check_int
from lalib.data.door import check_codes, check_index
from lalib.figures.style import INK, apply_layout, colour, heading, labels_of, symbol

if TYPE_CHECKING:
    import plotly.graph_objects as go


MANY_POINTS = 2_000  # more are drawn with WebGL
MANY_GROUPS = 20  # more get no legend
COLOUR_TITLES = {"class": "class", "cluster": "cluster", "error": "reconstruction error (MAE per pixel)"}


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
) -> "go.Figure":
    """The codes as points; `selected` ones keep their colour inside a dark ring while the others fade.

    codes: (N, 2). images: the ImageSet that belongs to them, or labels (N,), for the colours by class.
    color: "class" (the default where there are labels); "error" or "cluster", with the numbers in `values`; or the
        numbers themselves, (N,): whole ones are groups, others a colour scale titled `color_title`.
    selected: (n,) indices into the codes, e.g. what `la.select` returns.
    axes: what the coordinates are called, e.g. "UMAP coordinate" for codes from `la.project`.
    Raises ValueError for codes that are not two wide (`la.project` makes them so) and for numbers of another length.
    """
    import plotly.graph_objects as go

    codes = _check_map(codes)
    numbers, names, kind = _colouring(len(codes), images, color, values)
    picks = None if selected is None else check_index(selected, len(codes), "selected")
    fig = go.Figure(_traces(codes, numbers, names, color_title or COLOUR_TITLES.get(kind, "value"), picks))
    if picks is None and numbers is not None and not numbers.is_floating_point():
        _label_groups(fig, codes, numbers, names)
    _equal_axes(fig, axes)
    return apply_layout(fig, title or _title(kind, color_title, picks), _count(len(codes)), width=760, height=620)


def latent_maps(
    codes: Mapping[str, torch.Tensor],
    images=None,
    *,
    selected: Mapping[str, torch.Tensor] | None = None,
    columns: int = 2,
    axes: str = "latent coordinate",
    title: str | None = None,
) -> "go.Figure":
    """Several maps of the same images side by side, one per autoencoder, coloured by class.

    codes: name -> (N, 2). images: an ImageSet or labels (N,). selected: name -> (n,) indices.
    """
    from plotly.subplots import make_subplots

    if not codes:
        raise ValueError("codes must hold at least one name and its codes (N, 2), got none")
    columns = min(check_int("columns", columns, low=1), len(codes))
    rows = math.ceil(len(codes) / columns)
    gaps = {"horizontal_spacing": 0.22 / columns, "vertical_spacing": 0.24 / rows}
    fig = make_subplots(rows=rows, cols=columns, subplot_titles=list(codes), **gaps)
    for place, (name, one) in enumerate(codes.items()):
        one, picks = _check_map(one, name), (selected or {}).get(name)
        picks = None if picks is None else check_index(picks, len(one), f"selected[{name!r}]")
        labels, names, _ = _colouring(len(one), images, None, None)
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        for trace in _traces(one, labels, names, "class", picks):
            fig.add_trace(trace.update(showlegend=bool(place == 0 and trace.showlegend is not False)), **cell)
        _equal_axes(fig, axes, **cell)
    title = title or ("Encodings by class" if labels is not None else "Encodings")
    return apply_layout(fig, title, _count(len(one)), width=120 + 400 * columns, height=110 + 380 * rows)


def clusters(codes: torch.Tensor, assignment: torch.Tensor, *, title: str | None = None, **options) -> "go.Figure":
    """The map coloured by cluster. codes: (N, 2); assignment: (N,) cluster numbers; options: those of latent_map."""
    fig = latent_map(codes, color="cluster", values=assignment, **options)
    sizes = torch.as_tensor(assignment).unique(return_counts=True)[1]
    spread = f"{_count(len(codes))}, {int(sizes.min()):,} to {int(sizes.max()):,} in a cluster"
    return fig.update_layout(title_text=heading(title or f"{len(sizes)} clusters", spread))


def difficulty(codes: torch.Tensor, values: torch.Tensor, *, name: str = "difficulty", **options) -> "go.Figure":
    """Points that are difficult to learn: the map coloured by one number per image.

    codes: (N, 2); values: (N,), e.g. reconstruction errors or a column of `la.codes.difficulty`; name: its title
    and unit.
    """
    values = torch.as_tensor(values, dtype=torch.float32)
    options = {"title": f"Encodings by {name}", "color_title": name} | options
    return latent_map(codes, color=values, **options)


def _check_map(codes, name="codes"):
    codes = check_codes(codes, name).detach().cpu()
    if codes.shape[1] != 2:
        raise ValueError(
            f"a map needs {name} of shape (N, 2), got {tuple(codes.shape)}: "
            "make them two-dimensional with la.project(codes) first"
        )
    return codes


def _colouring(n, images, color, values):
    """Numbers (N,) or None, group names and the kind ("class", "error", "cluster", "value", None) of the colours."""
    labels, names = labels_of(images, n)
    if color is None:
        color = "class" if labels is not None and labels.ndim == 1 else None
    if color is None:
        return None, (), None
    if not isinstance(color, str):
        return _check_values(color, n), (), "value"
    check_choice("color", color, COLOUR_TITLES)
    if color == "class":
        return _check_classes(labels), names, "class"
    if values is None:
        raise ValueError(f"color={color!r} needs values=, one number per image, shape ({n},)")
    values = _check_values(values, n)
    return (values.to(torch.int64) if color == "cluster" else values.float()), (), color


def _check_classes(labels):
    if labels is None:
        raise ValueError("color='class' needs images with labels, or labels (N,), as the second argument; got none")
    if labels.ndim == 2:
        raise ValueError(
            f"color='class' needs one class per image, got {labels.shape[1]} labels per image: "
            "show one of them with color=images.labels[:, k]"
        )
    return labels


def _check_values(values, n):
    values = torch.as_tensor(values).detach().cpu()
    if values.shape != (n,):
        raise ValueError(f"the colours must be one number per code, shape ({n},), got {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("the colours must be finite, got NaN or infinity")
    return values


def _traces(codes, numbers, names, color_title, picks):
    import plotly.graph_objects as go

    points = go.Scattergl if len(codes) > MANY_POINTS else go.Scatter
    marker = {"size": 6 if len(codes) <= MANY_POINTS else 4, "opacity": 0.85 if picks is None else 0.25}
    color = _colour_function(points, codes, numbers, names, color_title)
    if picks is None:
        return color(marker, torch.arange(len(codes)))
    faded = [trace.update(showlegend=False, hoverinfo="skip") for trace in color(marker, torch.arange(len(codes)))]
    return faded + color({"size": 6}, picks) + [_rings(points, codes, picks)]


def _colour_function(kind, codes, numbers, names, color_title):
    """(marker, index) -> traces of codes[index], coloured as asked for."""
    if numbers is None:
        return lambda marker, index: [_points(kind, codes, index, marker | {"color": "#777777"}, showlegend=False)]
    if numbers.is_floating_point():
        return lambda marker, index: [_by_value(kind, codes, index, numbers, marker, color_title)]
    return lambda marker, index: _by_group(kind, codes, index, numbers, names, marker)


def _points(kind, codes, index, marker, **options):
    """A trace of codes[index]; hovering tells the index into the images. Without points it is a legend entry only."""
    options = {"hovertemplate": "image %{customdata}<br>(%{x:.3g}, %{y:.3g})"} | options
    x, y = codes[index].T.numpy() if len(index) else ([None], [None])
    return kind(x=x, y=y, customdata=index.numpy(), mode="markers", marker=marker, **options)


def _by_value(kind, codes, index, values, marker, color_title):
    bar = {"title": {"text": color_title, "side": "right"}, "thickness": 16, "len": 0.8, "y": 0.4}
    look = {"color": values[index].numpy(), "colorscale": "Viridis", "colorbar": bar}
    limits = {"cmin": float(values.min()), "cmax": float(values.max())}
    hover = "image %{customdata}<br>%{marker.color:.4g}<extra></extra>"
    return _points(kind, codes, index, marker | look | limits, showlegend=False, hovertemplate=hover)


def _by_group(kind, codes, index, groups, names, marker):
    present = groups.unique().tolist()
    if len(present) > MANY_GROUPS:
        each = groups[index].tolist()
        look = {"color": [colour(g) for g in each], "symbol": [symbol(g) for g in each]}
        return [_points(kind, codes, index, marker | look, showlegend=False)]
    return [
        _points(
            kind,
            codes,
            index[groups[index] == g],
            marker | {"color": colour(g), "symbol": symbol(g)},
            name=_group_name(g, names),
            legendgroup=str(g),
        )
        for g in present
    ]


def _rings(kind, codes, picks):
    """Open circles with a dark outline."""
    ring = {"symbol": "circle-open", "color": INK, "size": 13 if len(picks) <= 200 else 9, "line": {"width": 1.6}}
    return _points(kind, codes, picks, ring, name=f"selected ({len(picks)})", showlegend=True)


def _label_groups(fig, codes, groups, names):
    """Every group's name at its median: readable without telling colours apart."""
    present = groups.unique().tolist()
    if len(present) > MANY_GROUPS:
        return
    for g in present:
        x, y = codes[groups == g].median(dim=0).values.tolist()
        box = {"bgcolor": "rgba(255,255,255,0.8)", "bordercolor": colour(g), "borderwidth": 1.5, "borderpad": 2}
        fig.add_annotation(x=x, y=y, text=_group_name(g, names), showarrow=False, font={"size": 12}, **box)


def _group_name(group: int, names: Sequence[str]) -> str:
    return names[group] if 0 <= group < len(names) else str(group)


def _equal_axes(fig, axes, **cell):
    fig.update_xaxes(title_text=f"{axes} 1", constrain="domain", zeroline=False, **cell)
    anchor = "x" if not cell else next(fig.select_yaxes(**cell)).anchor
    fig.update_yaxes(
        title_text=f"{axes} 2", scaleanchor=anchor, scaleratio=1, constrain="domain", zeroline=False, **cell
    )
    fig.update_layout(legend={"itemsizing": "constant", "title": {"text": ""}})


def _title(kind, color_title, picks):
    by = {"value": color_title or "value", "error": "reconstruction error (MAE per pixel)"}.get(kind, kind)
    title = "Encodings" if kind is None else f"Encodings by {by}"
    return title if picks is None else f"{title}, {len(picks)} selected"


def _count(n):
    return f"{n:,} images"
