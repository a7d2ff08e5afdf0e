"""One run in a process of its own: `python -m cmarr_lightning.crossval.run FOLDER CONFIG FOLD SEED [STAGE]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmarr_lightning.cli import main as cmarr
from cmarr_lightning.files import replacing

__all__ = ["end_with_parent", "main"]


def main(words: Sequence[str]) -> int:
    """Train a run, or go on with it from its last checkpoint, then score its validation and its test fold.

    `about.json` says which of these stages are asked for and keeps which are finished, so that none is repeated after
    a kill.

    Args:
        words: The run's folder, the configuration file, the fold and the seed. A stage after them: do that one only
            and keep no record.

    Returns:
        The exit code of the stage that failed, or 0.
    """
    run, config, fold, seed, *only = words
    options = ["-c", config, "--run", run, "--seed_everything", seed, "--data.init_args.fold", fold]
    if only:
        return cmarr([*only, *options, *_from_last(Path(run), only[0])])
    path = Path(run) / "about.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    _name_for_wandb(Path(run), about["method"], fold, seed)
    for stage in about["stages"]:
        if stage in about["finished"]:
            continue
        if _on_one_device(about["config"]["trainer"]):
            code = cmarr([stage, *options, *_from_last(Path(run), stage)])
        else:  # Lightning starts the further processes of a stage by repeating the command of the first
            again = [sys.executable, "-m", "cmarr_lightning.crossval.run", *words, stage]
            code = subprocess.run(again, check=False).returncode  # noqa: S603  (our own program, no shell)
        if code:
            return code
        about["finished"].append(stage)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(about, indent=2), encoding="utf-8")
    return 0


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended.

    The other end of our standard input is held by the protocol, which never writes: what wakes us is its end. A run
    that outlived its protocol would get in the way of the next one.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _name_for_wandb(run: Path, method: str, fold: str, seed: str) -> None:
    """Let the runs of a protocol share a group on W&B; without a `WandbLogger` nobody reads this."""
    folder = run.resolve().parent
    os.environ |= {
        "WANDB_RUN_GROUP": f"{folder.parent.name}/{folder.name}",
        "WANDB_JOB_TYPE": f"seed-{seed}",
        "WANDB_NAME": run.name,
        "WANDB_TAGS": ",".join([method.replace(",", " ")[:64], f"fold-{fold}", f"seed-{seed}"]),
    }


def _from_last(run: Path, stage: str) -> list[str]:
    resumed = stage == "fit" and (run / "checkpoints" / "last.ckpt").exists()
    return ["--ckpt_path", "last"] if resumed else []


def _on_one_device(trainer: dict[str, Any]) -> bool:
    return trainer["devices"] in (1, "1") or (trainer["devices"] == "auto" and trainer["accelerator"] == "cpu")


if __name__ == "__main__":
    end_with_parent()
    raise SystemExit(main(sys.argv[1:]))
