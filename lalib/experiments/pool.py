"""Labels that stay hidden until they are bought."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lalib.data.checks import check_int
from lalib.data.door import as_tensor, check_index
from lalib.strategies.sources import Source
from lalib.strategies.view import PoolView, labels_of


class Pool:
    """Labels that stay hidden until they are bought, and a record of every purchase.

    labels: all of them, (N,) or (N, C), for a simulated oracle; or a function from an index (n,) to the labels of those
    images, for a person, who then need not know more than what is asked. size: N, needed for a function only.
    """

    def __init__(self, labels: Tensor | Callable[[Tensor], Tensor], size: int | None = None):
        if callable(labels):
            self._oracle, self.size = labels, check_int("size", size, low=1)
        else:
            hidden = as_tensor(labels, "labels")
            hidden = labels_of(hidden, len(hidden) if hidden.ndim else 0).clone()
            self._oracle, self.size = hidden.__getitem__, len(hidden)
        self._bought: list[tuple[Tensor, Tensor]] = []

    def __repr__(self) -> str:
        return f"Pool({len(self.labeled)} of {self.size} labels bought in {len(self._bought)} purchases)"

    @property
    def labeled(self) -> Tensor:
        """Indices (M,) of the images whose label was bought, int64, in the order of buying."""
        return torch.cat([torch.empty(0, dtype=torch.int64), *(index for index, _ in self._bought)])

    @property
    def labels(self) -> Tensor | None:
        """The labels bought, (M,) or (M, C); None before the first purchase."""
        return torch.cat([labels for _, labels in self._bought]) if self._bought else None

    @property
    def purchases(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """(indices, labels) of every purchase, the first one first."""
        return tuple(self._bought)

    def buy(self, index: Tensor) -> Tensor:
        """The labels of the images at `index` (n,); ValueError for one that was bought before or is not in the pool.

        If the oracle fails, nothing is bought.
        """
        index = check_index(index, self.size, distinct=True)
        if not len(index):
            raise ValueError("index must name at least one image to buy, got none")
        before = int(torch.isin(index, self.labeled).sum())
        if before:
            raise ValueError(f"index must name unlabelled images, got {before} bought before")
        labels = self._oracle(index)
        if labels is None:
            raise TypeError(f"the oracle must answer with labels of the {len(index)} images, got None")
        labels = labels_of(labels, len(index))
        if self._bought and labels.shape[1:] != self.labels.shape[1:]:
            before, came = (("n", *part.shape[1:]) for part in (self.labels, labels))
            raise ValueError(f"labels must have the shape of those bought before, {before}, got {came}")
        self._bought.append((index, labels))
        return labels

    def view(
        self,
        codes: Tensor | Callable[[], Tensor],
        own: Iterable[Source] = (),
        **sources: Tensor | Callable[..., Tensor],
    ) -> PoolView:
        """What a strategy may see: the codes (N, L), what was bought, and what the task model says.

        own: sources of the strategy's own.
        """
        return PoolView(codes, self.labeled, self.labels, sources, self.size, own)
