"""How large nested containers become when they are copied out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["copied_size"]

_NUMBER_BYTES = 32
_OBJECT_BYTES = 64
_NUMBERS = {int, float, bool}
_NESTING = (dict, list, tuple, set, frozenset, np.ndarray)


def copied_size(content: Any) -> int:
    """Estimate the bytes of a copy of nested containers in which nothing is shared any more.

    Ten lists that each hold the one before ten times are a hundred references in a pickle, and ten thousand million
    numbers in the array that somebody makes of them.

    Args:
        content: Containers of the standard library, arrays, text and numbers.

    Returns:
        Bytes, roughly; nothing is copied to find out.

    Raises:
        ValueError: A container holds itself.

    Examples:
        >>> copied_size([1, 2]), copied_size([[1, 2]] * 1000)
        (128, 128064)
    """
    sizes: dict[int, int] = {}
    opened: set[int] = set()
    stack = [content]
    while stack:
        top = stack[-1]
        items = _items(top)
        waiting = {id(item): item for item in items if isinstance(item, _NESTING) and id(item) not in sizes}
        if not waiting:
            sizes[id(top)] = _own_size(top) + _sum(items, sizes)
            opened.discard(id(top))
            stack.pop()
        elif id(top) in opened:
            raise ValueError("a container holds itself")
        else:
            opened.add(id(top))
            stack += waiting.values()
    return sizes[id(content)]


def _items(container: Any) -> Sequence[Any]:
    if isinstance(container, dict):
        return [*container, *container.values()]
    if isinstance(container, np.ndarray):
        return list(container.flat) if container.dtype.hasobject else ()
    return tuple(container) if isinstance(container, _NESTING) else ()


def _sum(items: Sequence[Any], sizes: dict[int, int]) -> int:
    if set(map(type, items)) <= _NUMBERS:
        return _NUMBER_BYTES * len(items)
    return sum(sizes[id(item)] if id(item) in sizes else _own_size(item) for item in items)


def _own_size(item: Any) -> int:
    if isinstance(item, np.ndarray):
        return _OBJECT_BYTES + item.nbytes
    return _OBJECT_BYTES + (len(item) if isinstance(item, str | bytes | bytearray) else 0)
