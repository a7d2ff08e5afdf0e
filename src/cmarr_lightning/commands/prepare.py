"""`cmarr prepare`: make a feature store of features in another format."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make a feature store of features that lie in another format"
FORMATS = ("arrays", "mmin", "gcnet", "conversation", "mmsa")
LABELS = ("iemocap-labels", "msp-improv-labels")

_DESCRIPTION = """Make a feature store OUT of the features SRC, or, with iemocap-labels and msp-improv-labels,
the table of utterances OUT (a CSV file) from the annotation files of a corpus. Nothing in SRC is run. When OUT was
made from the same SRC with the same settings, nothing is done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr prepare`."""
    parser.description = _DESCRIPTION
    choices = ("auto", *FORMATS, *LABELS)
    parser.add_argument(
        "format",
        nargs="?",
        default="auto",
        choices=choices,
        metavar="FORMAT",
        help=f"one of: {', '.join(choices)} (default: auto = by the look of SRC)",
    )
    parser.add_argument("source", metavar="SRC", help="folder (or file) of the features")
    parser.add_argument("out", metavar="OUT", help="folder of the store, or CSV file of the labels, which is made")
    parser.add_argument(
        "--modalities",
        metavar="A,B,...",
        help="take these, in this order (default: all); NAME=KEY chooses among several files or folders",
    )
    parser.add_argument("--name", help="name of the data (default: name of SRC)")
    parser.add_argument("--classes", metavar="C0,C1,...", help="names of the class numbers, where SRC has none")
    parser.add_argument("--repair-folds", action="store_true", help="rebuild official folds: leave one speaker out")
    parser.add_argument("--max-gb", type=float, help="how much the arrays of SRC may hold in total (default: 8)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def run(args: argparse.Namespace) -> int:
    """Import features or labels and say what came in."""
    from pathlib import Path

    from cmarr_lightning.data.importers import recognise_labels

    labels = args.format if args.format in LABELS else ""
    if args.format == "auto" and (seen := recognise_labels(Path(args.source))):
        labels, reason = seen
        print(f"format {labels}: {reason}")
    return _write_labels(labels, args) if labels else _import_features(args)


def _write_labels(name: str, args: argparse.Namespace) -> int:
    from cmarr_lightning.data.importers import write_labels

    utterances, unchanged = write_labels(name, args.source, args.out, overwrite=args.overwrite)
    print(f"{args.out}: {utterances} utterances" + (" (unchanged: nothing to do)" if unchanged else ""))
    return 0


def _import_features(args: argparse.Namespace) -> int:
    from cmarr_lightning.commands.inspect import print_contents
    from cmarr_lightning.data.importers import import_features
    from cmarr_lightning.data.importers.guards import DEFAULT_MAX_BYTES

    done = import_features(
        args.source,
        args.out,
        format=args.format,
        modalities=_words(args.modalities),
        name=args.name,
        classes=_words(args.classes),
        repair_folds=args.repair_folds,
        max_bytes=DEFAULT_MAX_BYTES if args.max_gb is None else int(args.max_gb * 1e9),
        overwrite=args.overwrite,
    )
    if done.reason:
        print(f"format {done.format}: {done.reason}")
    if done.unchanged:
        print("unchanged: the store was made from this source as it is now, nothing to do")
    print_contents(done.store)
    return 0


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]
