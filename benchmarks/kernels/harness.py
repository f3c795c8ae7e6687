"""Times implementations of one operation side by side, beside what the device's data sheet allows.

A benchmark is a module named after its operation that yields `Case`s and hands them to `main`. Knows clocks, rooflines
and pages; knows no operation.

    python benchmarks/kernels/rms_norm.py                   on the GPU that is there
    python benchmarks/kernels/rms_norm.py --device cpu      the path that a machine without one takes

Results of all operations on a device are one JSON and one page, `results/kernels-DEVICE`.
"""

import argparse
import json
import re
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))  # machine.py, where this script is run by its path

import machine

Run = Callable[[], object]
Json = Mapping[str, Any]

FACTS = Path(__file__).with_name("devices.toml")
RESULTS = Path(__file__).parents[1] / "results"
CACHE_BYTES = 256 * 2**20  # more than any GPU's L2: what is overwritten before each run, so that it begins cold
WARMUP = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One shape of the operation. `systems`: by name, one run of it each, ours first; `moved`: bytes that have to be
    read or written if nothing is read twice; `operations`: multiplications and additions; `dtype`: of the products."""

    name: str
    systems: Mapping[str, Run]
    moved: int
    operations: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Device:
    """Facts of a data sheet: bytes/s of its memory, operations/s by torch's name of the dtype."""

    name: str
    bandwidth: float
    peak: Mapping[str, float]

    def floor(self, case: Case) -> float:
        """Seconds below which the case cannot take: its bytes or its operations, what takes longer."""
        peak = self.peak[str(case.dtype).removeprefix("torch.")]
        return max(case.moved / self.bandwidth, case.operations / peak)


def device_facts(name: str, facts: Path = FACTS) -> Device | None:
    """The data sheet of the GPU that CUDA calls `name`; None where there is none."""
    for row in tomllib.loads(facts.read_text(encoding="utf-8"))["device"]:
        if all(word in name for word in row["match"]):
            return Device(row["name"], row["bandwidth"], row["peak"])
    return None


def saved_bytes(run: Run) -> int:
    """Bytes of all storages that the run keeps for its backward, its inputs included, each counted once."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storages.values())


def measure(case: Case, device: torch.device, repetitions: int) -> Mapping[str, Any]:
    """Seconds of every repetition of every system, systems taking turns, and the bytes that each keeps."""
    clock = _gpu_clock(device) if device.type == "cuda" else _cpu_clock
    for run in case.systems.values():
        for _ in range(WARMUP):
            run()
    kept = {name: saved_bytes(run) for name, run in case.systems.items()}
    seconds: dict[str, list[float]] = {name: [] for name in case.systems}
    for _ in range(repetitions):
        for name, run in case.systems.items():
            seconds[name].append(clock(run))
    systems = {
        name: {"median_s": statistics.median(taken), "min_s": min(taken), "seconds": taken, "saved_bytes": kept[name]}
        for name, taken in seconds.items()
    }
    dtype = str(case.dtype).removeprefix("torch.")
    return {"moved": case.moved, "operations": case.operations, "dtype": dtype, "systems": systems}


def _cpu_clock(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _gpu_clock(device: torch.device) -> Callable[[Run], float]:
    """A clock of the GPU's own; emptying the cache also keeps it busy while the first launches are queued."""
    scratch = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device)

    def clock(run: Run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        scratch.zero_()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return clock


def main(
    operation: str, cases: Callable[[torch.device], Iterator[Case]], arguments: Sequence[str] | None = None
) -> int:
    """The command line of a benchmark: measures, prints its table, and writes both into the device's results."""
    options = _parser(operation).parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"{operation}: needs a GPU and a torch built for CUDA; --device cpu measures the CPU's path", flush=True)
        return 2
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    measured = {}
    for case in cases(device):
        if options.only in case.name:
            measured[case.name] = measure(case, device, options.repetitions)
    command = machine.command_line(f"benchmarks/kernels/{operation}.py", sys.argv[1:])
    result = {"command": command, "date": machine.today(), "repetitions": options.repetitions, "cases": measured}
    print("\n".join(table(result, device_facts(name))))
    if not options.dry:
        write(RESULTS / f"kernels-{slug(name)}", name, operation, result)
    return 0


def _parser(operation: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{operation}.py", description=f"Times {operation} beside its alternatives.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repetitions", type=int, default=30, help="of each system (default: 30)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: 2)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument("--dry", action="store_true", help="print, and leave the results as they are")
    return parser


def slug(name: str) -> str:
    """A device's name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(stem: Path, device: str, operation: str, result: Json) -> None:
    """Puts one operation's result beside the others that were measured on this device, and writes the page anew."""
    file = stem.with_suffix(".json")
    whole = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"operations": {}}
    whole |= {"device": device, "machine": machine.describe(), "torch": torch.__version__}
    whole["operations"] = dict(sorted({**whole["operations"], operation: result}.items()))
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(page(whole), encoding="utf-8")


def page(whole: Json) -> str:
    """All operations of one device in Markdown."""
    facts, host = device_facts(whole["device"]), whole["machine"]
    name = f"{host['cpu']}, {host['cores']} cores" if whole["device"] == "cpu" else whole["device"]
    lines = [
        f"# Kernels on {name}",
        "",
        f"torch {whole['torch']}, {host['system']}. Medians of interleaved repetitions, forward and backward; in "
        "brackets the ratio to ours. Saved: what is kept for the backward, inputs included.",
    ]
    for operation, result in whole["operations"].items():
        lines += ["", f"## {operation}", "", f"    {result['command']}", "", *table(result, facts)]
    return "\n".join([*lines, ""])


def table(result: Json, facts: Device | None) -> list[str]:
    """One operation's cases; with the data sheet's facts also the roofline, and how much of it ours reaches."""
    rows = ["| | system | time | GB/s | Gop/s | saved |" + (" roofline | reached |" if facts else "")]
    rows.append("|---" * (8 if facts else 6) + "|")
    for name, case in result["cases"].items():
        ours = next(iter(case["systems"].values()))["median_s"]
        for at, (system, measured) in enumerate(case["systems"].items()):
            rows.append(
                _row(case, name if at == 0 else "", system, measured, ours) + _roof(name, case, measured, facts)
            )
    return rows


def _row(case: Json, name: str, system: str, measured: Json, ours: float) -> str:
    seconds = measured["median_s"]
    ratio = "" if seconds == ours else f" ({seconds / ours:.2f}x)"
    rates = f"{case['moved'] / seconds / 1e9:.1f} | {case['operations'] / seconds / 1e9:.0f}"
    return f"| {name} | {system} | {seconds * 1e6:.0f} us{ratio} | {rates} | {measured['saved_bytes'] / 1e6:.1f} MB |"


def _roof(name: str, case: Json, measured: Json, facts: Device | None) -> str:
    if facts is None:
        return ""
    of = Case(name, {}, case["moved"], case["operations"], getattr(torch, case["dtype"]))
    floor = facts.floor(of)
    return f" {floor * 1e6:.0f} us | {floor / measured['median_s']:.0%} |"


def forward_backward(function: Callable[..., Any], *inputs: Any) -> Run:
    """One step over `function`: its outputs, and with gradients of ones the gradients of all inputs that want one."""
    wanted = [value for value in inputs if isinstance(value, torch.Tensor) and value.requires_grad]

    def step(ones: dict[int, torch.Tensor]) -> object:
        result = function(*inputs)
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        for at, output in enumerate(outputs):
            if at not in ones:
                ones[at] = torch.ones_like(output)
        return torch.autograd.grad(outputs, wanted, [ones[at] for at in range(len(outputs))])

    return partial(step, {})
