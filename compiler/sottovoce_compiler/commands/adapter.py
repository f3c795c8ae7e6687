"""`sottovoce adapter`: a LoRA adapter as PEFT saves it into a file that a bundle takes and drops while it runs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.errors import BundleError, InputError
from sottovoce.gguf import read_gguf
from sottovoce_compiler.lowerings.gguf.precision import ADAPTER_PRECISIONS

if TYPE_CHECKING:
    from sottovoce_compiler.sources.checkpoint import Checkpoint
    from sottovoce_compiler.sources.peft import LoraAdapter

EXAMPLE = """\
  sottovoce adapter smollm2-135m-instruct ./my-lora -o my-lora.gguf
  sottovoce chat smollm2.svb --adapter my-lora.gguf
  sottovoce adapter whisper-base ./my-terms -o my-terms.gguf
  sottovoce transcribe whisper-base.svb talk.wav --adapter my-terms.gguf"""

SUFFIX = ".gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="the model that the adapter was trained on, as bundles were compiled from it: a short name, a Hub id, a "
        "folder or a .gguf file",
    )
    parser.add_argument("adapter", metavar="DIR", help="the folder that peft saved the adapter to")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.gguf", help="the file to write")
    parser.add_argument(
        "--precision",
        choices=ADAPTER_PRECISIONS,
        default=ADAPTER_PRECISIONS[0],
        help="of its values (default: %(default)s; fp16 is half the size and rounds what it multiplies)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Writes the file; raises InputError for an adapter that is damaged, untrained, or of another model."""
    output = check_output(Path(args.output))
    from sottovoce_compiler.adapter import note_on_base
    from sottovoce_compiler.sources import resolve
    from sottovoce_compiler.sources.files import say
    from sottovoce_compiler.sources.peft import open_adapter

    adapter = open_adapter(Path(args.adapter).expanduser())
    checkpoint = resolve(args.source)
    _write(checkpoint, adapter, output, args.precision)
    note = note_on_base(adapter, checkpoint)
    if note is not None:
        say(note)
    ranks = sorted({pair.rank for pair in adapter.pairs})
    facts = {
        "adapter": args.output,
        "bytes": output.stat().st_size,
        "base": checkpoint.name,
        "matrices": len(adapter.pairs),
        "ranks": ranks,
        "notes": [] if note is None else [note],
    }
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        size = output.stat().st_size / 1e6
        print(f"{args.output}: {size:.1f} MB, {len(adapter.pairs)} matrices of {checkpoint.name}, {rank}")
    return 0


def _write(checkpoint: "Checkpoint", adapter: "LoraAdapter", output: Path, precision: str) -> None:
    from sottovoce_compiler.families import SPEECH, family_of, language_model

    if family_of(checkpoint.config, checkpoint.name) in SPEECH:
        from sottovoce_compiler.lowerings.onnx.speech_adapter import write_speech_adapter

        write_speech_adapter(checkpoint, adapter, output, precision)
        return
    from sottovoce_compiler.lowerings.gguf.adapter import write_adapter

    write_adapter(language_model(checkpoint), checkpoint, adapter, output, precision)


def check_output(path: Path) -> Path:
    """The absolute path that an adapter may be written to. Raises InputError where it may not: nothing but another
    adapter is replaced, since a model has the same ending."""
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"{path} does not end in {SUFFIX}, as adapters do")
    real = path.expanduser().resolve()
    if not real.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {real.parent}; create it first")
    if real.exists() and not _is_adapter(real):
        raise InputError(f"{path} exists and is no adapter; choose another name")
    return real


def _is_adapter(path: Path) -> bool:
    try:
        return read_gguf(path, skip_arrays_over=0).metadata.get("general.type") == "adapter"
    except BundleError:
        return False
