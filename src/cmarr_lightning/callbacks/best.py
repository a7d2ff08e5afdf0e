"""The checkpoint that is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Keep the best epoch, also in a run whose folder was moved before it is gone on with.

    Lightning forgets the best score where the folder of the checkpoints is another than it was: the first epoch after
    that would count as the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score; the files are those of this folder."""
        if self.dirpath is not None:
            here = Path(self.dirpath)
            names = ("best_model_path", "kth_best_model_path", "last_model_path")
            moved = {name: str(here / Path(state_dict[name]).name) for name in names if state_dict[name]}
            best = {str(here / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)
