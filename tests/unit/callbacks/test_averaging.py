"""Averaged weights."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from cmarr_lightning.callbacks import AveragedWeights
from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.scoring import ScoredModule


class Climber(LightningModule):
    """Its only weight is the number of steps taken."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("scale", torch.zeros(1))

    def setup(self, stage):
        self.scale.fill_(7.0)

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def _fit(folder, decay, model=None, epochs=1, resume=None):
    model = model or Climber()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[AveragedWeights(decay)],
        default_root_dir=folder,
    )
    trainer.fit(model, DataLoader(torch.zeros(4, 1)), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return model


def test_the_average_after_four_steps_is_the_one_computed_by_hand(tmp_path):
    model = _fit(tmp_path, 0.5)
    # the first step is copied: 1; then 1.5, 2.25, 3.125
    assert model.weight.item() == pytest.approx(3.125)


def test_without_decay_nothing_is_averaged(tmp_path):
    assert _fit(tmp_path, 0.0).weight.item() == 4.0


def test_what_is_not_averaged_is_kept_once_and_resumed(tmp_path):
    _fit(tmp_path, 0.0)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].item() == 4.0
    assert not {"current_model_state", "averaging_state"} & checkpoint.keys()
    assert _fit(tmp_path, 0.0, epochs=2, resume=tmp_path / "last.ckpt").weight.item() == 8.0


def test_buffers_are_copied_not_averaged(tmp_path):
    assert _fit(tmp_path, 0.9).scale.item() == 7.0


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="not in"):
        AveragedWeights(decay)


class Restarting(Climber, EmotionTask):
    """A method of two stages: its weight starts from 100 at the second epoch."""

    average_decay = 0.5

    def __init__(self):
        super(ScoredModule, self).__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("scale", torch.zeros(1))

    def begins_anew(self, epoch):
        return epoch == 1

    def on_train_epoch_start(self):
        if self.begins_anew(self.current_epoch):
            self.weight.data.fill_(100.0)

    def on_train_batch_start(self, batch, batch_idx):
        pass


def test_no_average_goes_across_a_new_start(tmp_path):
    # 101 is copied; then 101.5, 102.25, 103.125
    assert _fit(tmp_path, 0.5, Restarting(), epochs=2).weight.item() == pytest.approx(103.125)


def test_the_method_says_how_much_is_averaged_unless_it_is_given(tmp_path):
    assert _fit(tmp_path, None, Restarting()).weight.item() == pytest.approx(3.125)
    assert _fit(tmp_path, 0.0, Restarting()).weight.item() == 4.0
