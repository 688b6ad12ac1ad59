"""The door: what users pass becomes, once, what the inside of lalib expects.

Arrays, tables, lists and tensors become tensors, numpy's scalars become Python numbers, names become text in one form.
Inside nobody converts again. Of a pandas table positions count, never its index. Every message says what is allowed and
what came.
"""

import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

JOINERS = "\u200c\u200d"  # zero-width: Persian words and emoji need them inside; at an end nobody sees them
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control and format characters, half characters, ends of lines


def as_tensor(values, name: str) -> Tensor:
    """`values` as a tensor of numbers without gradient: a tensor stays on its device, everything else is on the CPU.

    Takes tensors, numpy arrays of every number type, stride and byte order, pandas objects and lists. What torch does
    not hold as well becomes int64 or float64. Raises TypeError for what is no array of numbers, ValueError for rows of
    different lengths.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
        return (values.to_dense() if values.is_sparse else values).detach()
    array = _as_array(values, name)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and int(array.max()) >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {int(array.max())}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():  # torch warns that a read-only array could be written to; lalib never writes
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _as_array(values, name) -> np.ndarray:
    if values is None or isinstance(values, (str, bytes, Mapping, set, frozenset)):
        raise TypeError(f"{name} must be an array, a tensor, a table or a list of numbers, got {_kind(values)}")
    try:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if array.dtype == object:  # numbers of different kinds, as tables hold them
            whole = all(isinstance(item, (int, np.integer)) for item in array.flat)
            array = array.astype(np.int64 if whole and array.size else np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        if "inhomogeneous" in str(error) or "sequence" in str(error):
            raise ValueError(f"{name} must be rows of one length, got rows of several") from None
        raise TypeError(f"{name} must hold numbers, got {_kind(values)} of other things") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got {_kind(values)} of {array.dtype}")
    return array


def check_codes(codes, name: str = "codes") -> Tensor:
    """`codes` as a finite tensor (N, L) of float32 or float64 on its own device, N >= 1 and L >= 1.

    Half precision becomes float32; whole numbers become float64. Raises ValueError for other shapes, NaN and infinity.
    """
    codes = as_tensor(codes, name)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"{name} must have shape (N, L) with N, L >= 1, got {tuple(codes.shape)}")
    if codes.dtype not in (torch.float32, torch.float64):
        codes = codes.float() if codes.is_floating_point() else codes.double()
    bad = int((~torch.isfinite(codes)).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite, but {bad} of {len(codes)} rows hold NaN or infinity: has the training diverged?"
        )
    return codes


def check_labels(
    labels,
    n: int | None = None,
    n_classes: int | None = None,
    name: str = "labels",
    *,
    low: int = 0,
    several: bool = False,
) -> Tensor:
    """`labels` as an int64 tensor (n,) in [low, n_classes), n >= 1; what is None is not checked.

    With `several` they may also be (n, n_classes) of 0 and 1: an image may have several classes.
    Raises TypeError for anything but whole numbers, ValueError for another shape or range.
    """
    if labels is None:
        raise TypeError(f"{name} must be whole numbers, one per point, got None")
    labels = as_tensor(labels, name)
    if several and labels.ndim == 2:
        return _check_table_of_labels(labels, n, n_classes, name)
    labels = _whole(labels, name)
    if labels.ndim != 1 or len(labels) == 0 or len(labels) != (n or len(labels)):
        raise ValueError(f"{name} must have shape ({n or 'n'},), one per point, got {tuple(labels.shape)}")
    least, most = int(labels.min()), int(labels.max())
    if n_classes is not None and not low <= least <= most < n_classes:
        raise ValueError(f"{name} must lie in {low} to {n_classes - 1}, got {least} to {most}")
    return labels


def _check_table_of_labels(labels, n, n_classes, name) -> Tensor:
    if len(labels) != (n or len(labels)) or labels.shape[1] < 2 or labels.shape[1] != (n_classes or labels.shape[1]):
        raise ValueError(f"{name} must have shape ({n or 'n'}, {n_classes or 'C'}), got {tuple(labels.shape)}")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"{name} (n, C) must be 0 or 1, got {labels.min().item():g} to {labels.max().item():g}")
    return labels.to(torch.int64)


def check_index(index, size: int, name: str = "index", *, distinct: bool = False) -> Tensor:
    """`index` as an int64 tensor (n,) on the CPU, each in [0, size), n >= 0; with `distinct` none of them twice.

    Raises TypeError for anything but whole numbers, ValueError for another shape or range and for repeats.
    """
    index = as_tensor(index, name).cpu()
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if index.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {tuple(index.shape)}")
    index = _whole(index, name)
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        raise ValueError(f"{name} must lie in 0 to {size - 1}, got {low if low < 0 else high}")
    if distinct and len(index.unique()) < len(index):
        raise ValueError(f"{name} must be distinct, got {len(index)} indices of {len(index.unique())} images")
    return index


def _whole(values, name) -> Tensor:
    if values.is_floating_point() or values.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, got {values.dtype}")
    return values.to(torch.int64)


def check_name(what: str, name: str) -> str:
    """`name` with its accents written in one way (NFC), if it is visible text on one line without spaces at its ends.

    Any script is legal, with no-break spaces and zero-width joiners inside. TypeError or ValueError otherwise.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be text, got {name!r}")
    name = unicodedata.normalize("NFC", str(name))
    if not name or name != name.strip().strip(JOINERS) or any(map(_unseen, name)):
        raise ValueError(
            f"{what} must be text on one line, without spaces at its ends or control characters, got {name!r}"
        )
    return name


def _unseen(character: str) -> bool:
    return character not in JOINERS and unicodedata.category(character) in UNSEEN


def check_class_names(names: Iterable[str], n: int | None = None) -> tuple[str, ...]:
    """`names`, a list, tuple, array or pandas Index, as a tuple of names that differ; n: how many there must be."""
    if isinstance(names, (str, bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"class_names must be a list of names, got {names!r}")
    names = tuple(check_name("a class name", name) for name in names)
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"class_names must differ, got {twins[0]!r} twice")
    if n is not None and len(names) != n:
        raise ValueError(f"class_names must name all {n} classes, got {len(names)} names")
    return names


def renumbered(labels: Tensor, names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Labels (n,), or (n, C) of 0 and 1, of classes `names` as labels of the classes `wanted`, matched by name.

    Negative labels (no class known) stay. Raises ValueError if a class that occurs is not among the wanted ones.
    """
    names, wanted = tuple(names), tuple(wanted)
    if names == wanted:
        return labels
    if labels.ndim == 2:
        used = labels.any(dim=0)
    else:
        used = torch.zeros(len(names), dtype=torch.bool).index_fill_(0, labels[labels >= 0].cpu().unique(), True)
    foreign = [name for name, occurs in zip(names, used.tolist(), strict=True) if occurs and name not in wanted]
    if foreign:
        raise ValueError(f"classes must be among {', '.join(map(repr, wanted))}, got {foreign[0]!r}")
    place = torch.tensor([wanted.index(name) if name in wanted else -1 for name in names], device=labels.device)
    if labels.ndim == 1:
        return torch.where(labels < 0, labels, place[labels.clamp(min=0)])
    known = place >= 0
    return labels.new_zeros(len(labels), len(wanted)).index_copy_(1, place[known], labels[:, known])


def plain(value):
    """`value` with numpy's scalars and 0-d tensors and arrays made Python numbers, also inside lists and mappings."""
    if isinstance(value, np.generic) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return value


def _kind(values) -> str:
    return {"NoneType": "None", "str": f"the text {values!r}"}.get(type(values).__name__, type(values).__name__)
