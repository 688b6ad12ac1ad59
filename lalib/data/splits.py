"""Splits that keep the share of every class, and pools in which some classes are rare."""

import math
from collections.abc import Iterable, Set
from dataclasses import replace

import torch

from lalib.data.checks import check_number
from lalib.data.door import check_index
from lalib.data.imageset import ImageSet
from lalib.data.seeds import generator
from lalib.data.warping import augment


def stratified_split(images: ImageSet, fraction: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held_out): `fraction` of the images, and of every class, held out at random; both keep their order.

    The sizes are exact: round(fraction N) images are held out, every class within one of its share. Where an image may
    have several classes it counts for the rarest of them. Without labels the split is a plain random one.
    Raises ValueError if either part would be empty.
    """
    fraction = check_number("fraction", fraction, low=0, high=1)
    n = round(fraction * len(images))
    if not 0 < n < len(images):
        raise ValueError(f"fraction={fraction} of {len(images)} images leaves a part empty")
    if images.multi_label:  # the rarest class of each image; a stratum of their own for those without any
        rarity = torch.where(images.labels == 1, images.labels.sum(0), len(images) + 1)
        strata = torch.where(images.labels.any(1), rarity.argmin(1), images.n_classes)
    else:
        strata = torch.zeros(len(images), dtype=torch.int64) if images.labels is None else images.labels
    share = torch.bincount(strata).double() * n / len(images)
    take = share.floor().long()
    largest = torch.argsort(take - share, stable=True)  # the largest fractions get what is missing to n
    take[largest[: n - int(take.sum())]] += 1
    held_out = torch.zeros(len(images), dtype=torch.bool)
    order = torch.randperm(len(images), generator=generator(seed, "split"))
    for stratum, count in enumerate(take.tolist()):
        held_out[order[strata[order] == stratum][:count]] = True
    return images.subset(torch.nonzero(~held_out)[:, 0]), images.subset(torch.nonzero(held_out)[:, 0])


def unbalance(images: ImageSet, ratio: float, *, seed: int, classes: Iterable[int] | None = None) -> ImageSet:
    """A pool of about the same size in which `classes` (even numbers if None) are `ratio` times as frequent as before.

    For G images in `classes` and S in the others, the others shrink by the factor f = (G + S) / (ratio G + S), and
    `classes` grow by ratio f; where G = S, ratio 7/3 gives 0.6 and 1.4. A class grows by slightly moved copies of its
    images (`augment`), of all equally many, give or take one. The kept images come first, in their old order.
    Raises ValueError without labels, with several per image, or if a class would vanish.
    """
    ratio = check_number("ratio", ratio, low=1)
    if images.labels is None or images.multi_label:
        came = "several per image" if images.multi_label else "none"
        raise ValueError(f"unbalance needs one label per image, got {came}")
    counts = torch.bincount(images.labels, minlength=images.n_classes)
    chosen = range(0, len(counts), 2) if classes is None else sorted(classes) if isinstance(classes, Set) else classes
    chosen = check_index(chosen, len(counts), "classes").unique()
    if len(chosen) in (0, len(counts)):
        raise ValueError(f"classes must be some but not all of the {len(counts)} classes, got {chosen.tolist()}")
    grow = torch.zeros(len(counts), dtype=torch.bool).index_fill_(0, chosen, True)
    shrink = float(counts.sum()) / float(ratio * counts[grow].sum() + counts[~grow].sum())
    targets = (counts * torch.where(grow, ratio * shrink, shrink).double()).round().long()
    if gone := torch.nonzero((targets == 0) & (counts > 0))[:, 0].tolist():
        raise ValueError(f"ratio={ratio:g} leaves no image of class {gone[0]}, which has {int(counts[gone[0]])}")
    rng = generator(seed, "unbalance")
    kept, sources = [], []
    for label, (count, target) in enumerate(zip(counts.tolist(), targets.tolist(), strict=True)):
        members = torch.nonzero(images.labels == label)[:, 0][torch.randperm(count, generator=rng)]
        members = members.repeat(math.ceil(target / max(count, 1)))[:target]
        kept.append(members[:count])
        sources.append(members[count:])
    kept, sources = torch.cat(kept).sort().values, torch.cat(sources)
    pool = images.subset(torch.cat([kept, sources]))
    pool.images[len(kept) :] = augment(pool.images[len(kept) :], generator=rng)
    return replace(pool, source=f"{images.source}, unbalanced by {ratio:g}")
