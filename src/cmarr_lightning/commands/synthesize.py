"""`cmarr synthesize`: write a synthetic corpus as a feature store."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write a synthetic corpus with the shapes and class sizes of a real one"
PRESETS = ("iemocap", "msp-improv", "tiny")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr synthesize`."""
    parser.add_argument("out", metavar="OUT", help="folder of the store, which is made")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="tiny",
        help="iemocap: 0.9 GB, msp-improv: 1.4 GB, tiny: 0.2 MB (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same store (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def run(args: argparse.Namespace) -> int:
    """Write the corpus and say what is in it."""
    from cmarr_lightning.commands.inspect import print_contents
    from cmarr_lightning.data.corpora.synthetic import synthesize

    print_contents(synthesize(args.out, args.preset, args.seed, overwrite=args.overwrite))
    return 0
