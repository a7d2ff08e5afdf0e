"""Tables of utterances from hand-made miniature annotation files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.commands import run_command
from cmarr_lightning.data.importers import import_features, write_labels
from cmarr_lightning.data.importers.iemocap_labels import read_iemocap_labels
from cmarr_lightning.data.importers.msp_improv_labels import read_msp_improv_labels
from cmarr_lightning.errors import InputError

_IEMOCAP = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.5000 - 8.2500]\tSes09F_impro01_M000\texc\t[4.5000, 3.5000, 3.0000]
C-E2:\tHappiness; Excited;\t()
C-E3:\tExcited;\t(very: much; so)
C-F1:\tNeutral;\t(curious)
A-E3:\tval 4; act 3; dom  3;\t()

[9.0000 - 9.7500]\tSes09F_impro01_F000\txxx\t[2.0000, 2.0000, 2.5000]
C-E2:\tAnger;\t()
C-E3:\tOther;\t()
"""

_MSP = """UTD-IMPROV-S01A-F09-S-FM02.avi; N; A:3.000000; V:2.500000; D:3.250000 ; N:4.000000;
WORKER00001; Neutral; Neutral,Concerned; A:3.000000; V:3.000000; D:3.000000; N:4.000000;
WORKER00002; Neutral; Neutral; A:3.000000; V:2.000000; D:NaN; N:4.000000;
WORKER00003; Sad; Sad,Other(a; b); A:3.000000; V:2.000000; D:3.000000; N:4.000000;

UTD-IMPROV-S01A-F09-R-FM01.avi; X; A:3.000000; V:2.500000; D:NaN ; N:4.000000;
"""


def _iemocap(folder: Path, text: str = _IEMOCAP) -> Path:
    file = folder / "Session9/dialog/EmoEvaluation/Ses09F_impro01.txt"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    (file.parent / "._Ses09F_impro01.txt").write_bytes(b"\x00")  # macOS leaves these
    return folder


def test_iemocap_turns_votes_and_numbers_are_read(tmp_path: Path) -> None:
    table = read_iemocap_labels(_iemocap(tmp_path))
    second = table.set_index("utterance_id").loc["Ses09F_impro01_M000"].to_dict()
    assert second == {
        "dialogue_id": "Ses09F_impro01",
        "session": "Ses09",
        "speaker": "Ses09M",
        "gender": "M",
        "scenario": "improvised",
        "emotion": "excited",
        "label": "happy",
        "start": 6.5,
        "end": 8.25,
        "valence": 4.5,
        "activation": 3.5,
        "dominance": 3.0,
        "votes": "excited:2 happiness:1",
        "self_votes": "neutral:1",
    }
    first = table.iloc[0]
    assert (first["utterance_id"], first["emotion"], first["label"]) == ("Ses09F_impro01_F000", "undecided", "")
    assert first["votes"] == "anger:1 other:1"


def test_msp_improv_turns_votes_and_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "Evalution.txt").write_text(_MSP)
    table = read_msp_improv_labels(tmp_path)
    assert table["utterance_id"].tolist() == ["MSP-IMPROV-S01A-F09-R-FM01", "MSP-IMPROV-S01A-F09-S-FM02"]
    assert table["emotion"].tolist() == ["X", "N"]
    assert table["label"].tolist() == ["", "neutral"]
    assert table["votes"].tolist() == ["", "neutral:2 sad:1"]
    assert table["dominance"].isna().tolist() == [True, False]
    assert table.loc[1, ["activation", "valence", "dominance", "naturalness"]].tolist() == [3, 2.5, 3.25, 4]
    assert table.loc[1, ["session", "speaker", "gender", "recording"]].tolist() == ["Ses09", "F09", "F", "S"]


@pytest.mark.parametrize("form", [["msp-improv-labels"], []])
def test_the_command_writes_a_table_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]) -> None:
    source, out = tmp_path / "corpus", tmp_path / "new" / "metadata.csv"
    source.mkdir()
    (source / "Evalution.txt").write_text(_MSP)
    command = ["prepare", *form, str(source), str(out)]
    assert run_command(command) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 2 utterances\n" in printed
    assert ("format msp-improv-labels: Evalution.txt" in printed) == (not form)
    written = out.read_bytes()
    assert run_command(command) == 0
    assert "unchanged" in capsys.readouterr().out
    (source / "Evalution.txt").write_text(_MSP.replace("; N; A", "; H; A"))
    assert run_command(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == written
    assert run_command([*command, "--overwrite"]) == 0
    assert b"happy" in out.read_bytes()
    assert [entry.name for entry in out.parent.iterdir()] == ["metadata.csv"]


def test_the_table_joins_a_users_own_features_by_id(tmp_path: Path) -> None:
    source = _iemocap(tmp_path / "corpus")
    mine = tmp_path / "mine"
    for modality in ("audio", "text"):
        (mine / modality).mkdir(parents=True)
        for name in ("M000", "F000"):
            np.save(mine / modality / f"Ses09F_impro01_{name}.npy", np.ones((2, 3), "f4"))
    assert write_labels("iemocap-labels", source, mine / "metadata.csv") == (2, False)
    store = import_features(mine, tmp_path / "store").store
    assert store.manifest["label"].tolist() == ["", "happy"]
    assert store.manifest["speaker"].tolist() == ["Ses09F", "Ses09M"]


def test_windows_line_ends_and_other_encodings_do_not_matter(tmp_path: Path) -> None:
    plain = read_iemocap_labels(_iemocap(tmp_path / "a"))
    other = read_iemocap_labels(_iemocap(tmp_path / "b", _IEMOCAP.replace("curious", "na\xefve").replace("\n", "\r\n")))
    assert plain.equals(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no utterance in it"),
        (_IEMOCAP.replace("exc", "joy"), r"impro01\.txt, line 3: .* is not `\[start - end\]"),
        (_IEMOCAP.replace("6.5000", "6.5.0"), "line 3: could not convert"),
        (_IEMOCAP.replace("M000", "../../evil"), "'Ses09F_impro01_../../evil' is no id of IEMOCAP"),
        (_IEMOCAP.replace("M000", "F000"), "'Ses09F_impro01_F000' stands already"),
        (_IEMOCAP.replace("[4.5000, 3.5000, 3.0000]", "[4.5000, 3.5"), "line 3"),
    ],
)
def test_damaged_annotation_of_iemocap_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    source = _iemocap(tmp_path / "corpus", text)
    with pytest.raises(InputError, match=expected) as caught:
        write_labels("iemocap-labels", source, tmp_path / "x.csv")
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no utterance in it"),
        (_MSP.replace("; N; A:3.000000", "; N; A:three"), r"Evalution\.txt, line 1: "),
        (_MSP.replace("S01A-F09-S-FM02", "../evil"), "is no id of MSP-IMPROV"),
        (_MSP.replace("R-FM01", "S-FM02"), "stands already"),
    ],
)
def test_damaged_annotation_of_msp_improv_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "Evalution.txt").write_text(text)
    with pytest.raises(InputError, match=expected):
        write_labels("msp-improv-labels", tmp_path, tmp_path / "x.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["Evalution.txt"]


def test_other_folders_and_targets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Session\*/dialog"):
        write_labels("iemocap-labels", tmp_path, tmp_path / "x.csv")
    with pytest.raises(InputError, match="neither Evalution"):
        write_labels("msp-improv-labels", tmp_path, tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"ends in \.csv"):
        write_labels("msp-improv-labels", tmp_path, tmp_path / "store")
