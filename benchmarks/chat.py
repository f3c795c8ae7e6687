"""Our chat beside llama.cpp's own loop, llama-cpp-python and onnxruntime-genai: speed, memory, loss, bytes, in one run.

    python benchmarks/chat.py --model smollm2-135m-instruct=smollm2.svb \\
        --model smollm2-135m-instruct=smollm2-int4-onnx.svb

README.md beside this file says how each figure is measured.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chat_stages
import chat_table
import machine
from chat_plan import ChatModel, Plan, grouped
from chat_stages import STAGES, say

PRECISIONS = ("fp32", "fp16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_nl")
ONNX_PRECISIONS = ("int8", "int4")
Json = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; the result is written after every stage."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    models = grouped([source_and_bundle(text) for text in options.model], options.genai)
    result: Json = {
        "date": machine.today(),
        "command": machine.command_line("benchmarks/chat.py", arguments),
        "machine": machine.describe(),
        "threads": plan.threads,
        "settings": {"repetitions": plan.repetitions, "answer_tokens": plan.tokens, "context": plan.context},
        "models": {},
    }
    if options.add and (kept := options.output.with_suffix(".json")).exists():
        result = added_to(json.loads(kept.read_text(encoding="utf-8")), result)
    for model in models:
        part = result["models"].setdefault(model.name, {"bundles": {}, "stage_s": {}})
        for name, about in _about(model).items():
            part["bundles"].setdefault(name, {}).update(about)
        for stage in plan.stages:
            began = time.perf_counter()
            chat_stages.run(stage, plan, model, part)
            part["stage_s"][stage] = round(time.perf_counter() - began, 1)
            chat_table.write(result, options.output)
    print(chat_table.render(result))
    return 0


def source_and_bundle(text: str) -> tuple[str, Path | None]:
    """SOURCE=BUNDLE taken apart, or SOURCE and None. The == of a `pypi:` source separates nothing."""
    source, _, bundle = text.rpartition("=")
    return (source, Path(bundle)) if source and not source.endswith("=") else (text, None)


def added_to(before: Json, now: Json) -> Json:
    """The result of an earlier part of one run, to go on with. ValueError where `now` is another machine or plan."""
    for name in ("threads", "settings"):
        if before[name] != now[name]:
            raise ValueError(f"--add: {name} were {before[name]} and are {now[name]}; measure all stages alike")
    first, second = ({**one["machine"], "load_average_before": 0} for one in (before, now))
    if first != second:
        raise ValueError(f"--add: what is there was measured on {first}, this is {second}")
    loads = [one["machine"]["load_average_before"] for one in (before, now)]
    return {
        **before,
        "date": now["date"],
        "command": f"{before['command']}\n    {now['command']}",
        "machine": {**before["machine"], "load_average_before": max(loads)},
    }


def _about(model: ChatModel) -> Json:
    bundles = {
        bundle.name: {"engine": bundle.engine, "precision": bundle.precision, "bytes": bundle.path.stat().st_size}
        for bundle in model.bundles
    }
    if not bundles:
        say(f"{model.name}: no bundle, so only the stages of its source are run")
    return bundles


def _genai(text: str) -> tuple[str, str, Path]:
    """SOURCE:NAME=FOLDER taken apart."""
    left, _, folder = text.rpartition("=")
    source, _, name = left.rpartition(":")
    if not source or not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not SOURCE:NAME=FOLDER")
    return source, name, Path(folder)


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        stages=tuple(stage for stage in STAGES if stage in options.stages),
        threads=options.threads,
        repetitions=options.repetitions,
        rest_s=options.rest,
        tokens=options.tokens,
        prompts=tuple(options.prompts),
        history=options.history,
        context=options.context,
        text=options.text,
        text_tokens=options.text_tokens,
        precisions=tuple(options.precisions),
        onnx_precisions=tuple(options.onnx_precisions),
        quantized_values=options.quantized_values,
        work=options.work,
    )


def _listed(choices: Sequence[str]) -> Any:
    """A reader of NAME,NAME,... that refuses names which are none of `choices`."""

    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in choices]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(choices)}")
        return names

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    model = "a source with one bundle of it (or a .gguf file); may be repeated, also with the same source"
    add("--model", action="append", required=True, metavar="SOURCE=BUNDLE", help=model)
    folder = "a folder of onnxruntime-genai, NAME beginning with its precision; by default made from the source"
    add("--genai", action="append", type=_genai, default=[], metavar="SOURCE:NAME=FOLDER", help=folder)
    add("--stages", type=_listed(tuple(STAGES)), default=list(STAGES), metavar="STAGE,...", help=", ".join(STAGES))
    add("--threads", type=int, default=2)
    add("--repetitions", type=int, default=7, help="rounds that count (default %(default)s)")
    add("--rest", type=float, default=0.3, help="seconds of pause before each measurement (default %(default)s)")
    add("--tokens", type=int, default=96, help="of an answer (default %(default)s)")
    add("--prompts", type=int, nargs="+", default=[256, 900], metavar="TOKENS", help="lengths of the prompts")
    add("--history", type=int, default=900, help="tokens before the second turn (default %(default)s)")
    add("--context", type=int, default=4096)
    add("--text", type=Path, help="text that the loss is measured on (default: the built-in set)")
    add("--text-tokens", type=int, default=2048, help="of it, at most (default %(default)s)")
    gguf, onnx = _listed(PRECISIONS), _listed(("fp32", "fp16", *ONNX_PRECISIONS))
    add("--precisions", type=gguf, default=list(PRECISIONS), metavar="NAME,...", help="of GGUF, for kl")
    add("--onnx-precisions", type=onnx, default=list(ONNX_PRECISIONS), metavar="NAME,...", help="of ONNX, for kl")
    values = "weights of each tensor that the quantizers are compared on; 0 for all (default %(default)s)"
    add("--quantized-values", type=int, default=1 << 16, help=values)
    add("--work", type=Path, default=Path("build/benchmarks"), help="peers' files are made here once")
    more = "keep the stages that are in the output, of the same machine and settings: a long run in parts"
    add("--add", action="store_true", help=more)
    add("--output", type=Path, default=Path(__file__).parent / "results" / "chat", help="without suffix")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
