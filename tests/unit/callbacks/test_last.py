"""The checkpoint to go on from."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from cmarr_lightning.callbacks import LastCheckpoint


class Worsening(LightningModule):
    """Its score falls from epoch to epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("score", -float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_last_is_the_last_epoch_although_the_first_was_the_best(tmp_path):
    best = ModelCheckpoint(tmp_path / "checkpoints", "best", monitor="score", mode="max")
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best, LastCheckpoint()],
        default_root_dir=tmp_path,
    )
    trainer.fit(Worsening(), DataLoader(torch.zeros(1, 1)), DataLoader(torch.zeros(1, 1)))
    epochs = {
        path.stem: torch.load(path, weights_only=True)["epoch"] for path in (tmp_path / "checkpoints").glob("*.ckpt")
    }
    assert epochs == {"best": 0, "last": 2}
