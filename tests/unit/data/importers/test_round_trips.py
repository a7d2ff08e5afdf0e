"""What goes in comes out: random ragged corpora through every format, and again through the arrays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmarr_lightning.data.importers import import_features

_SETTINGS = settings(max_examples=8, deadline=None)


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.integers(1, 9), min_size=3, max_size=3))
    return {
        "per_speaker": draw(st.integers(1, 3)),
        "dims": dict(
            zip(("audio", "video", "text"), draw(st.lists(st.integers(1, 6), min_size=3, max_size=3)), strict=True)
        ),
        "dtype": draw(st.sampled_from(["f2", "f4", "f8"])),
        "frames": lambda modality, i: 1 + (i * lengths[("audio", "video", "text").index(modality)]) % 11,
    }


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def _check(store: Any, made: Any, ids: list[str], expected: dict[str, list[np.ndarray]]) -> None:
    rows = {name: row for row, name in enumerate(store.manifest["utterance_id"])}
    assert sorted(rows) == sorted(ids)
    store.verify()
    for modality, arrays in expected.items():
        kept = np.float16 if made.dtype == "f2" else np.float32
        assert store.values(modality).dtype == kept
        for name, array in zip(ids, arrays, strict=True):
            np.testing.assert_array_equal(store.get(rows[name], modality), np.atleast_2d(array).astype(kept))


@_SETTINGS
@given(corpora())
def test_mmin(sources: SimpleNamespace, drawn: dict[str, Any]) -> None:
    made = sources.Made(**drawn)
    with _folder() as folder:
        store = import_features(sources.mmin(folder / "in", made), folder / "out", classes=list("abcd")).store
        _check(store, made, made.ids, made.features)
        found = store.manifest.set_index("utterance_id").loc[made.ids, "label"].tolist()
        assert found == ["abcd"[label] for label in made.labels]


@_SETTINGS
@given(corpora())
def test_gcnet(sources: SimpleNamespace, drawn: dict[str, Any]) -> None:
    made = sources.Made(**drawn)
    with _folder() as folder:
        store = import_features(sources.gcnet(folder / "in", made), folder / "out").store
        _check(store, made, made.ids, made.features)


@_SETTINGS
@given(corpora(), st.booleans())
def test_conversation(sources: SimpleNamespace, drawn: dict[str, Any], swapped: bool) -> None:
    made = sources.Made(**drawn)
    with _folder() as folder:
        source = sources.conversation(folder / "x.pkl", made, swapped=swapped)
        store = import_features(source, folder / "out", format="conversation").store
        _check(store, made, made.ids, {m: [a[0] for a in arrays] for m, arrays in made.features.items()})


@_SETTINGS
@given(corpora())
def test_mmsa(sources: SimpleNamespace, drawn: dict[str, Any]) -> None:
    made = sources.Made(**(drawn | {"per_speaker": drawn["per_speaker"] + 1}))
    made.features["text"] = [array[:1] for array in made.features["text"]]
    with _folder() as folder:
        store = import_features(sources.mmsa(folder / "x.pkl", made), folder / "out", format="mmsa").store
        ids = [f"video{i // 3}$_${i}" for i in range(len(made.ids))]
        _check(store, made, ids, made.features)


@_SETTINGS
@given(corpora(), st.sampled_from(["\n", "\r\n"]))
def test_arrays(sources: SimpleNamespace, drawn: dict[str, Any], line_end: str) -> None:
    made = sources.Made(**drawn)
    with _folder() as folder:
        for modality, arrays in made.features.items():
            (folder / "in" / modality).mkdir(parents=True)
            for name, array in zip(made.ids, arrays, strict=True):
                np.save(folder / "in" / modality / f"{name}.npy", array)
        table = pd.DataFrame({"utterance_id": made.ids, "label": [str(label) for label in made.labels]})
        table.to_csv(folder / "in" / "metadata.csv", index=False, lineterminator=line_end)
        store = import_features(folder / "in", folder / "out").store
        _check(store, made, made.ids, made.features)
        assert store.manifest["label"].tolist() == [str(label) for label in made.labels]


@pytest.mark.parametrize("kind", ["mmin", "gcnet", "conversation", "mmsa"])
def test_every_format_is_recognised_and_not_imported_twice(
    tmp_path: Path, sources: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = sources.Made()
    source = getattr(sources, kind)(tmp_path / ("in" if kind in ("mmin", "gcnet") else "in.pkl"), made)
    done = import_features(source, tmp_path / "out")
    assert done.format == kind
    assert done.reason
    again = import_features(source, tmp_path / "out", format=kind, max_bytes=10**9)
    assert again.unchanged
    monkeypatch.chdir(tmp_path)
    assert import_features(source.name, "out").unchanged
    assert not import_features(source, tmp_path / "out", format=kind, modalities=["audio"], overwrite=True).unchanged
    assert not import_features(source, tmp_path / "out", format=kind, overwrite=True).unchanged
    shutil.copytree(tmp_path / "out", tmp_path / "moved")
    assert import_features(source, tmp_path / "moved").unchanged
