"""Guards for files of unknown origin: sizes are checked before memory is taken, objects are refused."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from cmarr_lightning.errors import InputError

__all__ = [
    "DEFAULT_MAX_BYTES",
    "UNREADABLE",
    "SizeBudget",
    "check_text",
    "find_under",
    "read_npy",
    "read_npy_header",
    "refuse_some",
]

DEFAULT_MAX_BYTES = 8 * 10**9
"""How much the arrays of one import may hold, unless the user says otherwise."""

UNREADABLE = (
    BadZipFile,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TokenError,
    TypeError,
    ValueError,
    zlib.error,
)
"""What NumPy, zip files and HDF5 raise on damaged files."""

SAVE_AGAIN = "save it again with NumPy as plain numbers or plain text, not as objects"

_Form: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]


class SizeBudget:
    """Bytes that the arrays of one import may claim together.

    A few bytes on the disk can claim any size in memory: an array never written, well compressed zeros, one
    buffer referred to a thousand times. So the claim is counted before anything is allocated.

    Args:
        max_bytes: The limit.

    Attributes:
        limit: The limit.

    Examples:
        >>> SizeBudget(10**9).take(4 * 10**12, "features.npz: array 'audio'")
        Traceback (most recent call last):
            ...
        cmarr_lightning.errors.InputError: features.npz: array 'audio' claims 4000 GB, and 1 GB are allowed in \
total. Remedy: raise the limit with --max-gb if you trust the source.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._left = self.limit = max_bytes

    def take(self, claimed: int, where: str) -> None:
        """Count what an array claims.

        Args:
            claimed: Bytes.
            where: File and key; begins the message.

        Raises:
            InputError: More than is left, or a negative size.
        """
        if not 0 <= claimed <= self._left:
            so_far = self.limit - self._left
            before = f" after {_gb(so_far)} before it" if so_far else ""
            raise InputError(
                f"{where} claims {_gb(claimed)}{before}, and {_gb(self.limit)} are allowed in total",
                remedy="raise the limit with --max-gb if you trust the source",
            )
        self._left -= claimed


def read_npy(path: Path, budget: SizeBudget) -> np.ndarray:
    """Read a .npy file of numbers or text.

    Args:
        path: The file.
        budget: What it may claim.

    Raises:
        InputError: Objects, a size that differs from the header's, a damaged file, or more than the budget.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = read_npy_header(file, path.stat().st_size)
            budget.take(math.prod(shape) * dtype.itemsize, f"{path}: the array")
            file.seek(0)
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            check_text(array)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable array ({error})", remedy=SAVE_AGAIN) from error
    return array


def read_npy_header(file: IO[bytes], size: int) -> _Form:
    """Read shape and dtype of a .npy file and check that the file is as long as they say.

    Args:
        file: The open file, at its beginning.
        size: Bytes of the file.

    Raises:
        ValueError: Objects, or another size.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays are not read: they could run code")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != size - file.tell():
        raise ValueError(f"the header says {shape} {dtype}, {claimed} bytes, but there are {size - file.tell()}")
    return shape, dtype


def check_text(array: np.ndarray) -> None:
    """Check that an array of text holds characters: NumPy takes any number for one and fails when it is used.

    Raises:
        ValueError: Numbers that are no characters.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
            raise ValueError("text that is not Unicode")


def find_under(folder: Path, pattern: str, key: Callable[[Path], str] = lambda file: file.stem) -> dict[str, Path]:
    """List the files of a folder by name, so that an id from a file is looked up and never made a path."""
    return {key(file): file for file in sorted(folder.glob(pattern))}


def refuse_some(utterances: Sequence[str], problem: str, remedy: str) -> None:
    """Raise when there are offenders; the message counts them and names the first."""
    if utterances:
        few = ", ".join(utterances[:5]) + (", ..." if len(utterances) > 5 else "")
        raise InputError(f"{problem} {len(utterances)} utterances ({few})", remedy=remedy)


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if abs(size) < 1e12 else f"{size / 1e9:.0f} GB"
