"""Every ablation trains, is scored, and differs from the whole method in the gradients that it is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch

from cmarr_lightning.crossval.variants import read_variants, variant_words
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.errors import InputError
from cmarr_lightning.tasks.cmarr import CMARRTask

Command = Callable[..., int]
WEIGHTS_ONLY = ("full", "no_alignment", "likelihood_only", "no_refinement")  # nothing new is computed
OTHERS = (
    *("point_alignment", "zeros_for_flow", "mean_for_flow", "regressor_for_flow"),
    *("staged", "precision_weights", "invert_then_mean"),
)


def test_all_ablations_are_tried(root: Path):
    assert set(read_variants(root / "experiments" / "configs" / "sweeps" / "ablations.yaml")) == {
        *WEIGHTS_ONLY,
        *OTHERS,
    }


@pytest.mark.parametrize("name", OTHERS)
def test_every_ablation_trains_and_is_scored(
    name: str, root: Path, cmarr: Command, config: Path, gappy_store: Path, tmp_path: Path
):
    override = read_variants(root / "experiments" / "configs" / "sweeps" / "ablations.yaml")[name]
    words = ("-c", config, *variant_words(override), "--data.store", gappy_store, "--run", "run")
    assert cmarr("fit", *words, "--trainer.max_epochs", 1) == 0
    assert cmarr("test", "--run", "run") == 0
    scores = pd.read_csv(tmp_path / "run" / "test" / "scores.csv")
    assert len(scores) == 9
    logged = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv")
    assert logged.filter(like="train/").dropna().map(pd.api.types.is_number).all(axis=None)
    assert ("train/flow_roundtrip_error" in logged) == ("for_flow" not in name)


def gradient(store: Path, part: str, **options: Any) -> float:
    """Get the size of the gradient of one training step in the parameters whose name contains `part`."""
    pl.seed_everything(0, verbose=False)
    data = FeatureDataModule(str(store), batch_size=40)
    data.trainer = None
    task = CMARRTask(data.modalities, data.feature_dims, data.class_names, embed_dim=16, num_heads=2, **options)
    task._trainer = SimpleNamespace(global_step=50, estimated_stepping_batches=100, world_size=1)
    with torch.no_grad():
        for parameter in task.network.flow.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    task.training_step(next(iter(data.train_dataloader())), 1).backward()
    chosen = [p.grad.norm() for name, p in task.named_parameters() if part in name and p.grad is not None]
    return float(torch.stack(chosen).norm())


def test_likelihood_only_takes_the_error_of_the_reconstructions_from_the_flows(tiny_store: Path):
    """With neither classifier nor refinement in the way: nothing but the two terms trains the flows."""
    full = gradient(tiny_store, "network.flow.", weight_refine=0, weight_recon=1e4)
    likelihood = gradient(tiny_store, "network.flow.", weight_refine=0, weight_recon=1e4, weight_mse=0)
    error = gradient(tiny_store, "network.flow.", weight_refine=0, weight_recon=1e4, weight_nll=0)
    neither = gradient(tiny_store, "network.flow.", weight_refine=0, weight_recon=1e4, weight_nll=0, weight_mse=0)
    assert min(full, likelihood, error) > 100 * neither > 0
    # The likelihood has no gradient into the encoders, the error has.
    for weights, reaches in (({"weight_mse": 0}, False), ({"weight_nll": 0}, True)):
        weighted = gradient(tiny_store, "network.encoder.", weight_refine=0, weight_recon=1e4, **weights)
        without = gradient(tiny_store, "network.encoder.", weight_refine=0, weight_recon=0)
        assert (weighted > 10 * without) == reaches


def test_without_alignment_the_temperature_has_no_gradient(tiny_store: Path):
    assert gradient(tiny_store, "log_temperature") > 0
    assert gradient(tiny_store, "log_temperature", weight_align=0) == 0


def test_without_refinement_its_head_has_no_gradient(tiny_store: Path):
    assert gradient(tiny_store, "network.projection.") > 0
    assert gradient(tiny_store, "network.projection.", weight_refine=0) == 0


def test_points_train_no_variances(tiny_store: Path):
    assert gradient(tiny_store, "mlp_log_std") > 0
    assert gradient(tiny_store, "mlp_log_std", alignment="points") == 0


def test_stages_need_flows():
    with pytest.raises(InputError, match="schedule=staged with reconstruction=mean: no flows"):
        CMARRTask(["a", "b"], {"a": 3, "b": 3}, ["x", "y"], schedule="staged", reconstruction="mean")


def test_excluding_options_are_an_error_of_the_configuration(
    cmarr: Command, config: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("--model.alignment", "points", "--model.aggregation", "precision")
    assert cmarr("fit", "-c", config, "--data.store", tiny_store, *words) == 2
    assert "aggregation=precision needs the variances" in capsys.readouterr().err
