"""`fit`, `validate`, `test` and `predict` in process: what they print, write and log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cmarr_lightning.cli import main
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter

SEVEN = ["audio", "video", "text", "audio+video", "audio+text", "video+text", "audio+video+text"]
CLASSES = ["angry", "happy", "neutral", "sad"]


def logged(run: Path) -> pd.DataFrame:
    """Read what the latest stage of a run logged."""
    return pd.read_csv(max((run / "logs").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime))


def test_fit_logs_every_loss_term_and_every_condition(trained_run: Path):
    metrics = logged(trained_run)
    terms = {f"train/loss{term}" for term in ("", "_cls", "_align", "_recon", "_nll", "_refine")}
    extra = {"train/flow_roundtrip_error", "train/sigma", "train/temperature"}
    scores = {f"val/{key}/{name}" for key in ("war", "uar", "f1") for name in SEVEN}
    means = {f"val/{key}_missing_mean" for key in ("war", "uar", "f1")}
    assert set(metrics.columns) == {"epoch", "step"} | terms | extra | scores | means
    epochs = metrics.groupby("epoch").first()
    assert len(epochs) == 2
    assert np.isfinite(epochs.to_numpy()).all()
    assert epochs["train/flow_roundtrip_error"].max() < 1e-4
    incomplete = epochs[[f"val/uar/{name}" for name in SEVEN[:-1]]].mean(axis=1)
    np.testing.assert_allclose(incomplete, epochs["val/uar_missing_mean"], rtol=1e-6)


def test_fit_leaves_one_folder_with_everything(trained_run: Path):
    below = {str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file()}
    best = [name for name in below if name.startswith("checkpoints/best-epoch=")]
    assert len(best) == 1
    assert below - set(best) == {
        "config.yaml",
        "checkpoints/last.ckpt",
        "logs/version_0/metrics.csv",
        "logs/version_0/hparams.yaml",
    }


def test_test_prints_a_table_and_saves_what_it_logged(
    cmarr: Callable[..., int], trained_run: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]
):
    assert cmarr("test", "--run", "run") == 0

    printed = capsys.readouterr().out
    for text in (*SEVEN, "mean of incomplete", "WAR", "UAR", "macro F1", "synthetic", "run/test"):
        assert text in printed

    scores = pd.read_csv(trained_run / "test" / "scores.csv")
    assert scores["condition"].tolist() == [*SEVEN, "mean of incomplete"]
    assert scores["n"].tolist() == [60] * 8
    last = logged(trained_run).iloc[-1]
    for row in scores.itertuples():
        for key in ("war", "uar", "f1"):
            name = f"test/{key}_missing_mean" if row.Index == 7 else f"test/{key}/{row.condition}"
            assert getattr(row, key) == pytest.approx(last[name], abs=1e-6)
    assert f"{100 * scores['uar'].iloc[-1]:.1f}" in printed

    counts = pd.read_csv(trained_run / "test" / "confusion.csv")
    assert len(counts) == 7 * 16
    for row in scores.iloc[:7].itertuples():
        mine = counts[counts["condition"] == row.condition]
        matrix = mine.pivot_table(index="true", columns="predicted", values="count").to_numpy()
        assert matrix.sum() == 60
        assert row.war == pytest.approx(np.trace(matrix) / 60, abs=1e-6)
        assert row.uar == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(axis=1)), abs=1e-6)

    assert (trained_run / "test" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    about = json.loads((trained_run / "test" / "about.json").read_text())
    assert about["synthetic"] is True
    assert about["data_checksum"] == FeatureStore.open(tiny_store).checksum
    assert (about["stage"], about["protocol"], about["fold"]) == ("test", "session", 0)
    assert Path(about["checkpoint"]).name.startswith("best-")


def test_validate_scores_the_checkpoint_as_it_was_scored_in_training(cmarr: Callable[..., int], trained_run: Path):
    trained = logged(trained_run)["val/uar_missing_mean"].dropna()
    assert cmarr("validate", "--run", "run") == 0
    scores = pd.read_csv(trained_run / "validate" / "scores.csv")
    # The best checkpoint holds the averaged weights that the validation in training saw.
    assert scores["uar"].iloc[-1] == pytest.approx(trained.max(), abs=1e-6)
    assert not (trained_run / "test").exists()


def test_stages_name_a_checkpoint_alone(cmarr: Callable[..., int], trained_run: Path):
    assert cmarr("test", "--ckpt_path", "run/checkpoints/last.ckpt") == 0
    about = json.loads((trained_run / "test" / "about.json").read_text())
    assert Path(about["checkpoint"]).name == "last.ckpt"


def test_options_of_a_later_stage_override_the_runs_configuration(
    cmarr: Callable[..., int], trained_run: Path, other_store: Path, tmp_path: Path
):
    (tmp_path / "other.yaml").write_text(f"data:\n  init_args:\n    store: {other_store}\n    fold: 1\n", "utf-8")
    assert cmarr("test", "--run", "run", "-c", "other.yaml") == 0
    assert json.loads((trained_run / "test" / "about.json").read_text())["fold"] == 1


def test_predict_writes_one_row_per_utterance(cmarr: Callable[..., int], trained_run: Path, tiny_store: Path):
    assert cmarr("predict", "--run", "run") == 0
    table = pd.read_parquet(trained_run / "predictions.parquet")
    assert table.columns.tolist() == ["utterance_id", "condition", *(f"p_{c}" for c in CLASSES), "predicted"]
    assert table["utterance_id"].tolist() == FeatureStore.open(tiny_store).manifest["utterance_id"].tolist()
    assert set(table["condition"]) == {"audio+video+text"}
    probabilities = table[[f"p_{c}" for c in CLASSES]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert table["predicted"].tolist() == [CLASSES[c] for c in probabilities.argmax(axis=1)]


def test_predict_all_conditions_as_csv_agrees_with_test(cmarr: Callable[..., int], trained_run: Path):
    assert cmarr("predict", "--run", "run", "--predictions.conditions", "all", "--predictions.file", "p.csv") == 0
    assert cmarr("test", "--run", "run") == 0
    table = pd.read_csv(trained_run / "p.csv")
    assert table.groupby("utterance_id")["condition"].agg(list).map(sorted).map(tuple).unique().tolist() == [
        tuple(sorted(SEVEN))
    ]
    manifest = FeatureStore.open(_store_of(trained_run)).manifest.set_index("utterance_id")
    joined = table.join(manifest[["label", "session"]], on="utterance_id")
    tested = joined[joined["session"] == "Ses01"]
    scores = pd.read_csv(trained_run / "test" / "scores.csv").set_index("condition")
    for condition, rows in tested.groupby("condition"):
        right = rows["label"] == rows["predicted"]
        assert scores.loc[condition, "war"] == pytest.approx(right.mean(), abs=1e-6)
        assert scores.loc[condition, "uar"] == pytest.approx(right.groupby(rows["label"]).mean().mean(), abs=1e-6)


def _store_of(run: Path) -> str:
    store: str = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["store"]
    return store


def test_predict_needs_no_labels(cmarr: Callable[..., int], trained_run: Path, tiny_store: Path, tmp_path: Path):
    """The classes come from the run; a store without labels gets the same predictions."""
    store = FeatureStore.open(tiny_store)
    unlabelled = _rewrite(store, tmp_path / "unlabelled", store.manifest.assign(label=""))
    assert cmarr("predict", "--run", "run") == 0
    labelled = pd.read_parquet(trained_run / "predictions.parquet")
    assert cmarr("predict", "--run", "run", "--data.store", unlabelled, "--predictions.file", "other.parquet") == 0
    pd.testing.assert_frame_equal(pd.read_parquet(trained_run / "other.parquet"), labelled)


def _rewrite(
    store: FeatureStore, folder: Path, manifest: pd.DataFrame, modalities: Sequence[str] | None = None
) -> Path:
    names = modalities or store.modalities
    with FeatureStoreWriter(folder, manifest, names, name="rewritten", source="made up") as writer:
        for row, utterance in enumerate(manifest["utterance_id"]):
            writer.add(utterance, {m: store.get(row, m) for m in names})
    return folder


@pytest.mark.parametrize("modalities", [["audio"], ["text", "audio"]])
def test_predict_takes_a_store_that_lacks_modalities_and_labels(
    cmarr: Callable[..., int], trained_run: Path, tiny_store: Path, tmp_path: Path, modalities: list[str]
):
    """As the same modalities of a store that has all, in whatever order the new store has them."""
    store = FeatureStore.open(tiny_store)
    partial = _rewrite(store, tmp_path / "partial", store.manifest.assign(label=""), modalities)
    assert cmarr("predict", "--run", "run", "--data.store", partial) == 0
    table = pd.read_parquet(trained_run / "predictions.parquet")
    name = "+".join(m for m in ("audio", "video", "text") if m in modalities)
    assert set(table["condition"]) == {name}
    assert cmarr("predict", "--run", "run", "--predictions.conditions", "all", "--predictions.file", "all.csv") == 0
    every = pd.read_csv(trained_run / "all.csv", dtype={"utterance_id": str})
    same = every[every["condition"] == name].reset_index(drop=True)
    assert table["utterance_id"].tolist() == same["utterance_id"].tolist()
    np.testing.assert_allclose(table.filter(like="p_"), same.filter(like="p_"), atol=1e-6)


def test_predict_refuses_a_store_of_other_features(
    cmarr: Callable[..., int], trained_run: Path, write_store: Callable[..., FeatureStore], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    other = write_store(tmp_path / "other", np.ones((80, 2), dtype=bool)).path
    assert cmarr("predict", "--run", "run", "--data.store", other) == 2
    assert "none of the modalities that the run was trained on, audio, video, text" in capsys.readouterr().err


def test_predictions_of_other_utterances_are_not_replaced(
    cmarr: Callable[..., int], trained_run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cmarr("predict", "--run", "run") == 0
    before = (trained_run / "predictions.parquet").read_bytes()
    store = FeatureStore.open(tiny_store)
    manifest = store.manifest.assign(utterance_id="new_" + store.manifest["utterance_id"])
    renamed = _rewrite(store, tmp_path / "renamed", manifest)
    assert cmarr("predict", "--run", "run", "--data.store", renamed) == 2
    assert "holds predictions of other utterances" in capsys.readouterr().err
    assert (trained_run / "predictions.parquet").read_bytes() == before
    assert cmarr("predict", "--run", "run", "--data.store", renamed, "--predictions.file", "new.csv") == 0
    assert cmarr("predict", "--run", "run") == 0  # the same again


@pytest.fixture(scope="module")
def gappy_run(tmp_path_factory: pytest.TempPathFactory, gappy_store: Path, config: Path) -> Path:
    """A run on utterances that lack modalities on disk, tested and used for prediction in both ways."""
    run = tmp_path_factory.mktemp("gappy") / "run"
    named = ["--run", str(run)]
    assert main(["fit", "-c", str(config), "--data.store", str(gappy_store), *named]) == 0
    assert main(["test", *named]) == 0
    assert main(["predict", *named]) == 0
    assert main(["predict", *named, "--predictions.conditions", "all", "--predictions.file", "all.csv"]) == 0
    return run


def _gaps(store: FeatureStore, session: str | None = None) -> np.ndarray:
    keep = slice(None) if session is None else (store.manifest["session"] == session).to_numpy()
    observed: np.ndarray = store.observed()[keep]
    return observed


def test_conditions_are_scored_on_the_complete_rows_and_available_on_all(gappy_run: Path, gappy_store: Path):
    observed = _gaps(FeatureStore.open(gappy_store), "S0")
    complete = int(observed.all(axis=1).sum())
    assert 0 < complete < len(observed) == 31
    scores = pd.read_csv(gappy_run / "test" / "scores.csv").set_index("condition")
    assert scores.index[-2:].tolist() == ["available", "mean of incomplete"]
    assert scores["n"].drop("available").unique().tolist() == [complete]
    assert scores.loc["available", "n"] == 31
    incomplete = scores.iloc[:6]
    assert scores.loc["mean of incomplete", "uar"] == pytest.approx(incomplete["uar"].mean(), abs=1e-6)


def test_predict_uses_what_each_utterance_has(gappy_run: Path, gappy_store: Path):
    observed = _gaps(FeatureStore.open(gappy_store))
    table = pd.read_parquet(gappy_run / "predictions.parquet")
    names = np.array(["m0", "m1", "m2"])
    assert table["condition"].tolist() == ["+".join(names[row]) for row in observed]


def test_predict_all_lists_only_what_the_modalities_allow(gappy_run: Path, gappy_store: Path):
    observed = _gaps(FeatureStore.open(gappy_store))
    table = pd.read_csv(gappy_run / "all.csv")
    assert table.groupby("utterance_id", sort=False).size().tolist() == [2 ** row.sum() - 1 for row in observed]
    own = pd.read_parquet(gappy_run / "predictions.parquet")
    both = own.merge(table, on=["utterance_id", "condition"], suffixes=("", "_all"))
    assert len(both) == len(own)
    for name in CLASSES:
        np.testing.assert_allclose(both[f"p_{name}"], both[f"p_{name}_all"], atol=1e-6)


def best_score(path: Path) -> float:
    states = torch.load(path, weights_only=True)["callbacks"]
    (state,) = (state for name, state in states.items() if name.startswith("BestCheckpoint"))
    return float(state["best_model_score"])


def test_a_network_is_not_scored_on_rows_it_was_trained_on(
    cmarr: Callable[..., int], config: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Though fold, protocol and corpus are the same: the columns with the folds differ."""
    store = FeatureStore.open(tiny_store)
    sessions = sorted(set(store.manifest["session"]))
    parts = [
        dict(zip(sessions, order, strict=True))
        for order in (["test", "val", "train", "train"], ["train", "val", "test", "train"])
    ]
    columns = {f"split_{i}": store.manifest["session"].map(part) for i, part in enumerate(parts, start=1)}
    folds = _rewrite(store, tmp_path / "folds", store.manifest.assign(**columns))
    official = ("--data.store", folds, "--data.init_args.protocol", "official", "--data.init_args.fold_column")
    assert cmarr("fit", "-c", config, *official, "split_1", "--run", "run", "--trainer.max_epochs", "1") == 0
    assert cmarr("test", "--run", "run") == 0
    for stage in (["test"], ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"]):
        assert cmarr(*stage, "--run", "run", "--data.init_args.fold_column", "split_2") == 2
        assert "trained on other utterances" in capsys.readouterr().err


def test_a_run_can_be_moved_tested_and_resumed(cmarr: Callable[..., int], trained_run: Path, tmp_path: Path):
    moved = Path(shutil.move(trained_run, tmp_path / "moved"))
    assert cmarr("test", "--run", "moved") == 0
    assert (moved / "test" / "scores.csv").exists()
    (best,) = (moved / "checkpoints").glob("best-*.ckpt")
    score = best_score(best)
    assert cmarr("fit", "--run", "moved", "--ckpt_path", "last", "--trainer.max_epochs", "3") == 0
    (best,) = (moved / "checkpoints").glob("best-*.ckpt")  # one, and none that is worse
    assert best_score(best) >= score
    assert [path.name for path in (moved / "checkpoints").glob("last*")] == ["last.ckpt"]
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    assert not (tmp_path / "run").exists()
