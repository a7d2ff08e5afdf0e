"""`cmarr extract`: features from recordings or transcripts by a pretrained encoder."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "extract features from recordings or transcripts with a pretrained encoder"

_DESCRIPTION = """Run a Hugging Face encoder over <utterance id>.wav files (audio) or transcripts (text: the column
transcript of metadata.csv, or <utterance id>.txt files) below DIR and write a store. An interrupted run goes on where
it was. Recordings in other formats have to be converted to WAV first. Needs the extra `extract`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr extract`."""
    parser.description = _DESCRIPTION
    parser.add_argument("kind", choices=("audio", "text"), help="modality")
    parser.add_argument("source", metavar="DIR", help="folder of the recordings or transcripts")
    parser.add_argument("out", metavar="OUT", help="folder of the store, which is made")
    parser.add_argument("--model", required=True, help="name on the hub, or folder of a model")
    parser.add_argument("--layer", type=int, default=-1, help="hidden layer (default: -1, the last)")
    parser.add_argument("--pool", action="store_true", help="keep the mean over time in place of the frames")
    parser.add_argument("--column", default="transcript", help="column of the transcripts (default: transcript)")
    parser.add_argument("--join", metavar="STORE", help="take over utterances and modalities of this store")
    parser.add_argument("--batch-size", type=int, default=8, help="utterances at a time (default: 8)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def run(args: argparse.Namespace) -> int:
    """Extract and say what came out."""
    from rich.progress import Progress

    from cmarr_lightning.commands.inspect import print_contents
    from cmarr_lightning.data.extraction.encoders import SpeechEncoder, TextEncoder
    from cmarr_lightning.data.extraction.extract import extract_features
    from cmarr_lightning.errors import InputError

    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}", remedy="set it to 1 or more")
    encoder = SpeechEncoder if args.kind == "audio" else TextEncoder
    with Progress(transient=True) as progress:
        task = progress.add_task(f"{args.kind} features", total=None)
        store = extract_features(
            args.kind,
            args.source,
            args.out,
            lambda: encoder(args.model, args.layer, args.device),
            settings={"model": args.model, "layer": args.layer},
            batch_size=args.batch_size,
            pool=args.pool,
            column=args.column,
            join=args.join,
            overwrite=args.overwrite,
            report=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_contents(store)
    return 0
