"""The door: what each kind of thing that users pass gives; never a raw error of torch, numpy or pandas."""

import decimal
import fractions
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torchvision import tv_tensors

import lalib as la
from lalib.data.checks import check_choice, check_int, check_number, resolve_device
from lalib.data.door import as_tensor, check_class_names, check_codes, check_index, check_labels, plain, renumbered
from lalib.data.seeds import child_seed

ROWS = [[0, 1], [2, 3], [4, 5]]
ARRAY = np.array(ROWS)
TENSOR = torch.tensor(ROWS, dtype=torch.float32)
TABLE = pd.DataFrame(ROWS, columns=["x", "y"])
PACKED = np.lib.stride_tricks.as_strided(np.frombuffer(b"\0\0\1\0-\2\0\3\0-\4\0\5\0-", "<i2", 7), (3, 2), (5, 2))
with torch.inference_mode():
    INFERRED = TENSOR * 1


def read_only():
    array = ARRAY.astype(np.float32)
    array.flags.writeable = False
    return array


def quiet(function, *args):
    """torch warns of what it calls beta or old: a user's matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def objects(*items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


# Arrays of numbers: ROWS in all their shapes, and the type of the tensor

NUMBER_TYPES = {
    **{np.dtype(name): getattr(torch, name) for name in ("int8", "int16", "int32", "int64", "uint8")},
    **{np.dtype(name): torch.int64 for name in ("uint16", "uint32", "uint64")},
    **{np.dtype(name): getattr(torch, name) for name in ("float16", "float32", "float64")},
    np.dtype(np.longdouble): torch.float64,
    np.dtype(">i2"): torch.int16,
    np.dtype(">u4"): torch.int64,
    np.dtype(">f4"): torch.float32,
    np.dtype(">f8"): torch.float64,
}
ARRAYS = {
    **{f"numpy {dtype}{dtype.byteorder}": (ARRAY.astype(dtype), kind) for dtype, kind in NUMBER_TYPES.items()},
    "Fortran": (np.asfortranarray(ARRAY), torch.int64),
    "sliced": (np.repeat(ARRAY, 2, axis=0)[::2], torch.int64),
    "negative stride": (ARRAY[::-1].copy()[::-1], torch.int64),
    "stride that is no whole number of items": (PACKED, torch.int16),
    "read-only": (read_only(), torch.float32),
    "objects": (ARRAY.astype(object), torch.int64),
    "objects, one a fraction": (
        np.array([[0, 1.0], [2, 3], [decimal.Decimal(4), fractions.Fraction(5)]]),
        torch.float64,
    ),
    "array of arrays": (objects(*ARRAY), torch.int64),
    "matrix": (np.asmatrix(ARRAY), torch.int64),
    "masked, nothing masked": (np.ma.array(ARRAY, mask=False), torch.int64),
    "scipy sparse": (scipy.sparse.csr_array(ARRAY), torch.int64),
    "list": (ROWS, torch.int64),
    "tuples": (tuple(map(tuple, ROWS)), torch.int64),
    "ranges": ([range(0, 2), range(2, 4), range(4, 6)], torch.int64),
    "generator": ((row for row in ROWS), torch.int64),
    "dict values": (dict(enumerate(ROWS)).values(), torch.int64),
    "list of arrays": (list(ARRAY), torch.int64),
    "list of numpy scalars": ([list(row) for row in ARRAY], torch.int64),
    "list of tensors": (list(TENSOR), torch.float32),
    "list of tensors with gradient": (list(TENSOR.clone().requires_grad_()), torch.float32),
    "tensors and lists": ([TENSOR[0], ROWS[1], ARRAY[2]], torch.float32),
    "lists of 0-d tensors": ([list(row) for row in TENSOR], torch.float32),
    "pandas": (TABLE, torch.int64),
    "pandas, filtered": (pd.concat([TABLE, TABLE])[3:], torch.int64),
    "pandas, mixed": (TABLE.astype({"y": float}), torch.float64),
    "pandas, objects": (TABLE.astype(object), torch.int64),
    "pandas, nullable": (TABLE.astype("Int64"), torch.int64),
    "pandas, nullable floats": (TABLE.astype("Float32"), torch.float64),
    "pandas, sparse": (TABLE.astype(pd.SparseDtype("float64", 0)), torch.float64),
    "pandas, categorical": (TABLE.astype("category"), torch.int64),
    "pandas, a column of tensors": (pd.Series(list(TENSOR)), torch.float32),
    "pandas, pyarrow": (TABLE.astype("int64[pyarrow]"), torch.int64),
    "pandas, a column of rows": (pd.Series([np.array(row) for row in ROWS], index=[7, 8, 9]), torch.int64),
    **{
        f"torch {dtype}": (TENSOR.to(dtype), dtype)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int32)
    },
    **{f"torch {dtype}": (TENSOR.to(dtype), torch.int64) for dtype in (torch.uint16, torch.uint32, torch.uint64)},
    "torch float8": (TENSOR.to(torch.float8_e4m3fn), torch.float32),
    "torch not contiguous": (TENSOR.T.contiguous().T, torch.float32),
    "torch with gradient": (TENSOR.clone().requires_grad_() * 1, torch.float32),
    "torch with a sign to come": (torch.conj(TENSOR * -1j).imag, torch.float32),
    "torchvision": (tv_tensors.TVTensor._to_tensor(TENSOR).as_subclass(tv_tensors.Mask), torch.float32),
    "torch parameter": (torch.nn.Parameter(TENSOR), torch.float32),
    "torch of inference mode": (INFERRED, torch.float32),
    "torch sparse": (TENSOR.to_sparse(), torch.float32),
    "torch sparse rows": (quiet(TENSOR.to_sparse_csr), torch.float32),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_as_tensor(kind):
    values, dtype = ARRAYS[kind]
    tensor = as_tensor(values, "x")
    assert (tensor.tolist(), tensor.dtype) == (ROWS, dtype)
    assert (tensor.layout, tensor.requires_grad, type(tensor)) == (torch.strided, False, torch.Tensor)
    assert not tensor.is_inference()


def test_what_needs_no_copy_is_not_copied():
    for values in (read_only(), ARRAY[::2], np.broadcast_to(ARRAY[0], (4, 2)), TABLE[["x"]]):
        array = np.asarray(values)
        assert as_tensor(values, "x").data_ptr() == array.__array_interface__["data"][0]
    assert as_tensor(TENSOR.T, "x").data_ptr() == TENSOR.data_ptr()
    assert as_tensor(np.broadcast_to(ARRAY[0], (4, 2)), "x").tolist() == [[0, 1]] * 4


@pytest.mark.parametrize("values", [5, np.float64(5), np.array(5), torch.tensor(5), decimal.Decimal(5)])
def test_a_number_is_an_array_without_axes(values):
    assert as_tensor(values, "x").shape == ()
    assert as_tensor(values, "x") == 5


BAD_ARRAYS = {
    "None": (None, TypeError, "be an array, a tensor, a table or a list of numbers, got None"),
    "text": ("12", TypeError, "got '12'"),
    "dict": ({0: 1}, TypeError, "got {0: 1}"),
    "set": ({0, 1}, TypeError, "got {0, 1}"),
    "function": (len, TypeError, "hold numbers, got <built-in function len>"),
    "images": (la.from_arrays(np.zeros((1, 8, 8), np.uint8)), TypeError, "hold numbers, got ImageSet"),
    "list of text": (["1", "2"], TypeError, "hold real numbers, got list of <U1"),
    "objects of text": (np.array(["1"], dtype=object), TypeError, "hold numbers, got '1'"),
    "Series of text": (pd.Series(["cat"]), TypeError, "hold numbers, got 'cat'"),
    "categorical of text": (pd.Categorical(["cat"]), TypeError, "hold numbers, got 'cat'"),
    "missing": ([1.0, None], TypeError, "hold numbers, got None"),
    "NA": (pd.Series([1, pd.NA], dtype=object), TypeError, "hold numbers, got <NA>"),
    "masked": (np.ma.array([1, 2], mask=[0, 1]), ValueError, "hold numbers, got an array with masked ones"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), TypeError, "hold real numbers, got ndarray of datetime64"),
    "spans of time": (pd.to_timedelta(["1s"]), TypeError, "hold real numbers, got TimedeltaIndex of timedelta64"),
    "complex": (np.array([1j]), TypeError, "hold real numbers, got ndarray of complex128"),
    "complex objects": (np.array([1j, 2], dtype=object), TypeError, "hold numbers, got 1j"),
    "records": (np.zeros(2, "i4,f4"), TypeError, "hold real numbers, got ndarray of"),
    "rows of several lengths": ([[1], [2, 3]], ValueError, "be rows of one length, got rows of several"),
    "rows of several lengths in a column": (pd.Series([[1], [2, 3]]), ValueError, "be rows of one length"),
    "tensors of several lengths": ([torch.ones(1), torch.ones(2)], ValueError, "be rows of one length"),
    "nested tensor": (
        quiet(torch.nested.nested_tensor, [torch.ones(1), torch.ones(2)]),
        ValueError,
        "be rows of one length, got a nested tensor",
    ),
    "lists of numbers with gradient": (
        [[torch.ones(1, requires_grad=True)]],
        TypeError,
        "hold numbers, got a list of other",
    ),
    "too large": ([2**64], ValueError, "be below 2\\^63"),
    "too large for torch": (
        np.array([2**63], dtype=np.uint64),
        ValueError,
        "be below 2\\^63, got larger",
    ),
    "too large tensor": (torch.tensor([2**63], dtype=torch.uint64), ValueError, "be below 2\\^63"),
    "complex tensor": (torch.tensor([1j]), TypeError, "hold real numbers, got torch.complex64"),
    "bits": (torch.empty(2, dtype=torch.bits8), TypeError, "hold real numbers, got torch.bits8"),
    "meta": (torch.ones(2, device="meta"), ValueError, "without any, on the device 'meta'"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_as_tensor_refuses(kind):
    values, error, message = BAD_ARRAYS[kind]
    with pytest.raises(error, match=f"^x must .*{message}") as caught:
        as_tensor(values, "x")
    assert type(caught.value) is error


def test_quantized_tensors_are_what_they_stand_for():
    quantized = quiet(torch.quantize_per_tensor, TENSOR, 1.0, 0, torch.quint8)
    assert as_tensor(quantized, "x").tolist() == ROWS


# Codes, labels, indices


@pytest.mark.parametrize("kind", ARRAYS)
def test_check_codes_takes_all_of_them(kind):
    values, dtype = ARRAYS[kind]
    codes = check_codes(iter(ROWS) if kind == "generator" else values)
    half = dtype in (torch.float16, torch.bfloat16)
    assert codes.dtype == (torch.float32 if half else dtype if dtype.is_floating_point else torch.float64)
    assert codes.tolist() == ROWS


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (pd.DataFrame({"x": [1, np.nan]}), "1 of 2 rows hold NaN"),
        ([[10**400 / 10**399, 1e39], [np.longdouble("1e4000"), 0]], "1 of 2 rows hold NaN or infinity"),
        (5, r"shape \(N, L\) with N, L >= 1, got \(\)"),
        ([], r"got \(0,\)"),
        (pd.Series([1.0]), r"got \(1,\)"),
    ],
)
def test_check_codes_refuses(codes, message):
    with pytest.raises(ValueError, match=message):
        check_codes(codes)


NUMBERS = {
    "list": [0, 2, 1],
    "tuple": (0, 2, 1),
    "generator": lambda: (number for number in (0, 2, 1)),
    **{f"numpy {dtype}": np.array([0, 2, 1], dtype) for dtype in ("i1", "u1", ">i4", "u8", object)},
    "backwards": np.array([1, 2, 0])[::-1],
    "Series": pd.Series([0, 2, 1]),
    "filtered Series": pd.Series([9, 0, 2, 1])[1:],
    "sorted Series": pd.Series([1, 2, 0])[[2, 1, 0]],
    "nullable Series": pd.Series([0, 2, 1], dtype="UInt8"),
    "categorical": pd.Categorical([0, 2, 1], categories=[2, 1, 0]),
    "Index": pd.Index([0, 2, 1]),
    "list of 0-d tensors": list(torch.tensor([0, 2, 1])),
    "torch int8": torch.tensor([0, 2, 1], dtype=torch.int8),
    "torch uint16": torch.tensor([0, 2, 1], dtype=torch.uint16),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_labels_and_indices(kind):
    values = NUMBERS[kind]
    images = la.from_arrays(np.arange(192, dtype=np.uint8).reshape(3, 8, 8), [0, 1, 2])
    for check in (
        lambda given: check_labels(given, 3, 3),
        lambda given: check_index(given, 3, distinct=True),
        lambda given: la.from_arrays(images.images, given).labels,
        lambda given: images.subset(given).labels,
    ):
        numbers = check(values() if kind == "generator" else values)
        assert (numbers.tolist(), numbers.dtype) == ([0, 2, 1], torch.int64)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "whole numbers, got torch.float64"),
        (pd.Series([0, None]), TypeError, "whole numbers, got missing ones"),
        (pd.Series([0, None], dtype="Int64"), TypeError, "whole numbers, got missing ones|numbers, got <NA>"),
        ([True, False], TypeError, "whole numbers, got torch.bool"),
        (pd.Series([True, False], dtype=object), TypeError, "whole numbers, got torch.bool"),
        (1, ValueError, r"got \(\)"),
        (pd.DataFrame({"y": [0, 1]}), ValueError, r"got \(2, 1\)"),
        (["0", "1"], TypeError, "numbers, got list of <U1"),
        ([0, 2**70], ValueError, "below 2\\^63"),
        ([0, 5], ValueError, "0 to 1, got"),
    ],
)
def test_labels_and_indices_refuse(values, error, message):
    for check in (lambda: check_labels(values, 2, 2), lambda: check_index(values, 2)):
        with pytest.raises(error, match=message):
            check()


@pytest.mark.parametrize("table", [np.eye(2, dtype=bool), torch.eye(2), pd.DataFrame(np.eye(2, dtype=np.int8))])
def test_several_labels_per_image(table):
    labels = check_labels(table, 2, 2, several=True)
    assert (labels.tolist(), labels.dtype) == ([[1, 0], [0, 1]], torch.int64)


@pytest.mark.parametrize("table", [np.zeros((0, 2)), [[0, 1]], [[0], [1]], np.zeros((2, 3))])
def test_several_labels_of_another_shape(table):
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 2\), got"):
        check_labels(table, 2, 2, several=True)
    with pytest.raises(ValueError, match=r"labels must have shape \(2, C >= 2\), got \(2, 2\)"):
        check_labels([[0, 1], [1, 0]], 2, 0, several=True)


def test_class_numbers_that_are_none():
    with pytest.raises(ValueError, match="labels without class_names must lie below 100000, got 4000000000"):
        la.from_arrays(np.zeros((2, 8, 8), np.uint8), [0, 4_000_000_000])


# Numbers

SCALARS = [np.int64, np.uint8, np.float16, np.float32, np.float64, np.longdouble, np.array, torch.tensor]


@pytest.mark.parametrize("kind", SCALARS)
def test_numbers(kind):
    assert (check_number("t", kind(3)), type(check_number("t", kind(3)))) == (3.0, float)
    assert type(plain({"t": [kind(3)]})["t"][0]) in (int, float)
    if kind not in (np.float16, np.float32, np.float64, np.longdouble):
        assert (check_int("n", kind(3)), type(check_int("n", kind(3)))) == (3, int)
        assert child_seed(kind(3), "name", kind(3)) == child_seed(3, "name", 3)
    assert check_number("t", torch.tensor(3.0, dtype=torch.bfloat16, requires_grad=True)) == 3
    assert check_number("t", fractions.Fraction(1, 2)) == 0.5


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((value, TypeError) for value in (np.bool_(True), np.array(True), torch.tensor(True), np.array([3]))),
        *((value, TypeError) for value in (torch.ones(1), np.datetime64(3, "ns"), np.timedelta64(3), np.str_("3"))),
        *((value, TypeError) for value in (1j, np.complex64(1), pd.NA, None, pd.Series([3]), "3")),
        (torch.ones((), device="meta"), TypeError),
        *((value, ValueError) for value in (np.float32("nan"), torch.tensor(float("inf")), 10**400)),
        (np.longdouble("1e4000"), ValueError),
        (fractions.Fraction(10**400), ValueError),
    ],
    ids=repr,
)
def test_what_is_no_number(value, error):
    with pytest.raises(error, match=r"^t must be"):
        check_number("t", value)
    if error is TypeError:
        with pytest.raises(TypeError, match=r"^n must be a whole number, got"):
            check_int("n", value)


@pytest.mark.parametrize("value", [np.array(["a", "b"]), torch.ones(2), pd.Series(["a"]), ["a"], 1, np.float64(1)])
def test_what_is_no_choice(value):
    with pytest.raises(ValueError, match="kind must be one of 'a', 'b', got"):
        check_choice("kind", value, ["a", "b"])
    with pytest.raises(ValueError, match="device"):
        resolve_device(value)


def test_texts_of_numpy_are_choices():
    for value in (np.str_("a"), np.array("a")):
        assert type(check_choice("kind", value, {"a": 1})) is str


# Class names

NAMES = {
    "Persian with a zero-width non-joiner": "می\u200cخواهم",
    "emoji family": "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}",
    "no-break space": "10\u00a0cm",
    "several scripts": "猫 кот गाय",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
@pytest.mark.parametrize(
    "kind",
    [tuple, list, np.array, pd.Index, pd.Series, pd.Categorical, iter, lambda names: np.array(names, dtype=object)],
)
def test_class_names(name, kind):
    expected = (name, "Käfer", "한국")
    names = check_class_names(kind([name, "Ka\u0308fer", "\u1112\u1161\u11ab\u1100\u116e\u11a8"]), 3)
    assert names == expected
    assert {type(name) for name in names} == {str}
    images = la.from_arrays(np.zeros((1, 8, 8), np.uint8), [0], kind([name, "Ka\u0308fer"]))
    assert images.class_names == expected[:2]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["a\x07b"], ValueError, r"without spaces at its ends or control characters, got 'a\\x07b'"),
        (["a\nb"], ValueError, r"on one line, .*, got 'a\\nb'"),
        (["\u202ecat"], ValueError, "control characters"),
        (["cat\u200d"], ValueError, "spaces at its ends"),
        (["\u00a0cat"], ValueError, "spaces at its ends"),
        ([""], ValueError, "got ''"),
        (["\u200d"], ValueError, "spaces at its ends"),
        (["\ud800"], ValueError, "control characters"),
        (["Käfer", "Ka\u0308fer"], ValueError, "class_names must differ, got 'Käfer' twice"),
        ([1, 2], TypeError, "a class name must be text, got 1"),
        (pd.Series(["a", None]), TypeError, "a class name must be text, got"),
        ([b"a"], TypeError, "a class name must be text, got b'a'"),
        ("ab", TypeError, "class_names must be a list of names, got 'ab'"),
        ({"a", "b"}, TypeError, "class_names must be a list of names, got {"),
        ({"a": 1}, TypeError, "class_names must be a list of names, got {'a': 1}"),
        (np.array("a"), TypeError, "class_names must be a list of names, got array"),
        (np.array([["a"]]), TypeError, "class_names must be a list of names, got array"),
        (pd.DataFrame({"a": ["b"]}), TypeError, "class_names must be a list of names"),
        (torch.tensor([1]), TypeError, "a class name must be text, got tensor"),
        (None, TypeError, "class_names must be a list of names, got None"),
    ],
)
def test_class_names_refuse(names, error, message):
    with pytest.raises(error, match=message):
        check_class_names(names)


def test_renumbered():
    labels = torch.tensor([0, 2, -1, 0])
    assert renumbered(labels, "abc", "cxa").tolist() == [2, 0, -1, 2]
    table = torch.tensor([[1, 0, 1], [0, 0, 1]])
    assert renumbered(table, "abc", "cxa").tolist() == [[1, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match="classes must be among 'a', 'x', got 'c'"):
        renumbered(labels, "abc", "ax")


def test_labels_as():
    images = la.from_arrays(np.zeros((3, 8, 8), np.uint8), [0, 2, 0], ["Käfer", "b", "c"])
    assert images.labels_as(pd.Index(["c", "Ka\u0308fer"])).tolist() == [1, 0, 1]
    assert images.labels_as(images.class_names) is images.labels
    with pytest.raises(ValueError, match="classes must be among 'b', 'c', got 'Käfer'"):
        images.labels_as(["b", "c"])
    with pytest.raises(TypeError, match="class_names must be a list of names, got 'b'"):
        images.labels_as("b")
    several = la.from_arrays(images.images, np.eye(3, dtype=int), ["a", "b", "c"])
    assert several.labels_as(list("abxc")).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(la.LalibError, match="arrays has no labels"):
        la.from_arrays(images.images).labels_as(["a"])
