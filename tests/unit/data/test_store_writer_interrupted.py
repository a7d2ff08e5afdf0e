"""Writing a feature store: all or nothing."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

Corpus = list[dict[str, np.ndarray]]


def _table(n: int) -> pd.DataFrame:
    return pd.DataFrame({"utterance_id": [f"u{i}" for i in range(n)]})


def _writer(out: Path, n: int, modalities: tuple[str, ...] = ("audio", "text"), **more: object) -> FeatureStoreWriter:
    return FeatureStoreWriter(out, _table(n), modalities, name="mine", source="made up", **more)  # type: ignore[arg-type]


def _write(out: Path, corpus: Corpus, **more: object) -> FeatureStore:
    modalities = tuple(sorted({m for features in corpus for m in features}))
    with _writer(out, len(corpus), modalities, **more) as writer:
        for i, features in enumerate(corpus):
            writer.add(f"u{i}", features)
    return FeatureStore.open(out)


def _frames(*shape: int, value: float = 1.0) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


def test_a_caught_error_does_not_let_a_hole_through(tmp_path: Path) -> None:
    def write() -> None:
        with _writer(tmp_path / "store", 2) as writer:
            writer.add("u0", {"audio": _frames(1, 2), "text": _frames(1)})
            with suppress(InputError):
                writer.add("u1", {"audio": _frames(1, 2), "text": _frames(1, value=np.inf)})

    with pytest.raises(ValueError, match="1 of 2 utterances"):
        write()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing_new(tmp_path: Path, interruption: type[BaseException]) -> None:
    out = tmp_path / "store"

    def write() -> None:
        with _writer(out, 2, ("audio",)) as writer:
            writer.add("u0", {"audio": _frames(1, 2)})
            assert not out.exists()
            raise interruption

    with pytest.raises(interruption):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_the_earlier_store_as_it_was(tmp_path: Path) -> None:
    before = _write(tmp_path / "store", [{"audio": _frames(2, 2)}])

    def write() -> None:
        with _writer(before.path, 2, ("audio",), overwrite=True) as writer:
            writer.add("u0", {"audio": _frames(1, 2)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    after = FeatureStore.open(before.path)
    after.verify()
    assert after.checksum == before.checksum
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


_KILLED = """
import os, signal, sys
import numpy as np, pandas as pd
from cmarr_lightning.data.store_writer import FeatureStoreWriter

table = pd.DataFrame({"utterance_id": ["u0", "u1"]})
with FeatureStoreWriter(sys.argv[1], table, ("audio",), name="mine", source="made up", overwrite=True) as writer:
    writer.add("u0", {"audio": np.ones((1, 2), "f4")})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="without locks nobody can tell a killed writer from a living one")
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    before = _write(tmp_path / "store", [{"audio": _frames(2, 2)}])
    (tmp_path / "store.partial-of-mine").mkdir()
    done = subprocess.run([sys.executable, "-c", _KILLED, str(before.path)], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.glob("store.partial-????????")
    assert FeatureStore.open(before.path).checksum == before.checksum
    _write(before.path, [{"audio": _frames(3, 2)}], overwrite=True)
    assert not left.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"store", "store.partial-of-mine"}


def test_a_writer_leaves_another_one_at_work_alone(tmp_path: Path) -> None:
    with _writer(tmp_path / "store", 1, ("audio",), overwrite=True) as slow:
        _write(tmp_path / "store", [{"audio": _frames(2, 2)}], overwrite=True)
        slow.add("u0", {"audio": _frames(3, 2)})
    assert FeatureStore.open(tmp_path / "store").lengths("audio").tolist() == [3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_swap_that_fails_puts_the_earlier_store_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _write(tmp_path / "store", [{"audio": _frames(2, 2)}])
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(InputError, match=r"store: cannot be written \(No space left on device\)"):
        _write(before.path, [{"audio": _frames(3, 2)}], overwrite=True)
    assert FeatureStore.open(before.path).checksum == before.checksum
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_half_written_store_does_not_open(tmp_path: Path) -> None:
    with _writer(tmp_path / "store", 1, ("audio",)) as writer:
        writer.add("u0", {"audio": _frames(1, 2)})
        (half,) = tmp_path.iterdir()
        with pytest.raises(InputError, match="no feature store"):
            FeatureStore.open(half)


def test_an_existing_folder_is_replaced_only_when_asked_and_only_if_it_is_a_store(tmp_path: Path) -> None:
    corpus: Corpus = [{"audio": _frames(2, 2)}]
    before = _write(tmp_path / "store", corpus)
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        _write(before.path, corpus)
    reading = before.get(0, "audio")
    after = _write(before.path, [{"audio": _frames(2, 2, value=5.0)}], overwrite=True)
    assert after.get(0, "audio").tolist() == [[5.0, 5.0]] * 2
    assert reading.tolist() == [[1.0, 1.0]] * 2  # who has the earlier one open keeps reading it
    (before.path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match=r"more than a feature store \(thesis\.tex\)"):
        _write(before.path, corpus, overwrite=True)
    (tmp_path / "file").write_text("dear")
    with pytest.raises(InputError, match="not replaced"):
        _write(tmp_path / "file", corpus, overwrite=True)
    assert (before.path / "thesis.tex").exists()


def test_missing_parents_are_made_and_unwritable_ones_are_named(tmp_path: Path) -> None:
    assert len(_write(tmp_path / "a" / "b" / "store", [{"audio": _frames(2, 2)}])) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/store: cannot be written \(File exists\)"):
        _write(tmp_path / "file" / "store", [{"audio": _frames(2, 2)}])
