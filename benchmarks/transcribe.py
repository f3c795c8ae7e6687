"""Ours beside faster-whisper, whisper.cpp and transformers: speed, memory, load, size and errors, in one run.

    python benchmarks/transcribe.py --data speech/manifest.jsonl \\
        --model whisper-base=whisper-base.svb --model whisper-tiny.en=whisper-tiny.en.svb

README.md beside this file says how each figure is measured.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import footprint
import machine
import quality
import table
import timing
import weights
from data import Recordings
from peers import OURS, SYSTEMS, BatchingSystem, System, create

STAGES = ("clip", "long", "parts", "footprint", "quality", "batch")
BATCH_CLIPS = 32
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; `repetitions` is for all but the long recording, `clip` a name in the manifest."""

    systems: tuple[str, ...]
    long_systems: tuple[str, ...]
    quality_systems: tuple[str, ...]
    stages: tuple[str, ...]
    clip: str
    threads: int
    repetitions: int
    long_repetitions: int
    rest_s: float


@dataclass(frozen=True, slots=True)
class Bench:
    """One model's systems, loaded, with what they are run on."""

    plan: Plan
    model: weights.Model
    systems: Mapping[str, System]
    recordings: Recordings

    def run(self) -> Json:
        """Every stage of the plan in order; the result is one model's part of the JSON."""
        result: Json = {"systems": {name: self._about(name) for name in self.systems}}
        for stage in self.plan.stages:
            print(f"{self.model.spec}: {stage}", file=sys.stderr, flush=True)
            found: Mapping[str, Json] | None = getattr(self, f"_{stage}")()
            for name, figures in (found or {}).items():
                part = result if name == "" else result["systems"][name]
                part |= figures
        return result

    def _about(self, name: str) -> Json:
        path = self.model.artifacts.need(SYSTEMS[name].format)
        return {"about": dict(self.systems[name].describe()), "bytes": footprint.bytes_on_disk(path)}

    def _only(self, names: Sequence[str]) -> Mapping[str, System]:
        return {name: system for name, system in self.systems.items() if name in names}

    def _clip(self) -> Mapping[str, Json]:
        samples = self.recordings.named(self.plan.clip).samples
        found = timing.time_clip(self.systems, samples, "en", self.plan.repetitions, self.plan.rest_s)
        return {name: {"clip": {**t.to_json(), "text": said.text}} for name, (t, said) in found.items()}

    def _long(self) -> Mapping[str, Json]:
        heard = self.recordings.long()
        chosen = self._only(self.plan.long_systems)
        repetitions = self.plan.long_repetitions
        found = timing.time_warm(chosen, heard.samples, "en", repetitions, self.plan.rest_s)
        scores = {name: quality.score_text(heard.clip, said.text) for name, (_, said) in found.items()}
        return {name: {"long": {**t.to_json(), "score": scores[name].to_json()}} for name, (t, _) in found.items()}

    def _parts(self) -> Mapping[str, Json]:
        samples = self.recordings.named(self.plan.clip).samples
        found = timing.time_parts(self.systems, samples, self.plan.repetitions, self.plan.rest_s)
        return {name: {"parts": asdict(parts)} for name, parts in found.items() if parts is not None}

    def _footprint(self) -> Mapping[str, Json]:
        audio = self.recordings.named(self.plan.clip).clip.file
        jobs = {n: footprint.Job(n, self.model.artifacts, self.plan.threads, audio) for n in self.systems}
        found = footprint.measure(jobs, self.plan.repetitions)
        return {name: {"footprint": asdict(figures)} for name, figures in found.items()}

    def _quality(self) -> Mapping[str, Json]:
        groups = {"english": self.recordings.read_english()}
        if self.model.multilingual:
            other = self.recordings.other_languages()
            groups |= {f"other {unit}": clips for unit, clips in quality.by_unit(other).items()}
        silent = self.recordings.non_speech()
        result: dict[str, Json] = {}
        for name, system in self._only(self.plan.quality_systems).items():
            print(f"  {name}", file=sys.stderr, flush=True)
            scores = {group: quality.score(system, clips).to_json() for group, clips in groups.items()}
            result[name] = {"scores": scores, "invented": quality.invented(system, silent).to_json()}
        return result

    def _batch(self) -> Mapping[str, Json] | None:
        ours = self.systems.get(OURS)
        if not isinstance(ours, BatchingSystem):
            return None
        clips = {heard.clip.name: heard.samples for heard in self.recordings.batch(BATCH_CLIPS)}
        found = timing.time_batches(ours, clips, self.plan.repetitions, self.plan.rest_s)
        return {"": {"batch": found.to_json()}}


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; 2 for a fault in it, before anything long has begun."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    unbundled = [spec for spec, bundle in options.model if bundle is None]
    if OURS in plan.systems and unbundled:
        print(
            f"no bundle for {unbundled[0]}: write --model {unbundled[0]}=FILE.svb, or leave {OURS} out",
            file=sys.stderr,
        )
        return 2
    recordings = Recordings(options.data)
    result: Json = {
        "date": machine.today(),
        "command": machine.command_line("benchmarks/transcribe.py", arguments),
        "machine": machine.describe(),
        "threads": plan.threads,
        "data": {"manifest": recordings.dataset.name, "sha256": recordings.dataset.sha256},
        "models": {},
    }
    for spec, bundle in options.model:
        model = weights.prepare(spec, plan.systems, options.work, bundle)
        systems = {name: create(name, model.artifacts, plan.threads) for name in plan.systems}
        for system in systems.values():
            system.load()
        result["models"][spec] = Bench(plan, model, systems, recordings).run()
    _write(result, options.output)
    return 0


def _write(result: Json, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    page = table.render(result)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def _plan(options: argparse.Namespace) -> Plan:
    systems = tuple(name for name in SYSTEMS if name in options.systems)
    return Plan(
        systems=systems,
        long_systems=tuple(options.long_systems or systems),
        quality_systems=tuple(options.quality_systems or systems),
        stages=tuple(stage for stage in STAGES if stage in options.stages),
        clip=options.clip,
        threads=options.threads,
        repetitions=options.repetitions,
        long_repetitions=options.long_repetitions,
        rest_s=options.rest,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="manifest of the recordings, JSON lines")
    add(
        "--model",
        type=weights.source_and_bundle,
        action="append",
        required=True,
        metavar="SOURCE=BUNDLE",
        help="may be repeated; BUNDLE is ours",
    )
    add(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=list(SYSTEMS),
        metavar="NAME",
        help=f"of: {', '.join(SYSTEMS)}",
    )
    add(
        "--long-systems",
        nargs="+",
        choices=SYSTEMS,
        metavar="NAME",
        help="those that also get the long recording",
    )
    add("--quality-systems", nargs="+", choices=SYSTEMS, metavar="NAME", help="those whose errors are counted")
    add(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=list(STAGES),
        metavar="STAGE",
        help=f"of: {', '.join(STAGES)}",
    )
    add("--clip", default="jfk.flac", help="the short clip, by its name in the manifest (default %(default)s)")
    add("--threads", type=int, default=2)
    add("--repetitions", type=int, default=7, help="of all but the long recording (default %(default)s)")
    add("--long-repetitions", type=int, default=3)
    add(
        "--rest",
        type=float,
        default=0.5,
        help="seconds of pause before each measurement (default %(default)s)",
    )
    add("--work", type=Path, default=Path("build/benchmarks"), help="peers' model files are made here once")
    add("--output", type=Path, default=Path(__file__).parent / "results" / "transcribe", help="without suffix")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
