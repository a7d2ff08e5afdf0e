"""Reading pickles that may be hostile: numbers, text and containers, nothing that runs."""

from __future__ import annotations

import codecs
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from cmarr_lightning.data.importers.copied_size import copied_size
from cmarr_lightning.data.importers.guards import SizeBudget, check_text
from cmarr_lightning.errors import InputError

__all__ = ["load_pickle"]

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_PLAIN_DTYPE = re.compile(r"[<>|=]?([?bBhHiIlLqQefdFD]|[biufc]\d{1,2}|[SUV]\d{1,9}|O8?)")
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


def load_pickle(path: Path, budget: SizeBudget) -> Any:
    """Load a pickle that holds NumPy arrays, builtin containers and scalars only.

    Pickles of Python 2 are read with the encoding latin1, as the projects that wrote them do. NumPy's own
    constructors are never handed what the file says: shapes, types and sizes are checked before.

    Args:
        path: The file.
        budget: What its arrays may claim.

    Returns:
        The object. Its arrays are of a subclass of ndarray; `np.asarray` gives plain ones without a copy.

    Raises:
        InputError: The pickle needs anything else (the message names the forbidden global), is damaged, or
            claims more than the budget.
    """
    try:
        with path.open("rb") as file:
            _check_operations(file, path)
            file.seek(0)
            content = _RestrictedUnpickler(file, path, budget).load()
        size = copied_size(content)
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"{path}: not a readable pickle ({type(error).__name__}: {error})", remedy="download or save it again"
        ) from error
    SizeBudget(budget.limit).take(size, f"{path}: what it refers to, each reference counted,")
    return content


def _check_operations(file: IO[bytes], path: Path) -> None:
    """Refuse memo numbers beyond the number of operations: the unpickler would allocate that many places.

    Halves of characters, which pickles can hold and files of text cannot, are a ValueError here.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if isinstance(argument, str):
            argument.encode()
        if operation.name in _MEMO and isinstance(argument, int) and argument > count:
            raise InputError(f"{path}: absurd memo number {argument}", remedy="do not trust this file")


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path, budget: SizeBudget) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._budget = budget
        numpy_names: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
            "_reconstruct": (_MULTIARRAY, self._empty_array),
            "scalar": (_MULTIARRAY, self._scalar),
            "_frombuffer": (_NUMERIC, self._array_of_buffer),
            "ndarray": (("numpy",), _refuse_call),
            "dtype": (("numpy",), _DType),
        }
        builtin_names: dict[str, Callable[..., Any]] = {
            "set": set,
            "frozenset": frozenset,
            "complex": complex,
            "bytes": self._bytes,
            "bytearray": self._bytearray,
        }
        self._allowed = {
            (module, name): _Constructor(build) for name, (modules, build) in numpy_names.items() for module in modules
        }
        for module in ("builtins", "__builtin__"):
            self._allowed |= {(module, name): _Constructor(build) for name, build in builtin_names.items()}
        self._allowed["_codecs", "encode"] = _Constructor(self._encode)
        self._allowed["collections", "OrderedDict"] = _Constructor(OrderedDict)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise InputError(
                f"{self._path}: the pickle asks for {module}.{name}, which is not allowed because it could run code",
                remedy="convert the file where you trust it, e.g. to .npy files, and import those",
            )
        return self._allowed[module, name]

    def _take(self, claimed: int) -> None:
        self._budget.take(claimed, f"{self._path}: an array")

    def _empty_array(self, _: object, shape: tuple[int, ...], typecode: object) -> _Array:
        if tuple(shape) != (0,):
            raise ValueError(f"array constructed with shape {shape}")
        array = np.empty(0).view(_Array)
        # Not a method of the unpickler: its memo would live as long as the arrays.
        array.claim = partial(self._budget.take, where=f"{self._path}: an array")
        return array

    def _array_of_buffer(self, buffer: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> np.ndarray:
        self._take(len(buffer))
        return _checked(buffer, dtype.resolve(), shape).reshape(shape, order="F" if order == "F" else "C")

    def _scalar(self, dtype: _DType, raw: bytes | str = b"") -> Any:
        return _checked(_raw(raw), dtype.resolve(), (1,))[0]

    def _bytes(self, content: bytes = b"") -> bytes:
        return _only_bytes(content)

    def _bytearray(self, content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
        self._take(len(content))
        return bytearray(_raw(content))

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "utf-8", "ascii"):
            raise ValueError(f"encoding {encoding!r}")
        self._take(len(text))
        return codecs.encode(text, encoding)


class _Constructor:
    """What a global of the pickle stands for: it can be called, and nothing of it can be changed."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a constructor cannot be changed")

    def __setstate__(self, state: object) -> None:
        raise ValueError("a constructor has no state")


class _DType:
    """Type of an array as the pickle describes it, without structure, alignment or metadata."""

    __slots__ = ("_order", "_spec")

    def __init__(self, spec: str, align: object = False, copy: object = False) -> None:
        if not isinstance(spec, str) or not _PLAIN_DTYPE.fullmatch(spec):
            raise ValueError(f"dtype {spec!r}")
        self._spec, self._order = spec, ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
            raise ValueError(f"state {state!r} of a dtype")
        self._order = state[1]

    def resolve(self) -> np.dtype[Any]:
        dtype = np.dtype(self._spec)
        return dtype.newbyteorder(">") if self._order == ">" else dtype


class _Array(np.ndarray):
    """An array that checks its state before NumPy sees it."""

    claim: Callable[[int], None]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, described, fortran, content = state
        dtype = described.resolve()
        claim = math.prod(shape) * dtype.itemsize
        self.claim(claim)
        if dtype.hasobject:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise ValueError(f"{shape} objects are not in the pickle")
        else:
            content = _raw(content)
            _checked(content, dtype, shape)
        super().__setstate__((1, tuple(shape), dtype, bool(fortran), content))  # type: ignore[arg-type]


def _checked(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) or dtype.hasobject:
        raise ValueError(f"{len(content)} bytes for {dtype} {shape}")
    array = np.frombuffer(content, dtype=dtype) if dtype.itemsize else np.empty(shape, dtype)
    check_text(array)
    return array


def _raw(content: bytes | bytearray | str) -> bytes:
    """Give the bytes of a buffer; Python 2 wrote them as text."""
    return content.encode("latin1") if isinstance(content, str) else _only_bytes(content)


def _only_bytes(content: object) -> bytes:
    if not isinstance(content, bytes | bytearray):
        raise ValueError(f"{type(content).__name__} in place of bytes")
    return bytes(content)


def _refuse_call(*_: object) -> None:
    raise ValueError("ndarray called directly")
