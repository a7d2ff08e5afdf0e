"""Lines and votes of annotation files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cmarr_lightning.errors import InputError

__all__ = ["numbered_lines", "tally"]

_MAX_BYTES = 1 << 28


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file, from 1, without the ends that Unix, Windows or old Macs write.

    Annotators' remarks are in several encodings and are not read, so what is not UTF-8 becomes a mark.

    Raises:
        InputError: The file cannot be read, or is far larger than any annotation.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes, no annotation file", remedy="check the file")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", remedy="check the path") from error
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, line.strip()


def tally(votes: Iterable[str]) -> str:
    """Count votes: the most frequent first.

    Examples:
        >>> tally(["sadness", "neutral", "sadness"])
        'sadness:2 neutral:1'
    """
    counts = sorted(Counter(votes).items(), key=lambda vote: (-vote[1], vote[0]))
    return " ".join(f"{name}:{count}" for name, count in counts)
