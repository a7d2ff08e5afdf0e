"""Sources with anything in any place: they come in, or are refused as input; nothing else happens."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cmarr_lightning.data.importers import import_features
from cmarr_lightning.data.importers.copied_size import copied_size
from cmarr_lightning.data.importers.guards import SizeBudget
from cmarr_lightning.data.importers.hdf5 import HDF5Frames
from cmarr_lightning.errors import InputError

_ODD: tuple[Any, ...] = (
    *(None, 0, -1, 1.5, float("nan"), float("inf"), 10**30, True, "x", "", "../e", "a\0b", b"b"),
    *([], (), {}, set(), [[]], {"a": 1}, [1, "a"], np.zeros(0), np.zeros((2, 0)), np.zeros((2, 2, 2, 2))),
    *(np.array("s"), np.array([1, 2]), np.ones(3, complex), np.array(["a"]), np.array([None, 1], object)),
)


def _npz(folder: Path) -> Path:
    folder.mkdir()
    ids = np.array([f"u{i}" for i in range(20)])
    np.savez_compressed(
        folder / "features.npz", audio=np.ones((20, 3)), label=np.array(["a", "b"] * 10), utterance_id=ids
    )
    return folder


_PICKLES: dict[str, Callable[[SimpleNamespace, Path], Path]] = {
    "gcnet": lambda sources, at: sources.gcnet(at / "in", sources.Made(per_speaker=2)),
    "conversation": lambda sources, at: sources.conversation(at / "in.pkl", sources.Made(per_speaker=2)),
    "mmsa": lambda sources, at: sources.mmsa(at / "in.pkl", sources.Made(per_speaker=2)),
}
_ALL = _PICKLES | {
    "mmin": lambda sources, at: sources.mmin(at / "in", sources.Made(per_speaker=1)),
    "arrays": lambda sources, at: _npz(at / "in"),
}


def _changed(content: Any, chance: random.Random, depth: int = 0) -> Any:
    """Replace, remove or rename something somewhere."""
    if not isinstance(content, dict | list | tuple) or not content or (depth and chance.random() < 0.25):
        return chance.choice(_ODD)
    pairs = list(content.items()) if isinstance(content, dict) else list(enumerate(content))
    at = chance.randrange(len(pairs))
    key, value = pairs[at]
    what = chance.random()
    if what < 0.1:
        del pairs[at]
    elif what < 0.2:
        pairs[at] = (chance.choice(_ODD[:13]), value)
    else:
        pairs[at] = (key, _changed(value, chance, depth + 1))
    return dict(pairs) if isinstance(content, dict) else type(content)(value for _, value in pairs)


@pytest.mark.parametrize("name", _PICKLES)
def test_anything_in_any_place_is_read_or_refused(tmp_path: Path, sources: SimpleNamespace, name: str) -> None:
    source = _PICKLES[name](sources, tmp_path)
    file = source if source.is_file() else next(source.glob("*.pkl"))
    whole = pickle.loads(file.read_bytes())
    refused = 0
    for seed in range(120):
        file.write_bytes(pickle.dumps(_changed(whole, random.Random(seed))))  # noqa: S311
        try:
            import_features(source, tmp_path / "out", format=name, overwrite=True)
        except InputError:
            refused += 1
        assert not list(tmp_path.glob("out.*"))
    assert refused > 60


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut, or write other bytes, most of them where headers are."""
    if chance.random() < 0.2:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        end = min(len(changed), 2000) if chance.random() < 0.6 else len(changed)
        changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("name", _ALL)
def test_damage_anywhere_is_read_over_or_refused(tmp_path: Path, sources: SimpleNamespace, name: str) -> None:
    source = _ALL[name](sources, tmp_path)
    files = sorted(file for file in [source, *source.rglob("*")] if file.is_file())
    refused = 0
    for seed in range(80):
        chance = random.Random(seed)  # noqa: S311
        file = chance.choice(files)
        whole = file.read_bytes()
        file.write_bytes(_damaged(whole, chance))
        try:
            import_features(source, tmp_path / "out", format=name, overwrite=True)
        except InputError:
            refused += 1
        assert not list(tmp_path.glob("out.*"))
        file.write_bytes(whole)
    assert refused > 40


@pytest.mark.parametrize("codes", [[0x110000], [0xD800], [0xFFFFFFFF]])
def test_numbers_that_are_no_characters_are_refused(tmp_path: Path, codes: list[int]) -> None:
    folder = _npz(tmp_path / "in")
    text = np.array(codes * 20, "<u4").view("<U1")
    np.savez(folder / "features.npz", audio=np.ones((20, 3)), utterance_id=np.arange(20).astype(str), label=text)
    with pytest.raises(InputError, match=r"features\.npz: array 'label'.*not Unicode"):
        import_features(folder, tmp_path / "out")


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="neither a folder nor an MMIN configuration"):
        import_features(tmp_path / "x.json", tmp_path / "out", format="mmin")


def test_few_references_to_much_are_counted_as_copies(tmp_path: Path, sources: SimpleNamespace) -> None:
    rows = 2000
    names = [f"d{i}" for i in range(100)]
    fields = ([f"u{i}" for i in range(rows)], ["F"] * rows, [0] * rows, *([[np.zeros(500, "f4")] * rows] * 3))
    content = (*({n: field for n in names} for field in (*fields, [""] * rows)), set(names[1:]), {names[0]})
    file = tmp_path / "in.pkl"
    file.write_bytes(pickle.dumps(content))
    assert file.stat().st_size < 60_000
    with pytest.raises(InputError, match=r"in\.pkl: what it refers to, each reference counted, claims 1\.2\d GB"):
        import_features(file, tmp_path / "out", format="conversation", max_bytes=10**9)


def test_nested_references_grow_by_their_product() -> None:
    content: Any = [1.0] * 10
    for _ in range(8):
        content = [content] * 10
    assert 32 * 10**9 < copied_size(content) < 48 * 10**9
    assert copied_size({"a": np.array([np.zeros(1000), "b"], object)}) > 8000
    content.append({"again": [content]})
    with pytest.raises(ValueError, match="holds itself"):
        copied_size(content)


def test_a_chunk_counts_whole_however_small_the_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("u", (2, 3), "f4", np.ones((2, 3), "f4"), maxshape=(None, None), chunks=(4000, 4000))
    with (
        HDF5Frames(tmp_path / "x.h5", SizeBudget(10**7)) as frames,
        pytest.raises(InputError, match=r"x\.h5, key 'u' claims 0\.064 GB, and 0\.01 GB are allowed"),
    ):
        frames.frames("u")
