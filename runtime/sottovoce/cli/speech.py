"""What the commands that transcribe share: a transcriber that is ready, with the adapters asked for."""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager

import sottovoce


def add_adapter_argument(parser: argparse.ArgumentParser) -> None:
    """Declares `--adapter`."""
    parser.add_argument(
        "--adapter",
        metavar="FILE.gguf",
        action="append",
        default=[],
        help="a LoRA adapter for this bundle's model, made with `sottovoce adapter`; may be given several times",
    )


@contextmanager
def ready_transcriber(args: argparse.Namespace) -> Iterator["sottovoce.Transcriber"]:
    """A transcriber that has loaded the bundle and what `--adapter` names, closed at the end."""
    with closing(sottovoce.Transcriber(args.bundle, threads=args.threads)) as transcriber:
        transcriber.load()
        for adapter in args.adapter:
            transcriber.attach_adapter(adapter)
        yield transcriber
