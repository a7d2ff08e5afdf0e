"""The reader of W&B's offline files: a log of protobuf records in blocks, as LevelDB writes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2 as pb

_BLOCK, _HEADER = 32768, 7


@dataclass
class Recorded:
    """What one offline run holds."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    def values(self, key: str) -> list[Any]:
        """Everything that was logged under a name."""
        return [row[key] for row in self.history if key in row]

    def table(self, folder: Path, key: str) -> dict[str, Any]:
        """Read a table that was logged, from the run's files."""
        (path,) = self.values(f"{key}/path")
        return json.loads((folder / "files" / path).read_text())


@pytest.fixture(scope="session")
def read_wandb() -> Callable[[Path], Recorded]:
    """Get the function that reads `offline-run-<time>-<id>`."""
    return _read


def _read(folder: Path) -> Recorded:
    (path,) = folder.glob("*.wandb")
    found = Recorded()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            for item in record.run.config.update:
                found.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "config":
            for item in record.config.update:
                found.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            found.history.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "exit":
            found.finished = record.exit.exit_code == 0
    return found


def _records(data: bytes) -> Iterator[Any]:
    assert data[:4] == b":W&B"
    place, parts = _HEADER, b""
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:  # the rest of a block that no header fits into
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + _HEADER])
        parts += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = pb.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
