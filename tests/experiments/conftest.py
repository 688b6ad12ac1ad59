"""What several comparisons are tried on."""

import pytest

import lalib as la


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(250))


@pytest.fixture(scope="module")
def held_out():
    return la.load("digits", "test").subset(range(100))
