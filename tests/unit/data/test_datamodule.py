from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.noise import Noise
from cmarr_lightning.data.scaling import compute_statistics
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError


def module_of(store: FeatureStore, **options) -> FeatureDataModule:
    return FeatureDataModule(str(store.path), **{"batch_size": 8, **options})


def test_what_a_model_needs_is_known_before_setup(corpus):
    data = module_of(corpus)
    assert data.modalities == ["audio", "video", "text"]
    assert data.feature_dims == {"audio": 3, "video": 2, "text": 5}
    assert data.class_names == ["angry", "happy", "neutral", "sad"]
    assert data.synthetic is False
    assert data.data_checksum == corpus.checksum


def test_modalities_come_in_the_order_given(corpus):
    data = module_of(corpus, modalities=["text", "audio"])
    batch = next(iter(data.val_dataloader()))
    assert data.feature_dims == {"text": 5, "audio": 3}
    assert list(batch.features) == ["text", "audio"]
    assert batch.observed.shape[1] == 2
    assert batch.observed[:, 0].all()
    assert not batch.observed[:, 1].all()


def test_classes_come_in_the_order_given(corpus):
    classes = ["sad", "happy", "angry", "neutral"]
    data = module_of(corpus, classes=classes)
    batch = next(iter(data.test_dataloader()))
    labels = corpus.manifest["label"].iloc[batch.rows.numpy()]
    assert batch.labels.tolist() == [classes.index(label) for label in labels]


def test_merged_labels_are_one_class(corpus):
    data = module_of(corpus, label_column="emotion", merge={"excited": "joy", "neutral": "joy"})
    assert data.class_names == ["anger", "joy", "sadness"]
    assert data.class_counts.tolist() == [12, 24, 12]


def test_loaders_give_the_rows_of_the_fold(corpus):
    data = module_of(corpus, fold=3, batch_size=5)
    train, val, test = (
        np.concatenate([batch.rows.numpy() for batch in loader])
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    )
    assert sorted(test) == list(range(72, 96))
    assert sorted(val) == list(range(24))
    assert len(set(train)) == 45
    assert set(train) <= set(range(24, 72))
    assert data.split.train.tolist() == list(range(24, 72))


def test_only_training_draws_conditions(corpus):
    data = module_of(corpus)
    for loader, same in ((data.train_dataloader(), False), (data.val_dataloader(), True)):
        assert all(bool((batch.drawn == batch.observed).all()) is same for batch in loader)
    for batch in module_of(corpus, draw="incomplete").train_dataloader():
        has = batch.observed.sum(1)
        assert ((batch.drawn.sum(1) < has) | (has == 1)).all()


def test_statistics_come_from_the_training_rows(corpus):
    data = module_of(corpus, fold=1, clip_quantile=0.1)
    expected = compute_statistics(corpus, "audio", np.r_[0:24, 72:96], clip_quantile=0.1)
    np.testing.assert_array_equal(data.statistics["audio"].mean, expected.mean)
    assert list(data.statistics) == data.modalities


def test_filters_keep_matching_utterances_only(corpus):
    data = module_of(corpus, where={"recording": ["S", "T"], "gender": "F"}, batch_size=4)
    used = corpus.manifest.iloc[np.concatenate([data.split.train, data.split.val, data.split.test])]
    assert set(used["recording"]) == {"S", "T"}
    assert set(used["gender"]) == {"F"}
    assert len(used) == 32


def test_prediction_takes_unlabelled_utterances_and_no_others_do(make_store):
    labels = ["happy", "sad", ""] * 12
    features = {m: [np.full(2, i + 1, dtype=np.float32) for i in range(36)] for m in ("x", "y")}
    store = make_store(features, {"label": labels, "session": np.repeat(["1", "2", "3"], 12)})
    data = module_of(store, batch_size=4)
    data.setup("predict")
    predicted = [batch for batch in data.predict_dataloader()]
    assert sum(len(batch) for batch in predicted) == 36
    assert sorted(set(predicted[0].labels.tolist())) == [-1, 0, 1]
    data.setup("fit")
    assert len(data.split.test) == 8


def test_prediction_needs_no_labels_at_all(make_store):
    features = {m: [np.ones(2, dtype=np.float32)] * 3 for m in ("x", "y")}
    data = module_of(make_store(features), classes=["happy", "sad"])
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch.labels.tolist() == [-1, -1, -1]
    with pytest.raises(InputError, match="0 labelled utterances"):
        data.setup("fit")


def test_rows_are_named(corpus):
    data = module_of(corpus)
    assert data.utterance_ids(np.array([4, 2])) == ["u0004", "u0002"]
    assert data.manifest_rows(np.array([4, 2]))["label"].tolist() == ["angry", "neutral"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["audio", "touch"]}, r"no modality 'touch'.*audio, video, text"),
        ({"modalities": []}, r"none, or one twice"),
        ({"modalities": ["audio", "audio"]}, r"none, or one twice"),
        ({"classes": ["sad", "sad"]}, r"names a class twice"),
        ({"label_column": "mood"}, r"`label_column`: the manifest has no column 'mood'"),
        ({"where": {"scene": "1"}}, r"`where`: the manifest has no column 'scene'"),
        ({"where": {"gender": "X"}}, r"no utterance is left after gender = X.*F, M"),
        ({"batch_size": 1}, r"batch_size is 1.*contrastive"),
        ({"eval_batch_size": 0}, r"eval_batch_size is 0"),
        ({"clip_quantile": 0.5}, r"clip_quantile is 0.5"),
        ({"seed": -1}, r"seed is -1"),
        ({"num_workers": -1}, r"num_workers is -1"),
        ({"store": "/nowhere"}, r"/nowhere: no feature store"),
    ],
)
def test_arguments_that_cannot_be_used_stop_the_construction(corpus, options, message):
    with pytest.raises(InputError, match=message):
        FeatureDataModule(**{"store": str(corpus.path), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes": ["angry", "happy", "sad"]},
            r"utterance 'u0002': label 'neutral' is none of angry, happy, sad",
        ),
        (
            {"classes": [*"abcd", "angry", "happy", "neutral", "sad"]},
            r"no training utterance of class a, b, c, d",
        ),
        ({"modalities": ["audio"]}, r"at least two are needed for training and scores"),
        ({"merge": {"angry": "x", "happy": "x", "neutral": "x", "sad": "x"}}, r"at least two classes"),
        ({"fold": 4}, r"fold 4 is out of range.*0 to 3"),
        ({"modalities": ["audio", "video"]}, r"utterances without any of audio, video: u0069"),
        ({"protocol": "stratified"}, r"speakers in both training and validation"),
        ({"protocol": "column"}, r"no column 'fold'"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_data_that_cannot_be_used_stop_the_setup(corpus, options, message, stage):
    data = module_of(corpus, **options)
    with pytest.raises(InputError, match=message):
        data.setup(stage)


def test_unknown_labels_may_be_filtered_out(corpus):
    data = module_of(corpus, classes=["angry", "sad"], where={"label": ["angry", "sad"]})
    data.setup("fit")
    assert data.class_counts.tolist() == [12, 12]


def test_a_modality_without_training_utterances_is_an_error(make_store):
    features = {
        "x": [np.ones(2, dtype=np.float32)] * 12,
        "y": [None if i < 8 else np.ones(2, dtype=np.float32) for i in range(12)],
    }
    columns = {"label": ["happy", "sad"] * 6, "session": np.repeat(["1", "2", "3"], 4)}
    data = module_of(make_store(features, columns), fold=2, batch_size=2)
    with pytest.raises(InputError, match=r"no training utterance has y"):
        data.setup("fit")


def test_a_batch_that_the_training_rows_do_not_fill_is_an_error(corpus):
    with pytest.raises(InputError, match=r"48 training utterances do not fill one batch of 49"):
        module_of(corpus, batch_size=49).train_dataloader()


def test_a_changed_file_is_found_before_training(make_store):
    store = make_store({m: [np.ones(2, dtype=np.float32)] * 3 for m in ("x", "y")})
    file = store.path / "y.values.npy"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    module_of(store, verify_checksums=False).prepare_data()
    with pytest.raises(InputError, match=r"y\.values\.npy: checksum differs"):
        module_of(store).prepare_data()


def test_checksums_are_verified_once(corpus, monkeypatch):
    calls = []
    monkeypatch.setattr(FeatureStore, "verify", lambda self: calls.append(self))
    data = module_of(corpus)
    data.prepare_data()
    data.prepare_data()
    assert len(calls) == 1


def test_overfitting_batches_is_refused(corpus):
    data = module_of(corpus)
    data.trainer = Trainer(overfit_batches=1, logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(InputError, match="limit_train_batches"):
        data.train_dataloader()


def test_training_noise_follows_the_seed_and_the_epoch(corpus):
    def epoch_of(seed: int, epoch: int) -> dict[int, torch.Tensor]:
        data = module_of(corpus, noise=Noise(probability=1), seed=seed)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return {int(row): x for batch in loader for row, x in zip(batch.rows, batch.features["text"], strict=True)}

    first, again, later, other = (epoch_of(*key) for key in ((0, 0), (0, 0), (0, 1), (1, 0)))
    row = next(row for row in first if row in later and row in other)
    assert torch.equal(first[row], again[row])
    for one in (later, other):
        assert not torch.equal(first[row], one[row])


def test_a_batch_with_noise_holds_the_clean_features_too(corpus):
    data, clean = module_of(corpus, noise=Noise(probability=1, modalities=["text"])), module_of(corpus)
    for noisy, batch in zip(data.train_dataloader(), clean.train_dataloader(), strict=True):
        assert batch.clean is None
        torch.testing.assert_close(noisy.clean, batch.features, equal_nan=True)
        torch.testing.assert_close(noisy.features["audio"], batch.features["audio"], equal_nan=True)
        assert not torch.equal(noisy.features["text"], batch.features["text"])
    for batch in (*data.val_dataloader(), *data.test_dataloader()):
        assert batch.clean is None


def test_test_noise_is_that_of_the_training_rows_and_of_no_seed(corpus):
    made = [module_of(corpus, test_noise=["gaussian-1"], seed=seed) for seed in (0, 1)]
    for first, second in zip(*(data.test_dataloader()[1] for data in made), strict=True):
        torch.testing.assert_close(first.features, second.features, equal_nan=True)
    statistics = made[0].statistics["text"]
    noisy = torch.cat([batch.features["text"][:, 0] for batch in made[0].test_dataloader()[1]])
    clean = torch.cat([batch.features["text"][:, 0] for batch in made[0].test_dataloader()[0]])
    epsilon = (noisy - torch.from_numpy(statistics.mean)) / torch.from_numpy(statistics.std)
    assert epsilon.mean().abs() < 0.3
    assert 0.7 < epsilon.std() < 1.3
    assert abs(np.corrcoef(epsilon.flatten(), clean.flatten())[0, 1]) < 0.4
