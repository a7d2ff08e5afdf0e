"""Writing so that what is there is either the old or the whole new one, and nothing half-written piles up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["hold", "remove_abandoned", "replacing"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; rename it to `path` at the end, remove it after an error.

    The name keeps the ending of `path`. Missing folders are made.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "scores.csv") as temporary:
        ...         _ = temporary.write_text("a,b")
        ...     [p.name for p in Path(folder).iterdir()]
        ['scores.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def hold(folder: Path) -> int | None:
    """Mark a folder as in use until the descriptor is closed or this process ends, however it ends.

    Returns:
        The descriptor, or None where somebody else holds the folder or the system has no such locks (Windows).
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_abandoned(folders: Iterable[Path]) -> list[Path]:
    """Remove the folders that nobody holds any more: their writers were killed.

    Returns:
        Those that are still held, or of which it cannot be told.
    """
    held = []
    for folder in folders:
        if (descriptor := hold(folder)) is None:
            held.append(folder)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
    return held
