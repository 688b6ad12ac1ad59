"""What the page's map is coloured by: what a person has answered, and what the classifier makes of it."""

from itertools import pairwise

import numpy as np
import torch

from lalib.figures.style import GREY, INK, colour
from lalib.labelling import LabellingLoop, Snapshot
from lalib.models.networks import UNKNOWN
from lalib.widgets.groups import NO_GROUP, Groups, grouped, shades

ANSWERS, PREDICTED, SURE, ROUND = "my answers", "predicted class", "how sure", "round"
COLOURED = (ANSWERS, PREDICTED, SURE, ROUND, "error on the yardstick")
SURE_STEPS = (0.5, 0.7, 0.9, 0.99)  # probabilities of the most probable class at which another colour begins
RIGHT, WRONG = colour(0), colour(3)  # blue and vermillion, which stay apart for colour-blind readers


def coloured(what: str, loop: LabellingLoop, snapshot: Snapshot | None) -> Groups:
    """Every image's group by one of COLOURED; snapshot: the latest classifier, without which all but ANSWERS and ROUND
    say that nothing is learnt yet."""
    images, classes = loop.data.images, loop.store.class_names
    if what == ANSWERS:
        return _answers(loop, images, classes)
    if what == ROUND:
        return _rounds(loop, len(images))
    if snapshot is None:
        return Groups(np.zeros(len(images), dtype=np.int64), ("nothing is learnt yet",), (NO_GROUP,))
    sure, predicted = snapshot.probs.max(dim=1)
    if what == PREDICTED:
        return grouped("class", predicted, len(images), classes)
    if what == SURE:
        steps = np.searchsorted(SURE_STEPS, sure.numpy(), side="right")
        ends = [f"{end:.0%}".replace("%", " %") for end in (*SURE_STEPS, 1)]
        names = [f"below {ends[0]}", *(f"{a[:-2]} to {b}" for a, b in pairwise(ends))]
        return Groups(steps, tuple(names), shades(len(names)))
    index, groups = loop.held_out, np.full(len(images), 2)
    truth = loop.store.labels(images)[index]  # the images of a loop have no labels of their own
    known = truth != UNKNOWN
    groups[index[known].numpy()] = (predicted[index] != truth)[known].long().numpy()
    return Groups(groups, ("right", "wrong", "not on the yardstick"), (RIGHT, WRONG, NO_GROUP))


def _answers(loop, images, classes):
    """Classes, then "not sure", then those without an answer, which skipped ones are."""
    number = {name: c for c, name in enumerate(classes)}
    unsure, none = len(classes), len(classes) + 1
    given = {a.image: number.get(a.class_name, unsure) for a in loop.store.answers().values() if a.kind != "skip"}
    groups = np.array([given.get(image, none) for image in images.hashes])
    colours = (*map(colour, range(len(classes))), INK, NO_GROUP)
    return Groups(groups, (*classes, "not sure", "no answer"), colours)


def _rounds(loop, n):
    """In which round an image of the pool was answered, of loop.step answers each; the yardstick apart."""
    order, none = loop.answered[0], -(-len(loop.answered[0]) // loop.step)
    groups = np.full(n, none + 1)
    groups[loop.held_out.numpy()] = none
    groups[order.numpy()] = torch.arange(len(order)).div(loop.step, rounding_mode="floor").numpy()
    names = (*(f"round {k + 1}" for k in range(none)), "yardstick", "not asked")
    return Groups(groups, names, (*shades(none), GREY, NO_GROUP))
