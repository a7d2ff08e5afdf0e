"""Stages, recipes and losses of the peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.errors import InputError
from cmarr_lightning.losses.moment_discrepancy import pairwise_discrepancy
from cmarr_lightning.nn.utterance_encoders import MLPEncoder
from cmarr_lightning.tasks import IFMMINTask, MMINTask, NMERTask
from cmarr_lightning.tasks.two_stage import TwoStageTask

PEERS = [MMINTask, IFMMINTask, NMERTask]


def task_for(cls: type[TwoStageTask], data: FeatureDataModule, **options: Any) -> TwoStageTask:
    names = ("modalities", "feature_dims", "class_names", "feature_kinds")
    torch.manual_seed(0)
    return cls(**{name: getattr(data, name) for name in names}, embed_dim=16, stage1_epochs=2, **options)


@pytest.fixture(scope="module")
def gappy(gappy_store: Path) -> FeatureDataModule:
    return FeatureDataModule(str(gappy_store), batch_size=40, draw="incomplete")


@pytest.fixture(scope="module")
def batch(gappy: FeatureDataModule) -> MultimodalBatch:
    """40 training rows that have and lack all sorts of modalities, with drawn conditions."""
    gappy.trainer = None
    found: MultimodalBatch = next(iter(gappy.train_dataloader()))
    assert not found.observed.all()
    return found


def terms_of(task: TwoStageTask, batch: MultimodalBatch, present: Tensor) -> dict[str, float]:
    """Compute the losses of stage 2 of a network without dropout."""
    task.network.begin_student()
    task.eval()
    features = task.network.scale(batch.features, batch.padding_mask)
    return {name: value.item() for name, (_, value) in task.student_terms(features, features, batch, present).items()}


def encode(encoders: Any, batch: MultimodalBatch, b: int, i: int, *, silent: bool) -> Tensor:
    """Embed one modality of one utterance, or silence."""
    m = encoders.modalities[i]
    frames = batch.features[m][b : b + 1][:, ~batch.padding_mask[m][b]]
    frames = torch.zeros_like(frames[:, :1]) if silent else frames
    return encoders.encoder[m](frames, torch.zeros(frames.shape[:2], dtype=torch.bool))[0]


def test_mmin_imagines_what_the_teacher_makes_of_the_complement(gappy: FeatureDataModule, batch: MultimodalBatch):
    task, errors, cycles, drawn = task_for(MMINTask, gappy), [], [], batch.drawn.unsqueeze(1)
    got = terms_of(task, batch, drawn)
    output = task.network.student(batch.features, batch.padding_mask, drawn)
    for b in range(40):
        for i in range(3):
            cycles.append((output.cycled[b, 0, i] - output.embeddings[b, 0, i]).square().mean())
            if batch.observed[b, i]:
                silent = bool(batch.drawn[b, i])
                target = encode(task.network.teacher.encoders, batch, b, i, silent=silent)
                errors.append((output.imagined[b, 0, i] - target).square().mean())
    assert got["imagine"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    assert got["cycle"] == pytest.approx(torch.stack(cycles).mean().item(), rel=1e-4)
    assert got["cls"] == pytest.approx(cross_entropy(output.logits[:, 0], batch.labels).item(), rel=1e-4)


@pytest.mark.parametrize(("cls", "encoders"), [(IFMMINTask, "encoders"), (NMERTask, "common")])
def test_the_invariant_features_are_those_of_the_complete_utterance(
    gappy: FeatureDataModule, batch: MultimodalBatch, cls: type[TwoStageTask], encoders: str
):
    task, errors, drawn = task_for(cls, gappy), [], batch.drawn.unsqueeze(1)
    got = terms_of(task, batch, drawn)
    output, teacher = task.network.student(batch.features, batch.padding_mask, drawn), task.network.teacher
    for b, i in batch.observed.nonzero().tolist():
        target = teacher.invariant(encode(getattr(teacher, encoders), batch, b, i, silent=False))
        errors.append((output.invariant[b, 0, i] - target).square().mean())
    assert got["invariant"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


def test_nmer_recovers_the_complete_utterance(gappy: FeatureDataModule, batch: MultimodalBatch):
    task, errors, drawn = task_for(NMERTask, gappy), [], batch.drawn.unsqueeze(1)
    got = terms_of(task, batch, drawn)
    output = task.network.student(batch.features, batch.padding_mask, drawn)
    for b, i in batch.observed.nonzero().tolist():
        target = encode(task.network.teacher.specific, batch, b, i, silent=False)
        errors.append((output.imagined[b, 0, i] - target).square().mean())
    assert got["imagine"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    released = terms_of(task_for(NMERTask, gappy, kl="released"), batch, drawn)
    assert released["kl"] == pytest.approx(got["kl"] * 40 * 64, rel=1e-3)


@pytest.mark.parametrize("cls", PEERS)
def test_noise_reaches_the_student_but_not_the_teacher(
    gappy: FeatureDataModule, batch: MultimodalBatch, cls: type[TwoStageTask]
):
    task = task_for(cls, gappy).eval()
    noisy = {m: torch.randn_like(x) for m, x in batch.features.items()}
    hit = replace(batch, features=noisy, clean=batch.features)
    torch.testing.assert_close(task.training_step(hit, 0), task.training_step(batch, 0))
    task.stage = 2
    task.network.begin_student()
    task.eval()
    features, clean = (task.network.scale(x, batch.padding_mask) for x in (noisy, batch.features))
    terms = task.student_terms(features, clean, batch, batch.drawn.unsqueeze(1))
    expected = sum(weight * value for weight, value in terms.values())
    torch.testing.assert_close(task.training_step(hit, 0), expected)
    assert task.training_step(hit, 0) != task.training_step(batch, 0)


@pytest.mark.parametrize("cls", PEERS)
def test_the_loss_of_stage_1(gappy: FeatureDataModule, batch: MultimodalBatch, cls: type[TwoStageTask]):
    task = task_for(cls, gappy).eval()
    features = task.network.scale(batch.features, batch.padding_mask)
    output = task.network.teacher(features, batch.padding_mask, batch.observed)
    loss = cross_entropy(output.logits, batch.labels)
    if cls is not MMINTask:
        loss = loss + pairwise_discrepancy(output.invariant, batch.observed)
    torch.testing.assert_close(task.training_step(batch, 0), loss)


@pytest.mark.parametrize("cls", PEERS)
def test_all_conditions_of_the_shared_recipe_train(
    gappy: FeatureDataModule, batch: MultimodalBatch, cls: type[TwoStageTask]
):
    task = task_for(cls, gappy, recipe="shared")
    present = task.training_conditions(batch)
    assert torch.equal(present, task.present(batch))
    assert all(torch.tensor(value).isfinite() for value in terms_of(task, batch, present).values())
    task.stage = 2
    task.train()
    task.training_step(batch, 0).backward()
    without = {name for name, p in task.network.student.named_parameters() if p.grad is None}
    unused = {
        IFMMINTask: [f"cascade.decoders.{k}." for k in range(4)],
        NMERTask: ["vae.released_output."],
        MMINTask: [],
    }
    assert {name for name in without if not name.startswith(tuple(unused[cls]))} == set()
    assert bool(without) == bool(unused[cls])
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_the_conditions_of_the_recipes(gappy: FeatureDataModule, batch: MultimodalBatch):
    assert torch.equal(task_for(MMINTask, gappy).training_conditions(batch), batch.drawn.unsqueeze(1))
    drawn = task_for(MMINTask, gappy, recipe="shared", train_conditions="drawn").training_conditions(batch)
    assert torch.equal(drawn, torch.stack([batch.observed, batch.drawn], dim=1))


def test_the_recipes_give_what_is_not_given(gappy: FeatureDataModule):
    published, shared = task_for(MMINTask, gappy), task_for(MMINTask, gappy, recipe="shared", learning_rate=5e-4)
    assert (published.learning_rate, published.balance_classes, published.label_smoothing) == (2e-4, 0.0, 0.0)
    assert (shared.learning_rate, shared.balance_classes, shared.label_smoothing) == (5e-4, 0.75, 0.1)
    assert (published.average_decay, shared.average_decay) == (0.0, 0.99)


class Watch(pl.Callback):
    """Keeps what a training does, epoch by epoch."""

    def __init__(self) -> None:
        self.stages: list[int] = []
        self.rates: list[list[float]] = []
        self.norms: list[float] = []
        self.changed: list[set[str]] = []
        self.scores: list[float] = []
        self.teachers: list[dict[str, Tensor]] = []
        self.first_of_stage_2: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        if task.stage == 2 and not self.first_of_stage_2:
            self.first_of_stage_2 = {n: v.clone() for n, v in task.network.teacher.state_dict().items()}
        if batch_idx == 0:
            self.stages.append(task.stage)
            self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
            self.before = {name: p.detach().clone() for name, p in task.network.named_parameters()}

    def on_before_zero_grad(self, trainer: pl.Trainer, task: Any, optimizer: Any) -> None:
        for part in task.network.subnetworks():
            norms = [p.grad.norm() for p in part.parameters() if p.grad is not None]
            self.norms += [torch.stack(norms).norm().item()] if norms else []

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        now = dict(task.network.named_parameters())
        moved = {name.split(".")[0] for name, p in self.before.items() if not torch.equal(p, now[name])}
        self.changed.append(moved)

    def on_validation_end(self, trainer: pl.Trainer, task: Any) -> None:
        if not trainer.sanity_checking and task.stage == 1:
            self.scores.append(trainer.callback_metrics["val/stage1_uar"].item())
            self.teachers.append({n: v.clone() for n, v in task.network.teacher.state_dict().items()})


def fit(task: TwoStageTask, data: FeatureDataModule, epochs: int, **options: Any) -> Watch:
    pl.seed_everything(0)
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(task, datamodule=data)
    return watch


def data_of(store: Path) -> FeatureDataModule:
    return FeatureDataModule(str(store), batch_size=30, draw="incomplete")


def test_the_published_recipe_trains_one_network_after_the_other(tiny_store: Path):
    data = data_of(tiny_store)
    task = task_for(IFMMINTask, data, learning_rate=1e-3)
    watch = fit(task, data, 6)
    assert watch.stages == [1, 1, 2, 2, 2, 2]
    assert watch.changed == [{"teacher"}] * 2 + [{"student"}] * 4
    # stage 1: N = D = 1; stage 2: N = D = 2
    teacher, student = zip(*watch.rates, strict=True)
    assert [rate / 1e-3 for rate in teacher[:2]] == pytest.approx([1, 1 / 2])
    assert [rate / 1e-3 for rate in student[2:]] == pytest.approx([1, 1, 2 / 3, 1 / 3])
    optimizer = task.trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.Adam)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.999), (0.5, 0.999)]
    assert max(watch.norms) <= 1.0 + 1e-4
    assert max(watch.norms) > 0.5  # nothing is clipped as a whole


def test_the_shared_recipe_has_a_half_cosine_per_stage(tiny_store: Path):
    data = data_of(tiny_store)
    watch = fit(task_for(MMINTask, data, recipe="shared", warmup_fraction=0.0), data, 6)
    rates = torch.tensor(watch.rates) / 2e-3
    torch.testing.assert_close(rates[:2, 0], torch.tensor([1.0, 0.5]))
    expected = [0.5 * (1 + torch.cos(torch.tensor(k * torch.pi / 4)).item()) for k in range(4)]
    torch.testing.assert_close(rates[2:, 2], torch.tensor(expected))


def test_the_best_epoch_of_stage_1_teaches(tiny_store: Path, monkeypatch: pytest.MonkeyPatch):
    data = data_of(tiny_store)
    task = task_for(MMINTask, data, learning_rate=1e-3)
    task.stage1_epochs = 4
    scores = iter([0.3, 0.6, 0.6, 0.2])  # the earlier of two equal ones

    def compute() -> dict[str, Tensor]:
        score = torch.tensor(0.5 if task.trainer.sanity_checking else next(scores))
        return {"war/available": score, "uar/available": score}

    monkeypatch.setattr(task.scored_available, "compute", compute)
    watch = fit(task, data, 5, limit_val_batches=1, num_sanity_val_steps=1, check_val_every_n_epoch=1)
    assert watch.scores == pytest.approx([0.3, 0.6, 0.6, 0.2])
    for name, value in watch.teachers[1].items():
        assert torch.equal(watch.first_of_stage_2[name], value)
    assert any(not torch.equal(watch.teachers[2][n], v) for n, v in watch.teachers[1].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": {"smell": "mlp"}}, "'smell', which is no modality"),
        ({"weight_decay": 1e-4}, "decays no weights"),
    ],
)
def test_settings_that_cannot_be(gappy: FeatureDataModule, options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        task_for(MMINTask, gappy, **options)


def test_a_training_without_a_second_stage_is_refused(tiny_store: Path):
    data = data_of(tiny_store)
    with pytest.raises(InputError, match="leaves nothing of the training to stage 2"):
        fit(task_for(MMINTask, data), data, 2)


def test_the_published_recipe_asks_for_incomplete_conditions(tiny_store: Path):
    data = FeatureDataModule(str(tiny_store), batch_size=30)
    with pytest.raises(InputError, match=r"data\.draw is all"):
        fit(task_for(MMINTask, data), data, 3)


@pytest.mark.parametrize("recipe", ["published", "shared"])
@pytest.mark.parametrize(("cls", "bounded"), [(MMINTask, True), (IFMMINTask, True), (NMERTask, False)])
def test_how_vectors_are_read(gappy: FeatureDataModule, cls: type[TwoStageTask], bounded: bool, recipe: str):
    """The shared recipe reads them with the layers of CM-ARR; who bounds the embeddings does so in both."""
    task = task_for(cls, gappy, recipe=recipe)
    encoders = [module for module in task.network.modules() if isinstance(module, MLPEncoder)]
    assert encoders  # m1 is a vector
    for encoder in encoders:
        kinds = {type(layer) for layer in encoder.head}
        assert (nn.Tanh in kinds) == bounded
        assert {nn.LayerNorm, nn.GELU} <= kinds if recipe == "shared" else nn.ReLU in kinds


def test_a_strategy_that_waits_for_all_gradients_is_refused(gappy: FeatureDataModule):
    task = task_for(MMINTask, gappy)
    task.trainer = SimpleNamespace(strategy=DDPStrategy())
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        task.setup("fit")
