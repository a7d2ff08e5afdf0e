"""Reading hostile pickles: what is allowed comes back equal, all else stops before anything runs."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmarr_lightning.data.importers.guards import SizeBudget
from cmarr_lightning.data.importers.safe_pickle import load_pickle
from cmarr_lightning.errors import InputError


def _load(path: Path, content: bytes, max_bytes: int = 10**8) -> Any:
    path.write_bytes(content)
    return load_pickle(path, SizeBudget(max_bytes))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_containers_and_scalars_come_back_equal(tmp_path: Path, protocol: int) -> None:
    written = {
        "list": [1, -2.5, "text", b"bytes", None, True, (1, 2), {"a"}, frozenset({3}), 2**70, 1 + 2j],
        "ordered": OrderedDict(a=1),
        "scalar": np.float32(1.5),
        "number": np.int64(-3),
        "word": np.str_("word"),
        "bytearray": bytearray(b"xy"),
        "empty": b"",
    }
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
        np.arange(4, dtype=">i8"),
        np.array(["a", "bcd"]),
        np.array([b"x", b"yz"]),
        np.array([True, False]),
        np.zeros((0, 5), "f2"),
        np.array(3.0),
        np.array(["a", None, 3], dtype=object),
    ]
    read = _load(tmp_path / "x.pkl", pickle.dumps((written, arrays), protocol=protocol))
    assert read[0] == written
    for found, expected in zip(read[1], arrays, strict=True):
        plain = np.asarray(found)
        assert type(plain) is np.ndarray
        assert (plain.dtype.name, plain.shape) == (expected.dtype.name, expected.shape)
        np.testing.assert_array_equal(plain, expected)


@given(hnp.arrays(hnp.floating_dtypes() | hnp.integer_dtypes(), hnp.array_shapes(min_side=0)), st.integers(2, 5))
def test_any_array_of_numbers_comes_back(tmp_path_factory: pytest.TempPathFactory, array: Any, protocol: int) -> None:
    if array.dtype.itemsize > 8:
        return
    read = _load(tmp_path_factory.getbasetemp() / "any.pkl", pickle.dumps([array], protocol=protocol))[0]
    assert read.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(read), array)


def test_arrays_as_python_2_wrote_them_come_back(tmp_path: Path) -> None:
    raw = np.arange(3, dtype="<f8").tobytes()
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(raw)]) + raw + b"tb."
    )
    np.testing.assert_array_equal(np.asarray(_load(tmp_path / "x.pkl", content)), [0, 1, 2])


class _Runs:
    """Makes a file when it is unpickled the ordinary way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_does_not_run_and_is_named(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"train": [np.ones(3), _Runs(tmp_path / "ran")]}, protocol=protocol)
    with pytest.raises(InputError, match=r"x\.pkl: the pickle asks for (posix|nt)\.mkdir, which is not allowed"):
        _load(tmp_path / "x.pkl", content)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # the sample is a real one


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core", "multiarray._reconstruct"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "set.__init__"),
        ("__builtin__", "getattr"),
        ("functools", "partial"),
        ("collections", "defaultdict"),
        ("torch", "load"),
        ("copyreg", "_reconstructor"),
        ("cmarr_lightning.errors", "InputError"),
    ],
)
def test_other_globals_stop_the_reading(tmp_path: Path, module: str, name: str) -> None:
    short = [b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)]
    content = b"\x80\x04" + short[0] + short[1] + b"\x93."
    with pytest.raises(InputError, match=f"asks for {module}.{name}"):
        _load(tmp_path / "x.pkl", content)


def _array_pickle(shape: bytes, dtype: bytes = b"U\x02f8", content: bytes = b"U\x00") -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"\x85cnumpy\ndtype\n" + dtype + b"K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + content + b"tb."
    )


_HUGE = b"\x8a\x06" + (2**40).to_bytes(6, "little")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (_array_pickle(_HUGE), "claims 8796 GB"),
        (_array_pickle(b"J\xff\xff\xff\xff"), "claims -8e-09 GB|bytes for float64"),
        (_array_pickle(b"K\x03"), "0 bytes for float64"),
        (_array_pickle(b"K\x03", dtype=b"U\x06V100,f"), "dtype 'V100,f'"),
        (_array_pickle(b"K\x03", dtype=b"]"), r"dtype \[\]"),
        (_array_pickle(b"K\x03", dtype=b"U\x01O", content=b"]"), "objects are not in the pickle"),
        (b"\x80\x02cnumpy\nndarray\n" + _HUGE + b"\x85R.", "ndarray called directly"),
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _HUGE + b"\x85U\x01b\x87R.",
            "array constructed with shape",
        ),
        (b"\x80\x02cbuiltins\nbytearray\n" + _HUGE + b"\x85R.", "TypeError"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "memo number|stack"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "absurd memo number 2147483647"),
        (b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b"x.", "not a readable pickle"),
        (b"", "not a readable pickle"),
        (b"plain text", "not a readable pickle"),
        (b"\x80\x02cbuiltins\nset\n}U\x01aK\x01sb.", "a constructor has no state"),
        (b"\x80\x02cbuiltins\nset\nN}U\x06_buildK\x01s\x86b.", "a constructor has no state"),
        (b"\x80\x02" + b"(" * 5 + b"l" * 3, "not a readable pickle"),
    ],
)
def test_absurd_and_damaged_pickles_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        _load(tmp_path / "x.pkl", content)
    assert "x.pkl" in str(caught.value)
    assert "Remedy" in str(caught.value)


def test_one_buffer_used_many_times_counts_every_time(tmp_path: Path) -> None:
    size = 10**5
    buffer = b"\x80\x02]B" + struct.pack("<i", 8 * size) + bytes(8 * size) + b"q\x000"
    array = _array_pickle(b"J" + struct.pack("<i", size), content=b"h\x00")[2:-1] + b"a"
    assert len(_load(tmp_path / "x.pkl", buffer + 12 * array + b".", max_bytes=10**7)) == 12
    with pytest.raises(InputError, match=r"claims 0.0008 GB after 0.0096 GB before it, and 0.01 GB are allowed"):
        _load(tmp_path / "x.pkl", buffer + 13 * array + b".", max_bytes=10**7)


def test_truncation_anywhere_is_an_error_of_the_input(tmp_path: Path) -> None:
    content = pickle.dumps({"a": [np.arange(5.0), {1, 2}, "x"]}, protocol=4)
    for end in range(len(content)):
        with pytest.raises(InputError, match="not a readable pickle"):
            _load(tmp_path / "x.pkl", content[:end])
