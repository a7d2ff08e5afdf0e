"""Made-up results of a protocol, written like real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from cmarr_lightning.analysis.evaluation import prediction_table, write_evaluation
from cmarr_lightning.analysis.protocol import ProtocolResults, load_results
from cmarr_lightning.analysis.runs import run_name
from cmarr_lightning.modalities import all_conditions, condition_name

ProtocolMaker: TypeAlias = Callable[..., ProtocolResults]
CLASSES = ["calm", "glad", "hurt"]
CONDITIONS = [condition_name(c) for c in all_conditions(["audio", "text"])]


@pytest.fixture
def make_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProtocolMaker:
    """Get the function that writes made-up results, see `_maker`."""
    return _maker(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def make_shared_protocol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProtocolMaker]:
    """Get the same for results that the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        yield _maker(tmp_path_factory.mktemp("protocols"), patch)


def _maker(folder: Path, patch: pytest.MonkeyPatch) -> ProtocolMaker:
    """Write runs of 2 folds: 30 utterances of 3 speakers in a session each, all classes for every speaker.

    `skill` is the chance to be right; `random` decides who is; `gaps` lack text on disk; `confidence` is the
    probability of the predicted class (by default the method has no probabilities).
    """
    patch.setattr("cmarr_lightning.analysis.evaluation.plot_confusions", lambda *_: Figure())  # slow

    def make(
        name: str = "mine",
        *,
        skill: float = 0.6,
        random: int = 0,
        seeds: Sequence[int] = (0, 1),
        folds: Sequence[int] = (0, 1),
        gaps: Sequence[str] = (),
        keep_predictions: bool = True,
        confidence: float | None = None,
        **about: object,
    ) -> ProtocolResults:
        for seed in seeds:
            for fold in folds:
                run = folder / name / run_name(fold, seed)
                facts = {
                    "run": run.name,
                    "method": name,
                    "data": "made up",
                    "data_checksum": "abc",
                    "synthetic": True,
                    "protocol": "session",
                    "modalities": ["audio", "text"],
                    "class_names": CLASSES,
                    "fold": fold,
                    "seed": seed,
                    "commit": None,
                    "packages": {"python": "3"},
                    **about,
                }
                generator = np.random.default_rng((random, seed, fold))
                _write(run, facts, skill, generator, set(gaps), keep_predictions, confidence)
        return load_results(folder / name)

    return make


def _write(
    run: Path,
    about: dict,
    skill: float,
    random: np.random.Generator,
    gaps: set[str],
    keep: bool,
    confidence: float | None,
) -> None:
    number, fold = np.arange(30), about["fold"]
    utterances = pd.DataFrame(
        {
            "utterance_id": [f"{fold}-{i:02}" for i in number],
            "session": f"S{fold}",
            "speaker": [f"S{fold}{'ABC'[i // 10]}" for i in number],
        }
    )
    true = number % 3
    complete = ~utterances["utterance_id"].isin(gaps).to_numpy()
    tables, counts, names = [], [], list(CONDITIONS)
    if not complete.all():
        names.append("available")
    for condition in names:
        rows = number if condition == "available" else number[complete]
        predicted = np.where(random.random(30) < skill, true, random.integers(3, size=30))
        confusion = np.zeros((3, 3), dtype=np.int64)
        np.add.at(confusion, (true[rows], predicted[rows]), 1)
        counts.append(confusion)
        table = (utterances.iloc[rows], [condition] * len(rows), CLASSES, true[rows], predicted[rows])
        probabilities = None
        if confidence is not None:
            probabilities = torch.full((len(rows), 3), (1 - confidence) / 2)
            probabilities[torch.arange(len(rows)), torch.from_numpy(predicted[rows])] = confidence
        tables.append(prediction_table(*table, probabilities))
    write_evaluation(
        run / "test",
        torch.from_numpy(np.stack(counts)),
        names,
        CLASSES,
        num_incomplete=2,
        about={"stage": "test", **about},
        predictions=pd.concat(tables) if keep else None,
    )
    (run / "about.json").write_text(json.dumps({**about, "finished": ["fit", "validate", "test"]}))
