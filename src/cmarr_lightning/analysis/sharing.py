"""From runs to the counts that can be shared, and both together as one set of results."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmarr_lightning.analysis.counted import COUNTS, CountedResults, Counts, read_counts, settings_digest
from cmarr_lightning.analysis.protocol import ProtocolResults, load_results
from cmarr_lightning.analysis.robustness import RATES, missing_counts, missing_masks
from cmarr_lightning.analysis.runs import read_runs
from cmarr_lightning.errors import InputError

__all__ = ["can_be_shared", "count_results", "join_results", "read_results"]


def read_results(folder: str | Path) -> ProtocolResults:
    """Read the runs in a folder, or its `counts.json`, or both: then the seeds of the runs and the others of the file.

    Beside a file, seeds whose runs do not have all its folds yet count as unfinished.

    Raises:
        InputError: Neither, something unreadable, or a file that does not belong to the runs.
    """
    folder = Path(folder)
    if not (folder / COUNTS).is_file():
        return load_results(folder)
    counted = read_counts(folder)
    if not read_runs(folder)[0]:
        return counted
    results = load_results(folder)
    pairs = {(run.fold, run.seed) for run in results.runs}
    folds = {run.fold for run in counted.runs}
    whole = [run for run in results.runs if all((fold, run.seed) in pairs for fold in folds)]
    unfinished = (*results.unfinished, *(run.path for run in results.runs if run not in whole))
    if not whole:
        return replace(counted, unfinished=unfinished)
    return join_results(count_results(replace(results, runs=tuple(whole), unfinished=unfinished)), counted)


def can_be_shared(results: ProtocolResults) -> bool:
    """Tell whether there is something to count by; counts of single utterances would be predictions."""
    return results.has_clusters and bool(results.whole_seeds) and results.cluster != "utterance"


def count_results(results: ProtocolResults) -> CountedResults:
    """Count the runs of the seeds that have all folds.

    Raises:
        InputError: No predictions, no such seed, or nothing to count by but single utterances.
    """
    if isinstance(results, CountedResults):
        return results
    if not can_be_shared(results):
        raise InputError(
            f"{results.folder}: not a whole seed with predictions of utterances that name speaker or session",
            remedy="finish the runs with --keep-predictions; without speakers and sessions counts cannot be shared",
        )
    chosen = [r for r, run in enumerate(results.runs) if run.seed in results.whole_seeds]
    noisy = [results.noisy_confusion(run) for run in results.runs]
    same = [name for name in noisy[0] if all(name in each for each in noisy)]
    masks = missing_masks(results)
    counts = Counts(
        results.cluster,
        results.all_conditions,
        results.run_counts(results.cluster)[1].swapaxes(0, 1),
        {name: np.stack([each[name] for each in noisy]) for name in same},
        sorted({rate for rate in RATES if rate in set(masks["rate"])}),
        missing_counts(results, masks),
    )
    runs = tuple(results.runs[r] for r in chosen)
    return CountedResults(results.folder, runs, results.unfinished, counts.of_runs(chosen))


def join_results(first: CountedResults, second: CountedResults) -> CountedResults:
    """Take all runs of the first and those of the second whose seed the first does not have.

    Raises:
        InputError: They are not of the same method, data, conditions, noise and test utterances.
    """
    where = f"{first.folder} and {second.folder / COUNTS}"
    for key in ("method", "data_checksum", "class_names", "modalities", "protocol"):
        if first.about[key] != second.about[key]:
            raise InputError(
                f"{where}: {key} differs ({first.about[key]} and {second.about[key]})",
                remedy="put the file beside runs of the same method and data, or in a folder of its own",
            )
    digests = {digest for results in (first, second) for run in results.runs if (digest := settings_digest(run))}
    if len(digests) > 1:
        warnings.warn(
            f"{where}: the seeds were trained with different settings, and are pooled as one method. Remedy: keep them"
            " in folders of their own, unless a newer version has only added options.",
            stacklevel=2,
        )
    mine, theirs = first.counts, second.counts
    for key in ("cluster", "conditions", "rates"):
        if getattr(mine, key) != getattr(theirs, key):
            raise InputError(f"{where}: different {key}", remedy="keep them in folders of their own")
    totals = [results.cluster_counts(results.cluster)[1][:, 0].sum(-1) for results in (first, second)]
    if not np.array_equal(*totals):
        raise InputError(f"{where}: different test utterances", remedy="keep them in folders of their own")
    names = [name for name in mine.noise if name in theirs.noise]
    seeds = {run.seed for run in first.runs}
    others = [r for r, run in enumerate(second.runs) if run.seed not in seeds]
    runs = (*first.runs, *(second.runs[r] for r in others))
    order = sorted(range(len(runs)), key=lambda r: (runs[r].seed, runs[r].fold))
    more = theirs.of_runs(others)
    both = Counts(
        mine.cluster,
        mine.conditions,
        np.concatenate([mine.clusters, more.clusters]),
        {name: np.concatenate([mine.noise[name], more.noise[name]]) for name in names},
        mine.rates,
        np.concatenate([mine.missing, more.missing]),
    )
    return CountedResults(first.folder, tuple(runs[r] for r in order), first.unfinished, both.of_runs(order))
