"""How well the compiler predicts memory: each bundle's plan beside what fresh processes take, alone and two together.

    python benchmarks/memory.py --work drafts                    all cases, minutes
    python benchmarks/memory.py --work drafts --cases 'whisper'  those whose name has a word; the rest stays as measured

Bundles are drafts: lowered and packed, not measured. Constants of the model were fitted to the cases that say so; all
others were held out. Writes results/memory.json and results/memory.md.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
from memory_cases import CASES, PAIRS, Case, draft, predicted
from memory_table import markdown

from sottovoce.bench import measure

RESULTS = Path(__file__).parent / "results"
VERSIONS = ("onnxruntime", "xllamacpp", "ai-edge-litert", "numpy", "tokenizers")


def main(arguments: Sequence[str]) -> None:
    """Measure the wanted cases, and write what is known of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="where drafts are made, and kept")
    parser.add_argument("--cases", default="", metavar="WORD", help="measure only cases whose name has this word")
    parser.add_argument("--predict", action="store_true", help="measure nothing: predict anew what was measured before")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.predict:
        record({"cases": predicted_anew()}, None)
        return
    command = None if given.cases and (RESULTS / "memory.json").exists() else arguments
    for case in CASES:
        if given.cases in case.name:
            record({"cases": {case.name: measured(case, given.work)}}, command)
    for first, second in PAIRS:
        name = f"{first} + {second}"
        if given.cases in name or given.cases == "pairs":
            record({"pairs": {name: together(first, second, given.work)}}, command)


def predicted_anew() -> dict[str, Any]:
    """What is known of all cases, with what the compiler predicts of them now."""
    known = json.loads((RESULTS / "memory.json").read_text())["cases"]
    for case in CASES:
        uses = known.get(case.name, {}).get("uses", {})
        plan = predicted(case) if uses else None
        if uses:
            known[case.name]["fitted"] = case.fitted
        for use in plan.uses if plan else ():
            if use.name in uses:
                uses[use.name]["predicted_mb"] = round(plan.peak(use) / 1e6, 1)
    return known


def record(found: Mapping[str, Any], arguments: Sequence[str] | None) -> None:
    """Add to what is known, and write it: a run that is cut short leaves what it has measured. `arguments` None where
    nothing or not all was measured: the command stays."""
    print(json.dumps(found), file=sys.stderr)
    file = RESULTS / "memory.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    order = [case.name for case in CASES]
    cases = {**known.get("cases", {}), **found.get("cases", {})}
    result = {
        "date": machine.today(),
        "command": known["command"] if arguments is None else machine.command_line("benchmarks/memory.py", arguments),
        "machine": dict(machine.describe()),
        "versions": {name: version(name) for name in VERSIONS},
        "cases": {name: cases[name] for name in order if name in cases},
        "pairs": {**known.get("pairs", {}), **found.get("pairs", {})},
    }
    file.write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "memory.md").write_text(markdown(result))


def measured(case: Case, work: Path) -> dict[str, Any]:
    """Predicted and measured MB above the imports for each use of one bundle."""
    bundle, plan = draft(case, work), predicted(case)
    uses = {}
    for use, kind in zip(plan.uses, case.kinds, strict=True):
        if not kind:
            continue
        if kind == "bench":  # the figure that `sottovoce bench` prints
            took = measure(bundle, work / "short.wav" if case.is_speech else None, runs=1).peak_mb
        else:
            took = in_child([(bundle, case.context, kind)], work)["peak_mb"]
        uses[use.name] = {"predicted_mb": round(plan.peak(use) / 1e6, 1), "measured_mb": took}
    return {"fitted": case.fitted, "bundle_mb": round(bundle.stat().st_size / 1e6, 1), "uses": uses}


def together(first: str, second: str, work: Path) -> dict[str, float]:
    """Two bundles in one process, each used in the way that takes most of those it cannot do without."""
    from sottovoce_compiler.memory.fit import needed
    from sottovoce_compiler.memory.neighbour import Neighbour

    by_name = {case.name: case for case in CASES}
    one, other = by_name[first], by_name[second]
    plans = [predicted(case) for case in (one, other)]
    beside = Neighbour(second, plans[1].imported + plans[1].most, plans[1].imports)
    jobs = [(draft(case, work), case.context, "piece" if case.is_speech else case.kinds[-1]) for case in (one, other)]
    child = in_child(jobs, work)
    predicted_mb = round(needed(plans[0], beside) / 1e6, 1)
    return {"predicted_mb": predicted_mb, "measured_mb": round(child["peak_mb"] + child["imports_mb"], 1)}


def in_child(jobs: Sequence[tuple[Path, int | None, str]], work: Path) -> Mapping[str, float]:
    """What a fresh process takes that does these jobs, one after the other with all bundles loaded."""
    listed = [(str(bundle), context, kind) for bundle, context, kind in jobs]
    command = [sys.executable, str(Path(__file__).with_name("memory_use.py")), json.dumps([listed, str(work)])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{jobs}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
