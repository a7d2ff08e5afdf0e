"""Data modules under a Trainer: epochs, prediction, two processes, command line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.corpora.iemocap import IEMOCAPDataModule
from cmarr_lightning.data.corpora.msp_improv import MSPImprovDataModule
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.store_writer import FeatureStoreWriter

CLASSES = ("angry", "happy", "neutral", "sad")


class Recorder(LightningModule):
    """Writes down what it is given; learns nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder = folder
        self.seen: dict[str, list[tuple[int, list[int], list[list[bool]], list[bool]]]] = {}

    def record(self, stage: str, batch: MultimodalBatch) -> torch.Tensor:
        entry = (self.current_epoch, batch.rows.tolist(), batch.drawn.tolist(), batch.repeated.tolist())
        self.seen.setdefault(stage, []).append(entry)
        if self.folder is not None:
            torch.save(self.seen, self.folder / f"{self.global_rank}.pt")
        return self.weight * batch.features["text"].sum()

    def training_step(self, batch: MultimodalBatch, index: int) -> torch.Tensor:
        return self.record("train", batch)

    def validation_step(self, batch: MultimodalBatch, index: int) -> None:
        self.record("val", batch)

    def test_step(self, batch: MultimodalBatch, index: int) -> None:
        self.record("test", batch)

    def predict_step(self, batch: MultimodalBatch, index: int) -> list[int]:
        self.record("predict", batch)
        return batch.rows.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """84 utterances of 6 speakers in 3 sessions, ragged audio, text vectors; the last three have no label."""
    random = np.random.default_rng(0)
    session = np.repeat(["Ses01", "Ses02", "Ses03"], 28)
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(84)],
            "session": session,
            "speaker": [f"{s}{'FM'[i % 2]}" for i, s in enumerate(session)],
            "label": [CLASSES[i // 2 % 4] if i < 81 else "" for i in range(84)],
        }
    )
    out = tmp_path_factory.mktemp("data") / "store"
    with FeatureStoreWriter(out, table, ("audio", "text"), name="made up", source="made up") as writer:
        for name in table["utterance_id"]:
            audio = random.random((int(random.integers(2, 40)), 3), dtype=np.float32)
            writer.add(name, {"audio": audio, "text": random.random(4, dtype=np.float32)})
    return str(out)


def trainer_of(folder: Path, **options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**quiet, **options})


def seen_in(model: Recorder, stage: str, epoch: int) -> tuple[list[list[int]], dict[int, list[bool]]]:
    """Get the rows of the batches of an epoch, and the condition drawn for each row."""
    entries = [entry for entry in model.seen[stage] if entry[0] == epoch]
    drawn = {row: flags for _, rows, flags_of, _ in entries for row, flags in zip(rows, flags_of, strict=True)}
    return [rows for _, rows, _, _ in entries], drawn


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_trainer_advances_order_and_conditions_with_the_epoch(store, tmp_path, num_workers):
    model, data = Recorder(), FeatureDataModule(store, batch_size=8, num_workers=num_workers)
    trainer_of(tmp_path, max_epochs=2).fit(model, datamodule=data)
    (first, drawn), (second, redrawn) = (seen_in(model, "train", epoch) for epoch in (0, 1))
    assert len(first) == len(second) == 3
    assert first != second
    both = drawn.keys() & redrawn.keys()
    assert {row: drawn[row] for row in both} != {row: redrawn[row] for row in both}
    again = Recorder()
    trainer_of(tmp_path, max_epochs=2).fit(again, datamodule=FeatureDataModule(store, batch_size=8))
    assert again.seen == model.seen


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_every_row_is_tested_and_predicted_once(store, tmp_path):
    model, data = Recorder(), FeatureDataModule(store, eval_batch_size=9)
    trainer = trainer_of(tmp_path)
    trainer.test(model, datamodule=data, verbose=False)
    tested = [row for rows in seen_in(model, "test", 0)[0] for row in rows]
    assert sorted(tested) == list(range(28))
    predicted = trainer.predict(model, datamodule=data)
    assert predicted is not None
    assert sorted(row for rows in predicted for row in rows) == list(range(84))


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_two_processes_together_equal_one(store, tmp_path):
    one = Recorder()
    data = FeatureDataModule(store, batch_size=16, eval_batch_size=10)
    trainer_of(tmp_path, max_epochs=2).fit(one, datamodule=data)
    # The default of the Trainer is to put samplers of its own in the place of those that are not distributed.
    two = trainer_of(tmp_path, max_epochs=2, devices=2, strategy="ddp_fork", use_distributed_sampler=True)
    two.fit(Recorder(tmp_path), datamodule=FeatureDataModule(store, batch_size=8, eval_batch_size=5))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for stage in ("train", "val"):
        assert len(one.seen[stage]) == len(ranks[0][stage]) == len(ranks[1][stage])
        for whole, *parts in zip(one.seen[stage], *(rank[stage] for rank in ranks), strict=True):
            expected = sorted(zip(whole[1], whole[2], strict=True))
            together = [
                (row, drawn)
                for _, rows, drawn_of, repeated_of in parts
                for row, drawn, repeated in zip(rows, drawn_of, repeated_of, strict=True)
                if not repeated
            ]
            assert sorted(together) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "options"),
    [
        (FeatureDataModule, {"where": {"session": ["Ses01", "Ses02"]}, "merge": {"sad": "low"}, "fold": 1}),
        (IEMOCAPDataModule, {"protocol": "speaker", "batch_size": 4, "modalities": ["text", "audio"]}),
        (MSPImprovDataModule, {"draw": "incomplete", "clip_quantile": 0.01}),
    ],
)
def test_configurations_build_the_modules_and_all_arguments_are_described(store, module, options):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "data")
    config = parser.parse_object({"data": {"store": store, **options}})
    data = parser.instantiate_classes(config).data
    assert isinstance(data, module)
    assert {name: getattr(data, name) for name in options if hasattr(data, name)} == {
        name: value for name, value in options.items() if hasattr(data, name)
    }
    help_text = " ".join(parser.format_help().split())
    assert "Utterances per batch and process in validation, test and prediction." in help_text
