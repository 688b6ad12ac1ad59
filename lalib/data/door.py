"""The door: what users pass becomes, once, what the inside of lalib expects.

Arrays, tables, lists and tensors become tensors, numpy's scalars become Python numbers, names become text in one form.
Of a pandas table positions count, never its index. Every message says what is allowed and what came.
"""

import contextlib
import decimal
import math
import numbers
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

JOINERS = "\u200c\u200d"  # zero-width: Persian words and emoji need them inside; at an end nobody sees them
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control and format characters, half characters, ends of lines
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = 1e150  # of a code
COMMON = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *FLOATS)


def as_tensor(values, name: str) -> Tensor:
    """`values` as a dense tensor of real numbers without gradient: a tensor on its device, all else on the CPU.

    Takes tensors, numpy arrays of every number type, stride and byte order, pandas objects, sparse ones of torch, scipy
    and pandas, and lists, generators and columns of numbers or of rows. A pandas categorical counts as the numbers it
    shows. Types that torch hardly knows become int64, float32 or float64.
    Raises TypeError for what is no array of numbers (text, missing values), ValueError for rows of different lengths,
    whole numbers of 2^63 and more, masked values and tensors that hold nothing (device "meta").
    """
    if values is None or isinstance(values, (str, bytes, Mapping, set, frozenset)):
        raise TypeError(f"{name} must be an array, a tensor, a table or a list of numbers, got {values!r:.60}")
    if isinstance(values, Iterable) and not isinstance(values, Sequence) and not hasattr(values, "__array__"):
        values = values.toarray() if hasattr(values, "toarray") else list(values)  # scipy's sparse ones, generators
    if isinstance(values, (list, tuple)) and any(issubclass(kind, Tensor) for kind in set(map(type, values))):
        rows = [as_tensor(row, name).cpu() for row in values]
        if len({row.shape for row in rows}) > 1:
            raise ValueError(f"{name} must be rows of one length, got rows of several")
        return torch.stack(rows)
    if not isinstance(values, Tensor):
        array = _as_array(values, name)
        odd = any(stride < 0 or stride % array.itemsize for stride in array.strides)
        dtype = np.float64 if array.itemsize > 8 else array.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):  # a long double becomes infinity
            array = array.astype(dtype, order="C" if odd else "K", copy=odd)
        quiet = warnings.catch_warnings(action="ignore", category=UserWarning)  # of writing, which lalib never does
        with contextlib.nullcontext() if array.flags.writeable else quiet:
            values = torch.from_numpy(array)
    return _dense(values, name)


def _dense(tensor, name) -> Tensor:
    if tensor.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor without any, on the device 'meta'")
    if tensor.is_nested:
        raise ValueError(f"{name} must be rows of one length, got a nested tensor")
    if tensor.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {tensor.dtype}")
    tensor = (tensor.dequantize() if tensor.is_quantized else tensor).detach()
    tensor = tensor.resolve_neg().as_subclass(Tensor) if tensor.layout is torch.strided else tensor.to_dense()
    if tensor.dtype is torch.uint64 and (tensor.view(torch.int64) < 0).any():
        raise ValueError(f"{name} must be below 2^63, got larger ones")
    with torch.inference_mode(False):  # a tensor made in inference mode could not be trained on
        if tensor.dtype in COMMON:
            return tensor.clone() if tensor.is_inference() else tensor
        try:
            return tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64)
        except RuntimeError:
            raise TypeError(f"{name} must hold real numbers, got {tensor.dtype}") from None


def _as_array(values, name) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must hold numbers, got an array with masked ones")
    try:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if "inhomogeneous" in str(error):
            raise ValueError(f"{name} must be rows of one length, got rows of several") from None
        raise TypeError(f"{name} must hold numbers, got a {type(values).__name__} of other things") from None
    array = _of_objects(array, name) if array.dtype == object else array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got {type(values).__name__} of {array.dtype}")
    return array


def _of_objects(array, name) -> np.ndarray:
    """Numbers of different kinds, as tables hold them, or a column of rows."""
    items = [plain(item) for item in array.flat]
    if items and all(isinstance(item, (list, tuple, np.ndarray, Tensor)) for item in items):
        return _as_array(items, name)
    if others := [item for item in items if not isinstance(item, (numbers.Real, decimal.Decimal))]:
        raise TypeError(f"{name} must hold numbers, got {others[0]!r:.60}")
    try:
        found = np.asarray(items)
        if found.dtype == object:  # fractions, or whole numbers too large
            found = found.astype(np.int64 if all(isinstance(item, int) for item in items) else np.float64)
    except OverflowError:
        raise ValueError(f"{name} must be below 2^63, got larger ones") from None
    return found.reshape(array.shape)


def within(values: Tensor, bound: float) -> bool:
    """Whether all values are finite and none is beyond the bound in size; without a copy of them."""
    extremes = [float(extreme) for extreme in (values.amin(), values.amax())] if values.numel() else []
    return all(math.isfinite(value) and abs(value) <= bound for value in extremes)


def check_codes(codes, name: str = "codes", n: int | None = None) -> Tensor:
    """`codes` as a finite tensor (N, L) of float32 or float64 on its own device, N >= 1 and L >= 1.

    n: what N must be, one row per image. Half precision becomes float32; whole numbers become float64. Raises
    ValueError for other shapes, NaN, infinity and numbers beyond LARGEST, whose squares would be infinite.
    """
    codes = as_tensor(codes, name)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"{name} must have shape (N, L) with N, L >= 1, got {tuple(codes.shape)}")
    if n not in (None, len(codes)):
        raise ValueError(f"{name} must be those of the {n} images, got {len(codes)} rows")
    if codes.dtype not in (torch.float32, torch.float64):
        codes = codes.float() if codes.is_floating_point() else codes.double()
    if not within(codes, LARGEST):
        bad = int((~(codes.double().abs() <= LARGEST)).any(dim=1).sum())
        what = f"numbers beyond {LARGEST:g}" if within(codes, torch.inf) else "NaN or infinity"
        said = f"{bad} of {len(codes)} rows hold {what}"
        raise ValueError(f"{name} must be finite, but {said}: has the training diverged?")
    return codes


def check_labels(
    labels, n: int | None = None, n_classes: int | None = None, name="labels", *, low: int = 0, several: bool = False
) -> Tensor:
    """`labels` as an int64 tensor (n,) in [low, n_classes), n >= 1; what is None is not checked.

    With `several` they may also be (n, n_classes) of 0 and 1: an image may have several classes.
    Raises TypeError for anything but whole numbers, ValueError for another shape or range.
    """
    labels = as_tensor(labels, name)
    if several and labels.ndim == 2:
        if len(labels) != (n or len(labels) or 1) or labels.shape[1] < 2 or n_classes not in (None, labels.shape[1]):
            shape = tuple(labels.shape)
            raise ValueError(f"{name} must have shape ({n or 'n'}, {n_classes or 'C >= 2'}), got {shape}")
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"{name} (n, C) must be 0 or 1, got {labels.min().item():g} to {labels.max().item():g}")
        return labels.to(torch.int64)
    labels = _whole(labels, name)
    if labels.ndim != 1 or len(labels) != (n or len(labels) or 1):
        raise ValueError(f"{name} must have shape ({n or 'n'},), one per point, got {tuple(labels.shape)}")
    least, most = int(labels.min()), int(labels.max())
    if n_classes is not None and not low <= least <= most < n_classes:
        raise ValueError(f"{name} must lie in {low} to {n_classes - 1}, got {least} to {most}")
    return labels


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
        missing = values.is_floating_point() and values.isnan().any()
        raise TypeError(f"{name} must be whole numbers, got {'missing ones (NaN)' if missing else values.dtype}")
    return values.to(torch.int64)


def check_name(what: str, name: str) -> str:
    """`name` with its accents written in one way (NFC), if it is visible text on one line without spaces at its ends.

    Any script is legal, with no-break spaces and zero-width joiners inside. TypeError or ValueError otherwise.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be text, got {name!r}")
    name = unicodedata.normalize("NFC", str(name))
    unseen = {character for character in name if unicodedata.category(character) in UNSEEN}
    if not name or name != name.strip().strip(JOINERS) or unseen - set(JOINERS):
        ends = "without spaces at its ends or control characters"
        raise ValueError(f"{what} must be text on one line, {ends}, got {name!r}")
    return name


def check_class_names(names: Iterable[str], n: int | None = None) -> tuple[str, ...]:
    """`names`, a list, tuple, array or pandas object of text, as a tuple of different names; n: how many there must be.

    Raises TypeError for what is no list of text (a set has no order), ValueError for a name that check_name refuses.
    """
    several = isinstance(names, Iterable) and getattr(names, "ndim", 1) == 1
    if not several or isinstance(names, (str, bytes, Mapping, set, frozenset)):
        raise TypeError(f"class_names must be a list of names, got {names!r:.60}")
    names = tuple(check_name("a class name", name) for name in names)
    if twins := sorted({name for name in names if names.count(name) > 1}):
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
    used = labels.any(dim=0).nonzero()[:, 0] if labels.ndim == 2 else labels[labels >= 0].unique()
    if foreign := [names[label] for label in used.tolist() if names[label] not in wanted]:
        raise ValueError(f"classes must be among {', '.join(map(repr, wanted))}, got {foreign[0]!r}")
    place = torch.tensor([wanted.index(name) if name in wanted else -1 for name in names], device=labels.device)
    if labels.ndim == 1:
        return torch.where(labels < 0, labels, place[labels.clamp(min=0)])
    known = place >= 0
    return labels.new_zeros(len(labels), len(wanted)).index_copy_(1, place[known], labels[:, known])


def plain(value):
    """`value` with numpy's scalars and 0-d tensors and arrays made Python numbers, also inside lists and mappings."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 and value.dtype.kind in "biufcU":
        return float(value) if value.dtype.char == "g" else value.item()  # numpy's long double stays itself
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_meta:
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return value
