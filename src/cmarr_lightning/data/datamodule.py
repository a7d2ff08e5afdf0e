"""Lightning data module for any feature store."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.arguments import check_arguments
from cmarr_lightning.data.columns import matching_rows, name_some
from cmarr_lightning.data.conditions import ConditionDraw, utterance_keys
from cmarr_lightning.data.dataset import UtteranceDataset, padding_costs
from cmarr_lightning.data.folds import Protocol, Split, audit_folds, choose_fold, make_folds, official_columns
from cmarr_lightning.data.labels import check_labels, read_labels
from cmarr_lightning.data.noise import Noise, NoiseSource, parse_noise, read_noise
from cmarr_lightning.data.official_folds import audit_official_folds
from cmarr_lightning.data.sampler import LengthBucketBatchSampler
from cmarr_lightning.data.scaling import FeatureStatistics, compute_statistics
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError

__all__ = ["FeatureDataModule"]


class FeatureDataModule(LightningDataModule):
    """Batches of a feature store: any modalities, any classes, any way to split.

    Opening is cheap and happens at once, so that `modalities`, `feature_dims`, `class_names`, `synthetic` and
    `data_checksum` can be handed to a model before `setup`. All else is computed when first asked for. Only
    labelled utterances are trained on and scored; prediction takes unlabelled ones too.

    Args:
        store: Folder of the feature store.
        modalities: The modalities to use in this order, at least two except for prediction; all of the store by
            default.
        classes: The classes in the order of their index; by default the labels found, sorted.
        label_column: Column of the manifest that holds the labels; an empty cell is outside the task.
        merge: Labels to rename, e.g. `{excited: happy}`, before they are looked up in `classes`.
        where: Column and value, or list of values, that an utterance must have to take part at all.
        protocol: How to split: leave one `session` or one `speaker` out, leave one value of a `column` out,
            `official` (columns that say train, val or test), or `stratified` folds where there are no
            speakers.
        fold: Number of the fold, from 0.
        fold_column: Column for the protocols `column` (default: fold) and `official` (default: split, or all of
            split_1, split_2, ... as the folds of a cross-validation).
        num_folds: Number of folds of the protocol `stratified`.
        batch_size: Training utterances per batch and process, at least 2.
        eval_batch_size: Utterances per batch and process in validation, test and prediction.
        draw: Conditions of training: `all` non-empty subsets of what an utterance has, or only `incomplete`
            ones.
        noise: Noise in training, drawn anew for every utterance and epoch.
        test_noise: Noises under which the test scores every condition once more: type and level from 0 to 1, e.g.
            `gaussian-0.3`, and modalities where not all are hit, `impulse-0.5-audio+text`.
        clip_quantile: Share of the training values clipped at either end of each column, 0 <= q < 0.5.
        seed: Seed of the order of training and of the conditions, >= 0. The folds do not depend on it.
        num_workers: Loader processes; reading takes so little time that 0 is right for most.
        verify_checksums: Compare every file with its recorded checksum before the first use.

    Raises:
        InputError: Something in the store or in the arguments cannot be used; the message says what and the
            remedy.
    """

    _other_labels: frozenset[str] | None = None  # labels outside the task; None: every label must be a class

    def __init__(
        self,
        store: str,
        modalities: list[str] | None = None,
        classes: list[str] | None = None,
        label_column: str = "label",
        merge: dict[str, str] | None = None,
        where: dict[str, str | list[str]] | None = None,
        protocol: Protocol = "session",
        fold: int = 0,
        fold_column: str | None = None,
        num_folds: int = 5,
        batch_size: int = 128,
        eval_batch_size: int = 128,
        draw: ConditionDraw = "all",
        noise: Noise | dict[str, Any] | None = None,
        test_noise: list[str] | None = None,
        clip_quantile: float = 0.005,
        seed: int = 0,
        num_workers: int = 0,
        verify_checksums: bool = True,
    ) -> None:
        super().__init__()
        self.store = FeatureStore.open(store)
        self.modalities = list(self.store.modalities if modalities is None else modalities)
        self.protocol = protocol
        self.fold = fold
        self.fold_column = fold_column
        self.num_folds = num_folds
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.draw: ConditionDraw = draw
        self.noise = read_noise(noise)
        self.test_noise = [parse_noise(name) for name in test_noise or ()]
        self.clip_quantile = clip_quantile
        self.seed = seed
        self.num_workers = num_workers
        self._to_verify = verify_checksums
        check_arguments(self)
        self.feature_dims = {m: self.store.dims[m] for m in self.modalities}
        self._selected = matching_rows(self.store.manifest, where or {})
        self._label_text = read_labels(self.store, label_column, merge or {})
        found = set(self._label_text[self._selected]) - {""}
        self.class_names = sorted(found) if classes is None else list(classes)
        if len(set(self.class_names)) < len(self.class_names):
            raise InputError(f"`classes` names a class twice: {self.class_names}", remedy="name each class once")

    @property
    def synthetic(self) -> bool:
        """Whether the data are made up; every table made from them has to say so."""
        return self.store.synthetic

    @property
    def data_checksum(self) -> str:
        """SHA-256 that identifies the data."""
        return self.store.checksum

    @property
    def feature_kinds(self) -> dict[str, str]:
        """Per modality `sequence`, or `vector` = one frame per utterance."""
        return {m: self.store.kinds[m] for m in self.modalities}

    @property
    def identity(self) -> dict[str, str | int | None]:
        """What tells the training rows from others: corpus and fold."""
        return {
            "data": self.store.name,
            "data_checksum": self.data_checksum,
            "protocol": self.protocol,
            "fold": self.fold,
        }

    def row_keys(self, rows: np.ndarray) -> np.ndarray:
        """Hash the names of rows of the store, sorted: (R,) int64; a checkpoint keeps those it was trained on."""
        return np.sort(utterance_keys(self.utterance_ids(rows)).view(np.int64))

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of every row of the store, (N,) int64, -1 = unlabelled or filtered out."""
        index = {name: i for i, name in enumerate(self.class_names)}
        labels = np.full(len(self.store), -1, dtype=np.int64)
        labels[self._selected] = [index.get(label, -1) for label in self._label_text[self._selected]]
        return labels

    @cached_property
    def split(self) -> Split:
        """The rows of the chosen fold, after the audit of all folds."""
        if len(self.modalities) < 2:
            raise InputError(
                f"modalities {self.modalities}: at least two are needed for training and scores",
                remedy=f"name two or more of {', '.join(self.store.modalities)}",
            )
        check_labels(self.store, self._label_text, self._selected, self.class_names, self._other_labels)
        rows = np.flatnonzero(self.labels >= 0)
        self._refuse_empty_utterances(rows)
        folds = make_folds(
            self.store.manifest,
            rows,
            self.labels,
            self.protocol,
            column=self.fold_column,
            num_folds=self.num_folds,
        )
        chosen = choose_fold(folds, self.fold)
        audit_folds(
            folds,
            self.store.manifest,
            rows,
            self.labels,
            self.class_names,
            cross_validation=len(folds) > 1,
        )
        one_of_many = self.protocol == "official" and self.fold_column in official_columns(self.store.manifest)
        if one_of_many and (faults := audit_official_folds(self.store.manifest)):
            rank_zero_warn(
                f"{self.store.path}: the official folds are no fair cross-validation: {'; '.join(faults)}. "
                "Remedy: rebuild them by `cmarr prepare --repair-folds`."
            )
        return chosen

    @cached_property
    def predict_rows(self) -> np.ndarray:
        """Rows that prediction goes through, (R,) int64: all that `where` lets pass, labelled or not."""
        self._refuse_empty_utterances(self._selected)
        return self._selected

    @cached_property
    def statistics(self) -> dict[str, FeatureStatistics]:
        """Per modality what scales it, from the training rows only."""
        return {
            m: compute_statistics(self.store, m, self.split.train, clip_quantile=self.clip_quantile)
            for m in self.modalities
        }

    @property
    def class_counts(self) -> np.ndarray:
        """Training utterances per class, (C,) int64."""
        return np.bincount(self.labels[self.split.train], minlength=len(self.class_names))

    def utterance_ids(self, rows: np.ndarray) -> list[str]:
        """Name rows of the store."""
        names: list[str] = self.store.manifest["utterance_id"].iloc[rows].tolist()
        return names

    def manifest_rows(self, rows: np.ndarray) -> pd.DataFrame:
        """Look up rows of the store's manifest, in this order."""
        return self.store.manifest.iloc[rows]

    def prepare_data(self) -> None:
        """Verify the checksums, once per node and run."""
        if self._to_verify:
            self.store.verify()
            self._to_verify = False

    def setup(self, stage: str) -> None:
        """Split, audit and, for fitting, compute the statistics: errors come before the first step."""
        if stage == "predict":
            _ = self.predict_rows
            return
        _ = self.split
        if stage == "fit" or (stage == "test" and self.test_noise):
            _ = self.statistics

    def train_dataloader(self) -> DataLoader[MultimodalBatch]:
        """Shuffled batches of the training rows, conditions drawn."""
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            raise InputError(
                "trainer.overfit_batches replaces the sampler that forms the batches",
                remedy="use trainer.limit_train_batches",
            )
        noise = None if self.noise is None else NoiseSource(self.noise, self.statistics, self.seed)
        return self._loader(self.split.train, training=True, noise=noise)

    def val_dataloader(self) -> DataLoader[MultimodalBatch]:
        """Batches of the validation rows."""
        return self._loader(self.split.val, training=False)

    def test_dataloader(self) -> DataLoader[MultimodalBatch] | list[DataLoader[MultimodalBatch]]:
        """Batches of the test rows; with `test_noise` all of `test_loaders`."""
        return self.test_loaders() if self.test_noise else self.test_loaders()[0]

    def test_loaders(self) -> list[DataLoader[MultimodalBatch]]:
        """Batches of the test rows as they are, then with each of `test_noise`, the same for every seed."""
        sources = [NoiseSource(noise, self.statistics) for noise in self.test_noise]
        return [self._loader(self.split.test, training=False, noise=noise) for noise in (None, *sources)]

    def predict_dataloader(self) -> DataLoader[MultimodalBatch]:
        """Batches of all rows that `where` lets pass."""
        return self._loader(self.predict_rows, training=False)

    def _loader(
        self, rows: np.ndarray, *, training: bool, noise: NoiseSource | None = None
    ) -> DataLoader[MultimodalBatch]:
        trainer = self.trainer
        sampler = LengthBucketBatchSampler(
            rows,
            padding_costs(self.store, self.modalities)[rows],
            self.batch_size if training else self.eval_batch_size,
            training=training,
            seed=self.seed,
            world_size=1 if trainer is None else trainer.world_size,
            rank=0 if trainer is None else trainer.global_rank,
        )
        dataset = UtteranceDataset(
            self.store,
            self.modalities,
            self.labels,
            draw=self.draw if training else None,
            seed=self.seed,
            noise=noise,
        )
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _refuse_empty_utterances(self, rows: np.ndarray) -> None:
        observed = np.any([self.store.lengths(m)[rows] > 0 for m in self.modalities], axis=0)
        if not observed.all():
            raise InputError(
                f"utterances without any of {', '.join(self.modalities)}: "
                f"{name_some(self.utterance_ids(rows[~observed]))}",
                remedy="name more `modalities` or filter the utterances out with `where`",
            )
