"""A trained run made again from its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.analysis.restore import restore_run
from cmarr_lightning.analysis.runs import Run
from cmarr_lightning.errors import InputError


@pytest.fixture
def run(tiny_protocol: Path, tmp_path: Path) -> Run:
    """A copy of the first run."""
    return load_results(shutil.copytree(tiny_protocol, tmp_path / "cv")).runs[0]


def test_it_predicts_what_the_run_has_predicted(run: Run):
    task, data = restore_run(run)
    assert not task.training
    probabilities = {}
    with torch.inference_mode():
        for batch in data.test_dataloader():
            output = task.predict_step(batch, 0)
            names = data.utterance_ids(batch.rows.numpy())
            probabilities |= dict(zip(names, output["probabilities"].numpy(), strict=True))
    kept = load_results(run.path.parent).predictions
    kept = kept[(kept["fold"] == run.fold) & (kept["condition"] == task.condition_names[0])]
    columns = [f"p_{name}" for name in task.class_names]
    found = np.stack([probabilities[name][0] for name in kept["utterance_id"]])
    np.testing.assert_allclose(found, kept[columns], atol=1e-5)


def test_the_store_may_have_moved(run: Run, tiny_store: Path, tmp_path: Path):
    run.about["config"]["data"]["init_args"]["store"] = "gone"
    with pytest.raises(InputError, match=r"gone.*looked up from the working folder"):
        restore_run(run)
    _, data = restore_run(run, str(tiny_store))
    assert data.fold == run.fold


def test_another_store_is_refused(run: Run, write_store: Callable, tmp_path: Path):
    other = write_store(tmp_path / "other", np.ones((120, 3), dtype=bool))
    run.about["config"]["data"]["init_args"]["modalities"] = None
    with pytest.raises(InputError, match="not the data of"):
        restore_run(run, str(other.path))


def test_missing_and_damaged_checkpoints_are_named(run: Run):
    (checkpoint,) = (run.path / "checkpoints").glob("best-*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"best-.*cannot be loaded"):
        restore_run(run)
    checkpoint.unlink()
    with pytest.raises(InputError, match="no best checkpoint"):
        restore_run(run)


def test_a_method_without_network_is_named(run: Run):
    del run.about["config"]["model"]
    with pytest.raises(InputError, match="CM-ARR has no network"):
        restore_run(run)


@pytest.mark.parametrize("name", ["subprocess.run", "no_such_module.Task", "CMARRTask", "json.JSONEncoder"])
def test_what_is_none_of_our_classes_is_not_called(run: Run, name: str):
    about = json.loads(json.dumps(run.about))
    about["config"]["model"]["class_path"] = name
    with pytest.raises(InputError, match=f"{name}: (not a EmotionTask|no such class)"):
        restore_run(Run(run.path, about))
