"""Write a synthetic MMIN folder of about 3 GB, import it and measure speed and peak memory.

Usage: python experiments/benchmarks/import_mmin.py [--utterances 7500] [--folder TEMPORARY]
The source is made of random numbers and removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

CLASSES = (1103, 1636, 1708, 1084)
SHAPES = {"A/comparE": 130, "V/denseface": 342, "L/bert_large": 1024}

_IMPORT = """
import json, resource, sys, time
start = time.perf_counter()
from cmarr_lightning.data.importers import import_features
imported = time.perf_counter()
done = import_features(sys.argv[1], sys.argv[2])
print(json.dumps({
    "seconds": time.perf_counter() - imported,
    "import_seconds": imported - start,
    "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
    "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    "unchanged": done.unchanged,
    "utterances": len(done.store),
}))
"""


def write_source(folder: Path, utterances: int) -> int:
    """Write features of float64 as the released files have them, and the ten folds; returns the bytes."""
    random = np.random.default_rng(0)
    speakers = [f"Ses0{1 + i % 5}{'FM'[i // 5 % 2]}" for i in range(utterances)]
    ids = [f"{s}_impro{i % 90:02d}_{s[-1]}{i // 90:03d}" for i, s in enumerate(speakers)]
    labels = np.repeat(range(4), CLASSES)[np.arange(utterances) * sum(CLASSES) // utterances]
    pool = random.normal(size=1 << 22)
    for name, width in SHAPES.items():
        (folder / name).parent.mkdir(parents=True)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for i, utterance in enumerate(ids):
                frames = {"A/comparE": int(6 + 80 * pool[i] ** 2) % 335 + 6, "V/denseface": 50, "L/bert_large": 22}[
                    name
                ]
                start = i * 37 % (len(pool) - frames * width)
                file[utterance] = pool[start : start + frames * width].reshape(frames, width)
    names = np.array(ids)
    for number, speaker in enumerate(sorted(set(speakers)), start=1):
        target = folder / "target" / str(number)
        target.mkdir(parents=True)
        part_of = np.array(["tst" if s == speaker else "val" if s[:-1] == speaker[:-1] else "trn" for s in speakers])
        for part in ("trn", "val", "tst"):
            rows = part_of == part
            np.save(target / f"{part}_label.npy", np.eye(4, dtype=np.int64)[labels[rows]])
            np.save(target / f"{part}_int2name.npy", names[rows].astype("S23")[:, None])
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def write_at_disk_speed(folder: Path) -> float:
    """Measure how fast this disk takes 500 MB, in MB/s: what the import is to be compared with."""
    block = os.urandom(1 << 24)
    start = time.perf_counter()
    with (folder / "probe").open("wb") as file:
        for _ in range(30):
            file.write(block)
        os.fsync(file.fileno())
    (folder / "probe").unlink()
    return 30 * len(block) / 1e6 / (time.perf_counter() - start)


def main() -> None:
    """Measure a first import and a second one on unchanged input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=7500)
    parser.add_argument("--folder", help="where the temporary folder is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        size = write_source(folder / "IEMOCAP", arguments.utterances)
        print(
            f"source: {size / 1e9:.2f} GB; writer's peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB"
        )
        print(f"disk: {write_at_disk_speed(folder):.0f} MB/s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for run in ("first", "second"):
            command = [sys.executable, "-c", _IMPORT, str(folder / "IEMOCAP"), str(folder / "store")]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
            result["mb_per_second"] = size / 1e6 / result["seconds"]
            print(run, json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in result.items()}))


if __name__ == "__main__":
    main()
