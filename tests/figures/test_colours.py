"""Colours stay apart for readers who see fewer of them, and words stand out from what they are written on."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import lalib as la
from lalib.figures.style import COLOURS, INK

# What is left of linear RGB without one kind of cones: Machado, Oliveira and Fernandes, A physiologically-based model
# for simulation of color vision deficiency, IEEE Transactions on Visualization and Computer Graphics 15, 2009, Table 1.
VISIONS = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1
PANEL = 5  # curves with bands in one panel
APART, SEEN = 10, 2.3  # of CIE 1976 L*a*b*: clearly other colours; the least that is seen


def linear(colour):
    """A colour "#rrggbb" in linear RGB."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x = TO_XYZ @ rgb / TO_XYZ.sum(1)
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    """WCAG 2.2's contrast ratio, 1 to 21."""
    light, dark = sorted((float(TO_XYZ[1] @ linear(colour)) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_stay_apart(vision):
    seen = [lab((VISIONS[vision] @ linear(colour)).clip(0, 1)) for colour in COLOURS]
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(range(len(COLOURS)), 2)}
    assert min(apart.values()) > SEEN
    assert min(far for pair, far in apart.items() if max(pair) < PANEL) > APART


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails


@pytest.mark.parametrize(
    ("ink", "paper"),
    [(INK, "#ffffff"), (INK, "#eeeeee"), ("#555555", "#ffffff"), ("#9b1c00", "#ffffff"), ("#ffffff", "#0072b2")],
)
def test_words_are_read(ink, paper):
    """At least 4.5, as WCAG 2.2 asks of text; they are those of the figures and of the style sheets."""
    assert contrast(ink, paper) >= 4.5
    sheets = [path.read_text().lower() for path in Path(la.__file__).parent.rglob("*.css")]
    sheets += [(Path(la.__file__).parent / "figures" / "style.py").read_text().lower()]
    for colour in {ink.lower(), paper} - {"#ffffff"}:
        assert any(colour in sheet or colour[:4] in sheet for sheet in sheets)
