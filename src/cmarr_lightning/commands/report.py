"""`cmarr report`: tables and pictures of one or more methods."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "compare results: a page, a Markdown and a LaTeX table, pictures"

_DESCRIPTION = """Compare the results of `cmarr crossval` and `cmarr baseline` on the same data.

Writes OUT/report.html (one file, needs no network), OUT/report.md, OUT/report.tex and the pictures as
OUT/figures/*.pdf. OUT/counts/METHOD/counts.json holds what of a method can be shared without the data; in a folder it
stands for runs, or adds seeds to those beside it. The first RESULTS is what the others are tested against. The quality
of reconstructions needs the checkpoints of the runs and their feature store; a relative place of the store is looked
up from the working folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr report`."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="folder of `cmarr crossval` or `cmarr baseline`, or of a counts.json",
    )
    parser.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the report; files of an earlier one are replaced"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from cmarr_lightning.analysis.report import write_report

    for path in write_report(args.results, args.out):
        print(path)
    return 0
