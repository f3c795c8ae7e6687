"""Turns a result of chat.py (the JSON as a dict) into Markdown: a table a stage, then what was aimed at and came out.

Measures nothing; a stage that was not run has no table, and its aims no row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers.chat import CHAT_SYSTEMS, GENAI, OUR_ENGINE, OURS, RAW
from table import Goal, ground

Json = Mapping[str, Any]

EXACT_CACHE = "gguf fp32, cache in float32"
_SPEED_HEADING = [
    *("bundle, prompt", "", "prompt tokens/s", "tokens/s"),
    *("ours: prompt", "ours: tokens/s", "ours: a step", "ours: whole"),
]
# Precisions whose losses are compared: ONNX, and the GGUF of as many bits.
SAME_BITS = (("onnx int8", "gguf q8_0"), ("onnx int4", "gguf q4_k_m"))


def write(result: Json, stem: Path) -> None:
    """The JSON and the page, at `stem` with their suffixes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(render(result), encoding="utf-8")


def render(result: Json) -> str:
    """The whole page."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result["settings"].items())
    lines = [
        *ground("Chat", result),
        f"Medians of rounds in which systems take turns; a ratio is the median of the rounds' ratios. {settings}.",
    ]
    for name, model in result["models"].items():
        lines += ["", f"## {name}", *_model(model)]
    return "\n".join([*lines, ""])


def _model(model: Json) -> list[str]:
    lines: list[str] = []
    for title, rows in (
        ("Tokens a second", [_SPEED_HEADING, *_speed(model, "loop"), *_speed(model, "onnx")]),
        ("First token of a second turn", _turns(model)),
        ("Held to a schema", _constrained(model)),
        ("Prompt lookup", _lookup(model)),
        ("Load and memory", _memory(model)),
        ("Loss against the source", _losses(model)),
        ("Quantizers beside ggml's", _quantizers(model)),
        ("Compile", _compile(model)),
        ("Aims", _goals_rows(model)),
        ("Versions", _versions(model)),
    ):
        lines += ["", f"### {title}", "", *_table(rows)] if len(rows) > 1 else []
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first row is the heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def _title(system: str) -> str:
    name, _, more = system.partition(" ")
    return f"{CHAT_SYSTEMS[name].title} {more}".strip()


def _of(model: Json, stage: str) -> Iterator[tuple[str, Json]]:
    """Every bundle that has figures of a stage."""
    for name, bundle in model["bundles"].items():
        if stage in bundle and "left_out" not in bundle[stage]:
            yield name, bundle[stage]


def _cases(found: Json) -> Iterator[tuple[str, Json]]:
    for case, systems in found.items():
        if case not in ("systems", "openings", "chat"):
            yield case, systems


def _speed(model: Json, stage: str) -> list[list[str]]:
    rows: list[list[str]] = []
    for bundle, found in _of(model, stage):
        for case, systems in _cases(found):
            for system, one in systems.items():
                rates = [f"{one['prompt_tokens_per_s']:.0f}", f"{one['tokens_per_s']:.1f}"]
                rows.append([f"{bundle}, {case}", _title(system), *rates, *_ratios(one.get("ours_against"))])
        if "chat" in found:
            one = found["chat"]
            rates = [f"{one['prompt_tokens_per_s']:.0f}", f"{one['tokens_per_s']:.1f}"]
            rows.append([f"{bundle}, chat against its engine", _title(OURS), *rates, *_ratios(one["against_engine"])])
    return rows


def _ratios(found: Json | None) -> list[str]:
    kinds = ("prompt", "generation", "step", "whole")
    return [f"{found[key]:.3f}x" if found is not None and key in found else "" for key in kinds]


def _turns(model: Json) -> list[list[str]]:
    rows = [
        ["bundle", "prompt tokens", "cold, ms", "second turn, ms", "reloaded, ms", "model's load, ms", "session, MB"]
    ]
    for bundle, one in _of(model, "turn"):
        warm = f"{1e3 * one['warm_s']:.1f} ({one['warm_sooner']:.0f}x sooner)"
        reloaded = f"{1e3 * one['reloaded_s']:.1f} ({one['reloaded_sooner']:.1f}x sooner)"
        sizes = [f"{1e3 * one['load_model_s']:.0f}", f"{one['session_bytes'] / 1e6:.1f}"]
        rows.append([bundle, str(one["prompt_tokens"]), f"{1e3 * one['cold_s']:.0f}", warm, reloaded, *sizes])
    return rows


def _constrained(model: Json) -> list[list[str]]:
    rows = [["bundle, schema", "tokens", "free, tokens/s", "held, tokens/s", "against free", "grammar made in, ms"]]
    for bundle, found in _of(model, "constrained"):
        for name, one in found.items():
            rates = [f"{one['free_tokens_per_s']:.1f}", f"{one['constrained_tokens_per_s']:.1f}"]
            made = f"{1e3 * one['grammar_s']:.0f}" if "grammar_s" in one else ""
            rows.append([f"{bundle}, {name}", str(one["tokens"]), *rates, f"{one['against_free']:.3f}x", made])
    return rows


def _lookup(model: Json) -> list[list[str]]:
    rows = [["bundle, task", "tokens", "off, tokens/s", "on, tokens/s", "on against off", "same text"]]
    for bundle, found in _of(model, "lookup"):
        for task in ("copying", "normal"):
            one = found[task]
            rates = [f"{one['off_tokens_per_s']:.1f}", f"{one['on_tokens_per_s']:.1f}"]
            same = "yes" if one["same_text"] else "no"
            rows.append([f"{bundle}, {task}", str(one["tokens"]), *rates, f"{one['on_against_off']:.2f}x", same])
    return rows


def _memory(model: Json) -> list[list[str]]:
    rows = [["bundle", "", "load, ms", "peak above imports, MB", "without mapped files, MB"]]
    for bundle, found in _of(model, "memory"):
        for system, one in found.items():
            figures = [f"{1e3 * one['load_s']:.0f}", f"{one['peak_mb']:.0f}", f"{one['anonymous_mb']:.0f}"]
            rows.append([bundle, _title(system), *figures])
    return rows


def _losses(model: Json) -> list[list[str]]:
    rows = [["precision", "KL, nats a token", "99th percentile", "perplexity", "same likeliest", "MB"]]
    for name, one in model.get("kl", {}).get("precisions", {}).items():
        perplexity = f"{one['perplexity']:.3f} (source {one['source_perplexity']:.3f})"
        size = f"{one['bytes'] / 1e6:.1f}" if "bytes" in one else ""
        rows.append([name, f"{one['kl']:.3g}", f"{one['kl_p99']:.3g}", perplexity, f"{one['top1']:.2%}", size])
    return rows


def _quantizers(model: Json) -> list[list[str]]:
    rows = [["type", "importance", "tensors", "bytes", "differing", "ours, s", "ggml's, s"]]
    for kind, ways in _quantized(model):
        for way, one in ways.items():
            counts = [str(one["tensors"]), str(one["bytes"]), str(one["differing"])]
            seconds = [f"{one['ours_s']:.2f}", f"{one['ggml_s']:.2f}"]
            rows.append([kind, "yes" if way == "importance" else "no", *counts, *seconds])
    return rows


def _quantized(model: Json) -> list[tuple[str, Json]]:
    return [(kind, ways) for kind, ways in model.get("quantize", {}).items() if kind != "tensors"]


def _compile(model: Json) -> list[list[str]]:
    rows = [["Q4_K_M", "whole process, s", "imports, s", "source, s", "lower and pack, s", "peak, MB"]]
    for name, one in model.get("compile", {}).items():
        seconds = [f"{one[key]:.1f}" for key in ("process_s", "import_s", "resolve_s", "lower_and_pack_s")]
        rows.append([name, *seconds, f"{one['peak_mb']:.0f}"])
    return rows


def _versions(model: Json) -> list[list[str]]:
    found = {"system": "versions"}
    for stage in ("loop", "onnx"):
        for _, one in _of(model, stage):
            for system, about in one["systems"].items():
                found[_title(system)] = ", ".join(f"{key} {value}" for key, value in about.items())
    return [[name, text] for name, text in found.items()]


def _goals_rows(model: Json) -> list[list[str]]:
    reached = {True: "reached", False: "not reached"}
    rows = [["aim", "at least", "measured", ""]]
    return rows + [[goal.what, goal.aim, goal.figure, reached[goal.margin >= 0]] for goal in goals(model)]


def goals(model: Json) -> list[Goal]:
    """What issue 4 asks for, of each stage that was run; where there are several figures, the worst counts."""
    return [
        *_at_least("tokens/s through Chat, against a bare llama.cpp loop", 0.97, _loop_ratios(model, "generation")),
        *_at_least("the same, by the median step", 0.97, _loop_ratios(model, "step")),
        *_at_least("prompt tokens/s through Chat, against the same", 0.97, _loop_ratios(model, "prompt")),
        *_at_least("our onnxruntime engine, tokens/s against onnxruntime-genai", 1.0, _genai(model, "generation")),
        *_at_least("the same, by the median step", 1.0, _genai(model, "step")),
        *_at_least("our onnxruntime engine, prompt against onnxruntime-genai", 1.0, _genai(model, "prompt")),
        *_at_least("first token of a second turn, sooner", 10, [t["warm_sooner"] for _, t in _of(model, "turn")]),
        *_at_least("first token after a reload, sooner", 10, [t["reloaded_sooner"] for _, t in _of(model, "turn")]),
        *_at_most(
            "bytes in which our quantizers differ from ggml's",
            0,
            [one["differing"] for _, ways in _quantized(model) for one in ways.values()],
        ),
        *_loss_goals(model),
        *_at_least(
            "held to a schema, against free",
            0.9,
            [one["against_free"] for _, found in _of(model, "constrained") for one in found.values()],
        ),
        *_at_most("compile to Q4_K_M without report, s", 60, _compile_seconds(model)),
    ]


def _loop_ratios(model: Json, part: str) -> list[float]:
    """Results of before steps were timed have none."""
    found = [systems[RAW]["ours_against"] for _, found in _of(model, "loop") for _, systems in _cases(found)]
    return [ratios[part] for ratios in found if part in ratios]


def _genai(model: Json, part: str) -> list[float]:
    """Against the build whose layers have our bits, where there is one."""
    ratios = []
    for _, found in _of(model, "onnx"):
        for _, systems in _cases(found):
            peers = [name for name in systems if name.startswith(GENAI)]
            same = [name for name in peers if "our mix" in name] or peers
            against = [systems[name]["ours_against"] for name in same if OUR_ENGINE in systems]
            ratios += [one[part] for one in against if part in one]
    return ratios


def _loss_goals(model: Json) -> list[Goal]:
    kl = {name: one["kl"] for name, one in model.get("kl", {}).get("precisions", {}).items()}
    goals = _at_most("KL of the F32 GGUF from the source", 1e-6, [kl[EXACT_CACHE]] if EXACT_CACHE in kl else [])
    for onnx, gguf in SAME_BITS:
        if onnx in kl and gguf in kl:
            goals += _at_most(f"KL of {onnx}, no more than {gguf}'s", kl[gguf], [kl[onnx]])
    return goals


def _compile_seconds(model: Json) -> list[float]:
    return [one["process_s"] for one in model.get("compile", {}).values()]


def _at_least(what: str, aim: float, found: Sequence[float]) -> list[Goal]:
    return [Goal(what, f"{aim:g}x", f"{min(found):.3f}x", min(found) - aim)] if found else []


def _at_most(what: str, aim: float, found: Sequence[float]) -> list[Goal]:
    return [Goal(what, f"<= {aim:.3g}", f"{max(found):.3g}", aim - max(found))] if found else []
