"""Averaged weights."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
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


def test_after_training_a_checkpoint_is_tested_with_its_averaged_weights(tmp_path):
    """Lightning offers the checkpoint to the callback again, which must not put back the weights of the last step."""
    model = Climber()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[AveragedWeights(0.5)],
    )
    trainer.fit(model, DataLoader(torch.zeros(4, 1)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    seen = []
    model.test_step = lambda batch, batch_idx: seen.append(model.weight.item())
    trainer.test(model, DataLoader(torch.zeros(1, 1)), tmp_path / "last.ckpt", weights_only=True, verbose=False)
    assert seen == [pytest.approx(3.125)]


class Normalising(Restarting):
    """Normalises its weight times the batch."""

    average_decay = 0.5

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1, momentum=0.1)
        self.scored = []

    def begins_anew(self, epoch):
        return False

    def training_conditions(self, batch):
        return batch

    def network_logits(self, batch, present):
        return self.norm(self.weight * batch)

    def training_step(self, batch, batch_idx):
        return -self.weight.sum() + 0 * self.network_logits(batch, batch).sum()

    def on_validation_epoch_start(self):
        pass

    def validation_step(self, batch, batch_idx):
        self.scored.append((self.weight.item(), self.norm.running_mean.item(), self.norm.running_var.item()))

    def on_validation_epoch_end(self):
        pass


def test_batch_normalisation_gets_the_statistics_of_the_averaged_weights(tmp_path):
    """Two batches, {0, 2} and {4, 10}: means 1 and 7, variances 2 and 18, scaled by the averaged weight."""
    model, rows = Normalising(), torch.tensor([[0.0], [2.0], [4.0], [10.0]])
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[AveragedWeights()],
        num_sanity_val_steps=1,
    )
    trainer.fit(model, DataLoader(rows, batch_size=2), DataLoader(rows, batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert model.scored[0] == (0.0, 0.0, 1.0)  # the sanity check: nothing is known yet
    for (weight, mean, variance), expected in zip(model.scored[1:], (1.5, 3.125), strict=True):
        assert weight == pytest.approx(expected)
        assert mean == pytest.approx(4 * expected)
        assert variance == pytest.approx(10 * expected**2)
    assert model.norm.running_mean.item() == pytest.approx(4 * 3.125)
    assert model.norm.momentum == 0.1
    assert model.training


def test_the_checkpoint_holds_the_statistics_of_the_averaged_weights(tmp_path):
    model, rows = Normalising(), torch.tensor([[0.0], [2.0], [4.0], [10.0]])
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[AveragedWeights(), ModelCheckpoint(tmp_path, filename="best", save_on_train_epoch_end=False)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(rows, batch_size=2), DataLoader(rows, batch_size=4))
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert kept["state_dict"]["norm.running_mean"].item() == pytest.approx(4 * 1.5)
    assert kept["current_model_state"]["norm.running_mean"].item() == pytest.approx(0.1 * 7)  # steps with weights 0, 1
