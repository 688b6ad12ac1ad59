"""What is put into words and HTML: pictures with captions, counts; and what readers type: image numbers, rectangles."""

import html

import torch

from lalib.figures.marks import pixels, png
from lalib.widgets.groups import Groups

NAMES = 12  # groups that a sentence counts


def source(image: torch.Tensor, side: int) -> str:
    """A data URI of an image (C, H, W), about `side` pixels wide."""
    return png(pixels(image[None])[0], side)[1]


def picture(image: torch.Tensor, caption: str, side: int, words: str | None = None) -> str:
    """A <figure> of an image (C, H, W), `side` pixels wide, above its caption; words: what stands for it."""
    caption, words = html.escape(caption), html.escape(words or caption, quote=True)
    style = f"margin:2px;width:{max(side, 64)}px;text-align:center;font-size:12px;line-height:1.3"
    made = f'<img src="{source(image, side)}" alt="{words}" style="width:{side}px;image-rendering:pixelated">'
    return f'<figure style="{style}">{made}<figcaption>{caption}</figcaption></figure>'


def counts_table(title: str, groups: Groups, index: torch.Tensor) -> str:
    """A table that is a legend as well: colour and name of every group, its images, how many of those at index (n,)."""
    counts = groups.counts(index)
    most = max(counts.max(initial=0), 1)
    left, right = (f'style="text-align:{side};padding:0 6px;white-space:nowrap"' for side in ("left", "right"))
    head = f"<th></th><th {left}>{html.escape(title)}</th><th {right}>images</th><th {right}>selected</th><th></th>"
    swatch = "display:inline-block;width:0.9em;height:0.9em;border:1px solid #222;vertical-align:middle;background:"
    rows = [
        f'<tr><td><span style="{swatch}{colour}"></span></td><td {left}>{html.escape(name)}</td>'
        f"<td {right}>{total:,}</td><td {right}>{count:,}</td>"
        f'<td {left}><div style="height:0.7em;background:#555;width:{50 * count / most:.0f}px"></div></td></tr>'
        for name, colour, total, count in zip(groups.names, groups.colours, groups.counts(), counts, strict=True)
    ]
    style = "font-size:13px;line-height:1.35;max-height:330px;overflow-y:auto;display:block"
    return f'<table style="{style}"><tr>{head}</tr>{"".join(rows)}</table>'


def counts_in_words(names, counts) -> str:
    """Groups that occur, the largest first: "Bag: 20, Coat: 7"."""
    order = [g for g in (-counts).argsort(kind="stable") if counts[g]]
    words = ", ".join(f"{names[g]}: {counts[g]:,}" for g in order[:NAMES])
    return words if len(order) <= NAMES else f"{words} and {len(order) - NAMES} more groups"


def indices_of(text: str, n: int) -> torch.Tensor:
    """The numbers in a text such as "3, 17, 100-120", ascending, each once; ValueError if they are no images of n."""
    chosen = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'images must be numbers and ranges such as "3, 17, 100-120", got {part!r}')
        low, high = int(first), int(last or first)
        if not low <= high < n:
            raise ValueError(f"images must lie in 0 to {n - 1}, a range's smaller number first, got {part!r}")
        chosen.update(range(low, high + 1))
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def rectangle_of(text: str) -> tuple[float, ...]:
    """The four numbers of a text such as "-1, 1, 0, 2.5": left, right, bottom, top; ValueError for anything else."""
    try:
        left, right, bottom, top = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        left, right, bottom, top = 1, 0, 0, 0
    if not (left <= right and bottom <= top):
        raise ValueError(f'rectangle must be "left, right, bottom, top", such as "-1, 1, 0, 2.5", got {text!r}')
    return left, right, bottom, top
