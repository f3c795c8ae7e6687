"""LoRA training on a CPU: ours, packed, beside transformers and PEFT, padded; tokens a core-second and peak memory.

    python benchmarks/finetune.py
    python benchmarks/finetune.py --model smollm2-folder --data lines.jsonl

Both systems train the same weights on the same examples in the same steps, in fresh processes that take turns.
README.md beside this file says how each figure is measured.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
from finetune_systems import ALPHA, IGNORED, RANK, SYSTEMS, Job, Run, Step
from table import ground

Json = dict[str, Any]

OURS, PEFT = SYSTEMS
BATCH = 8
# What 175 instructions of people with their answers measured with SmolLM2's tokenizer: median 93 tokens, spread of the
# logarithm 0.71, from 25 to 1,388.
MEDIAN, SPREAD, SHORTEST = 93, 0.71, 16
# SmolLM2-135M's shape.
SHAPE = {
    **{"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "max_position_embeddings": 8192,
}
AIMS = {"tokens a core-second": 2.5, "peak memory": 0.7}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    model: Path | None
    data: Path | None
    steps: int
    uncounted: int
    repetitions: int
    threads: int
    seed: int
    longest: int
    work: Path
    output: Path
    add: bool


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; the result is written at the end."""
    plan = _plan(arguments)
    described = machine.describe()  # before anything of ours keeps the machine busy
    with tempfile.TemporaryDirectory(dir=plan.work) as work:
        model = plan.model or _random_model(Path(work) / "model", plan.seed)
        data = _from_lines(plan, model) if plan.data else _from_lengths(plan)
        settings = _settings(plan, data)
        runs = _earlier(plan, settings)
        for number in range(plan.repetitions):
            for name in SYSTEMS:
                job = Job(name, model, data, plan.uncounted, plan.threads)
                runs[name].append(_in_fresh_process(job, Path(work) / "job.json"))
                _say(f"repetition {number + 1}, {name}: {runs[name][-1].tokens_per_core_second:.1f} tokens/core-s")
    result = {
        "date": machine.today(),
        "command": machine.command_line("benchmarks/finetune.py", arguments),
        "machine": described,
        "threads": plan.threads,
        "settings": settings,
        "figures": figures(runs),
        "runs": {name: [asdict(run) for run in found] for name, found in runs.items()},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    plan.output.parent.mkdir(parents=True, exist_ok=True)
    plan.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plan.output.with_suffix(".md").write_text(render(result), encoding="utf-8")
    print(render(result))
    return 0


def _earlier(plan: Plan, settings: Json) -> dict[str, list[Run]]:
    """The repetitions of the result that `--add` adds to."""
    if not plan.add:
        return {name: [] for name in SYSTEMS}
    result = json.loads(plan.output.with_suffix(".json").read_text(encoding="utf-8"))
    if (result["settings"], result["threads"]) != (settings, plan.threads):
        raise SystemExit(f"{plan.output.with_suffix('.json')} has other settings; repetitions of one result are alike")
    return {name: [Run(**run) for run in result["runs"][name]] for name in SYSTEMS}


def figures(runs: dict[str, list[Run]]) -> Json:
    """Medians, and the median of the repetitions' ratios of ours to the peer's."""
    found: Json = {}
    for name, each in runs.items():
        found[name] = {
            "tokens_per_core_s": statistics.median(run.tokens_per_core_second for run in each),
            "tokens_per_s": statistics.median(run.tokens / run.wall_s for run in each),
            "loaded_mb": statistics.median(run.loaded_mb for run in each),
            "peak_mb": statistics.median(run.peak_mb for run in each),
        }
    pairs = list(zip(runs[OURS], runs[PEFT], strict=True))
    found["ratios"] = {
        "tokens a core-second": statistics.median(
            a.tokens_per_core_second / b.tokens_per_core_second for a, b in pairs
        ),
        "tokens a second": statistics.median((a.tokens / a.wall_s) / (b.tokens / b.wall_s) for a, b in pairs),
        "peak memory": statistics.median(a.peak_mb / b.peak_mb for a, b in pairs),
    }
    apart = [abs(a - b) for one, other in pairs for a, b in zip(one.losses, other.losses, strict=True)]
    found["losses_apart"] = max(apart)
    return found


def render(result: Json) -> str:
    """The page."""
    found = result["figures"]
    described = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result["settings"].items())
    rows = [
        f"| {name} | {one['tokens_per_core_s']:.1f} | {one['tokens_per_s']:.1f} | {one['loaded_mb']:.0f} "
        f"| {one['peak_mb']:.0f} |"
        for name, one in found.items()
        if name in SYSTEMS
    ]
    ratios = found["ratios"]
    lines = [
        *ground("LoRA training on a CPU", result),
        f"Medians of {len(result['runs'][OURS])} fresh processes a system, taking turns; {described}. Tokens are those "
        "of the examples: padding is none. A core-second is one of user or system time, of all threads.",
        "",
        "| | tokens a core-second | tokens a second | MB once loaded | peak MB |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Memory is resident and above what imported libraries hold.",
        "",
        "| ours / theirs | aim | |",
        "|---|---|---|",
        f"| tokens a core-second | at least {AIMS['tokens a core-second']} | {ratios['tokens a core-second']:.2f} |",
        f"| peak memory | at most {AIMS['peak memory']} | {ratios['peak memory']:.2f} |",
        f"| tokens a second | | {ratios['tokens a second']:.2f} |",
        "",
        f"Largest difference of a step's mean loss between the two, same weights and examples: "
        f"{found['losses_apart']:.4f} nats.",
        "",
        f"Versions: {', '.join(f'{name} {number}' for name, number in result['versions'].items())}.",
        "",
    ]
    return "\n".join(lines)


def _settings(plan: Plan, data: list[Step]) -> Json:
    counted = data[plan.uncounted :]
    tokens = sum(len(one) for step in counted for one, _ in step)
    padded = sum(len(step) * max(len(one) for one, _ in step) for step in counted)
    return {
        "examples_a_step": BATCH,
        "steps_counted": len(counted),
        "tokens": tokens,
        "learned": sum(label != IGNORED for step in counted for _, one in step for label in one[1:]),
        "share_of_a_padded_batch": round(tokens / padded, 3),
        "rank": RANK,
        "alpha": ALPHA,
        "dtype": "bfloat16",
        "lengths": plan.data.name if plan.data else f"lognormal, median {MEDIAN}, spread {SPREAD}",
        "longest": plan.longest,
        "seed": plan.seed,
    }


def _from_lengths(plan: Plan) -> list[Step]:
    """Random tokens, lengths drawn from a lognormal distribution; all are learned, as in plain text."""
    drawn = random.Random(plan.seed)

    def example() -> tuple[list[int], list[int]]:
        length = min(max(round(MEDIAN * math.exp(SPREAD * drawn.gauss(0, 1))), SHORTEST), plan.longest)
        tokens = [drawn.randrange(SHAPE["vocab_size"]) for _ in range(length)]
        return tokens, tokens

    return [[example() for _ in range(BATCH)] for _ in range(plan.steps + plan.uncounted)]


def _from_lines(plan: Plan, model: Path) -> list[Step]:
    """Real lines as `sottovoce finetune` reads them, in random order; what is not an answer is not learned."""
    from sottovoce_compiler.finetune.data.dataset import TextData, TextOptions
    from sottovoce_compiler.sources import resolve

    assert plan.data is not None
    examples = list(
        TextData.load(plan.data, resolve(str(model)), TextOptions(overflow="cut", max_tokens=plan.longest)).train
    )
    random.Random(plan.seed).shuffle(examples)
    needed = BATCH * (plan.steps + plan.uncounted)
    if len(examples) < needed:
        raise SystemExit(f"{plan.data} has {len(examples)} examples; {needed} are needed, or fewer --steps")
    pairs = [
        (
            one.ids.tolist(),
            [i if learned else IGNORED for i, learned in zip(one.ids.tolist(), one.learned, strict=True)],
        )
        for one in examples[:needed]
    ]
    return [pairs[begin : begin + BATCH] for begin in range(0, needed, BATCH)]


def _random_model(folder: Path, seed: int) -> Path:
    """A random Llama of `SHAPE` in bfloat16, as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.bfloat16().save_pretrained(folder)
    Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).save(str(folder / "tokenizer.json"))
    return folder


def _in_fresh_process(job: Job, file: Path) -> Run:
    file.write_text(job.to_json())
    script = str(Path(__file__).with_name("finetune_systems.py"))
    done = subprocess.run([sys.executable, script, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.system} failed in a fresh process: {done.stderr.strip().splitlines()[-1:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plan(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="a folder as transformers saves it; default: random, of 135M's shape"
    )
    parser.add_argument("--data", type=Path, help="lines of JSON whose lengths are used; default: a lognormal's")
    parser.add_argument("--steps", type=int, default=8, help="steps that count (default: %(default)s)")
    parser.add_argument("--uncounted", type=int, default=1, help="steps before those (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="processes a system (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, lengths and tokens (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=1024, help="tokens of an example (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=None, help="where 0.3 GB of weights are put meanwhile")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("results") / "finetune-cpu", help="file without suffix"
    )
    parser.add_argument("--add", action="store_true", help="add repetitions to the result that is there")
    options = vars(parser.parse_args(arguments))
    options["work"] = options["work"] or Path(tempfile.gettempdir())
    return Plan(**options)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
