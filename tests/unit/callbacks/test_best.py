"""The best checkpoint of a run that was moved."""

from __future__ import annotations

from pathlib import Path

import torch

from cmarr_lightning.callbacks import BestCheckpoint


def test_the_best_score_goes_along_with_the_folder(tmp_path: Path):
    old, new = BestCheckpoint(tmp_path / "old", monitor="x"), BestCheckpoint(tmp_path / "new", monitor="x")
    path = str(tmp_path / "old" / "best.ckpt")
    old.best_model_path = old.kth_best_model_path = path
    old.best_k_models = {path: torch.tensor(0.6)}
    old.best_model_score = old.kth_value = torch.tensor(0.6)
    new.load_state_dict(old.state_dict())
    moved = str(tmp_path / "new" / "best.ckpt")
    assert new.best_model_path == new.kth_best_model_path == moved
    assert new.best_k_models == {moved: torch.tensor(0.6)}
    assert new.best_model_score == 0.6 == new.kth_value
