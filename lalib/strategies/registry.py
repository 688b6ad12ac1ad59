"""Strategies by name and select(), which runs one on codes.

A strategy is a function (view: PoolView, n: int, *, generator: torch.Generator, **its options) -> Selection.
"""

import numbers
from collections.abc import Callable, Mapping

import torch

from lalib.data.checks import LalibError, check_choice, check_int, check_options
from lalib.data.seeds import generator
from lalib.strategies import clusters, coverage, discriminators, distances, errors, learned, norms, spatial, uncertainty
from lalib.strategies.peers import Peer, is_peer
from lalib.strategies.view import SOURCES, PoolView, Selection

Strategy = Callable[..., Selection]

STRATEGIES: dict[str, Strategy] = {
    "random": spatial.random,
    "uniform-spatial": spatial.uniform_spatial,
    "normal-spatial": spatial.normal_spatial,
    "cluster": spatial.cluster,
    "normal-in-clusters": spatial.normal_in_clusters,
    "uniform-in-clusters": spatial.uniform_in_clusters,
    "clustered-normal-spatial": spatial.clustered_normal_spatial,
    "reconstruction-error": errors.reconstruction_error,
    "k-medoids": clusters.k_medoids,
    "typiclust": clusters.typiclust,
    "probcover": coverage.probcover,
    "maxherding": coverage.maxherding,
    "uncertainty-herding": coverage.uncertainty_herding,
    "least-confidence": uncertainty.least_confidence,
    "margin": uncertainty.margin,
    "entropy": uncertainty.entropy,
    "bald": uncertainty.bald,
    "batchbald": uncertainty.batchbald,
    "badge": learned.badge,
    "core-set": learned.core_set,
    "medal": learned.medal,
    "learning-loss": learned.learning_loss,
    "m2-distance": distances.m2_distance,
    "m2-confidence-distance": distances.m2_confidence_distance,
    "vaal": discriminators.vaal,
    "ta-vaal": discriminators.ta_vaal,
    "m2-vaal": discriminators.m2_vaal,
    "norm-added": norms.norm_added,
    "norm-change": norms.norm_change,
}

# Those that need one label per image.
SINGLE_LABEL = ("batchbald", "m2-distance", "m2-confidence-distance", "norm-added", "norm-change")

# Those that look at codes alone, at reconstruction errors, or at what is labelled without its labels.
LABEL_FREE = (
    "random",
    "uniform-spatial",
    "normal-spatial",
    "cluster",
    "normal-in-clusters",
    "uniform-in-clusters",
    "clustered-normal-spatial",
    "k-medoids",
    "typiclust",
    "probcover",
    "maxherding",
    "reconstruction-error",
)


def select(
    strategy: str | Strategy,
    codes: torch.Tensor,
    n: int,
    *,
    seed: int = 0,
    labeled: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    **sources_and_options,
) -> torch.Tensor:
    """Indices (n,) int64, distinct, in order of picking, of the images to label next.

    strategy: a name in STRATEGIES, a function of that form, or a pool strategy of scikit-activeml (see peers); codes
    (N, L) float on any device; seed: same seed, same answer; labeled (M,) indices of images that have a label already,
    which are never picked, and their labels (M,), or (M, C) if an image may have several. Further keywords are what
    some strategies need, tensors or functions without arguments: probs (N, C), mc_probs (T, N, C), features (N, F),
    errors (N,), predicted_losses (N,) and predicted_losses_with_codes (N,); and the strategy's own options, see its
    docstring. Nothing given is changed.

    Raises ValueError or TypeError for bad arguments (n above the unlabelled images, codes with NaN, an unknown strategy
    or option), LalibError if the strategy lacks something, its threshold cannot be met, or it breaks the protocol.
    """
    options = {name: value for name, value in sources_and_options.items() if name not in SOURCES}
    sources = {name: sources_and_options[name] for name in SOURCES if sources_and_options.get(name) is not None}
    view = PoolView(codes, labeled, labels, sources)
    return run_strategy(strategy, view, n, generator=generator(seed, "select"), **options).index


def run_strategy(
    strategy: str | Strategy, view: PoolView, n: int, *, generator: torch.Generator, **options
) -> Selection:
    """The Selection of a strategy, by name or function, with n, options and result checked; errors as in select."""
    if is_peer(strategy):
        strategy, options = Peer(strategy, options), {}
    if not callable(strategy):
        strategy = STRATEGIES[check_choice("strategy", strategy, STRATEGIES)]
    name = next((key for key, known in STRATEGIES.items() if known is strategy), None)
    name = name or getattr(strategy, "__name__", "strategy")
    check_int("n", n, low=1)
    if n > len(view.unlabeled):
        raise ValueError(f"n={n} exceeds the {len(view.unlabeled)} unlabelled images")
    check_options(name, strategy, options)
    return _check_selection(name, strategy(view, n, generator=generator, **options), view, n)


def _check_selection(name, selection, view, n):
    """LalibError unless the selection holds n distinct unlabelled indices."""
    if not isinstance(selection, Selection):
        raise LalibError(f"{name} must return a Selection, got {type(selection).__name__}")
    index = torch.as_tensor(selection.index).cpu()
    if index.shape != (n,) or index.dtype != torch.int64:
        raise LalibError(f"{name} must return an int64 index ({n},), got {index.dtype} of shape {tuple(index.shape)}")
    if len(index.unique()) < n:
        raise LalibError(f"{name} must return {n} distinct indices, got {n - len(index.unique())} repeated")
    foreign = index[(index < 0) | (index >= view.n_images) | torch.isin(index, view.labeled)]
    if len(foreign):
        raise LalibError(
            f"{name} must return unlabelled indices, got {foreign[0]}, which is labelled or not in the pool"
        )
    record = selection.record
    if not isinstance(record, Mapping) or not all(isinstance(value, numbers.Real) for value in record.values()):
        raise LalibError(f"{name} must return a record of numbers by name, got {record!r}")
    return Selection(index, selection.score, {key: float(value) for key, value in record.items()})
