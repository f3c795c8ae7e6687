"""Our stream beside LocalAgreement-2 over faster-whisper int8: delays, errors, work, an hour on end, a busy neighbour.

    python benchmarks/stream.py --data speech/manifest.jsonl \\
        --model whisper-base=whisper-base.svb --model whisper-tiny.en=whisper-tiny.en.svb

README.md beside this file says how each figure is measured.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
import silence
import soak
import stolen
import stream_table
import weights
from data import SAMPLE_RATE, Heard, Recordings
from peers import Samples
from peers.live import LIVE_SYSTEMS, OURS, LiveSystem, create_live
from word_ends import WordEnds, differences, summary, tokens_of, word_ends

from sottovoce_compiler.report.normalize import units
from sottovoce_compiler.report.score import count_errors
from sottovoce_compiler.report.stream import Machine, Offline, StreamClip, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import LiveRun, play
from sottovoce_compiler.report.stream_score import ends_of, text_of

STAGES = ("latency", "silence", "memory", "soak", "stolen")
LANGUAGE = "en"
WARMING_SECONDS = 3.0  # of the first clip, played and not counted
MEMORY_MINUTES = 2
STOLEN_SECONDS = 90.0  # of the long recording
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; `clips` are names in the manifest, or nothing for all read English and the long recording."""

    systems: tuple[str, ...]
    soak_systems: tuple[str, ...]
    stolen_systems: tuple[str, ...]
    stages: tuple[str, ...]
    clips: tuple[str, ...]
    threads: int
    soak_minutes: int
    rest_s: float
    manifest: Path


@dataclass(frozen=True, slots=True)
class Truth:
    """The recordings and when their words end."""

    clips: tuple[Heard, ...]
    ends: Mapping[str, WordEnds]

    def to_json(self) -> Json:
        """How many ends are trusted, and which words were left out."""
        left_out: dict[str, list[str]] = {}
        for heard in self.clips:
            for reason, words in self.ends[heard.clip.name].left_out.items():
                left_out.setdefault(reason, []).extend(words)
        trusted = sum(len(self.ends[heard.clip.name].words) for heard in self.clips)
        return {
            "clips": len(self.clips),
            "audio_s": sum(heard.samples.size for heard in self.clips) / SAMPLE_RATE,
            "words": trusted + sum(map(len, left_out.values())),
            "trusted": trusted,
            "left_out": left_out,
        }


@dataclass(frozen=True, slots=True)
class Bench:
    """One model's systems, loaded, with what they are run on."""

    plan: Plan
    model: weights.Model
    systems: Mapping[str, LiveSystem]
    recordings: Recordings
    truth: Truth
    ends_of_long: WordEnds | None

    def run(self) -> Json:
        """Every stage of the plan in order; the result is one model's part of the JSON."""
        result: Json = {"systems": {name: {"about": dict(s.describe())} for name, s in self.systems.items()}}
        for stage in self.plan.stages:
            print(f"{self.model.spec}: {stage}", file=sys.stderr, flush=True)
            found: Mapping[str, Json] = getattr(self, f"_{stage}")()
            for name, figures in found.items():
                part = result if name == "" else result["systems"][name]
                part[stage] = figures
        return result

    def _latency(self) -> Mapping[str, Json]:
        for name, system in self.systems.items():
            self._play(name, system, self.truth.clips[0].samples[: round(WARMING_SECONDS * SAMPLE_RATE)])
        runs: dict[str, list[LiveRun]] = {name: [] for name in self.systems}
        for heard in self.truth.clips:
            print(f"  {heard.clip.name}", file=sys.stderr, flush=True)
            for name, system in self.systems.items():
                runs[name].append(self._play(name, system, heard.samples))
        offline: dict[str, list[Offline]] = {}
        for name, system in self.systems.items():
            same = _offline_key(name)
            if same not in offline:
                print(f"  {name}, offline", file=sys.stderr, flush=True)
                offline[same] = [_offline(system, heard) for heard in self.truth.clips]
        return {name: self._scored(found, offline[_offline_key(name)]) for name, found in runs.items()}

    def _play(self, name: str, system: LiveSystem, samples: Samples) -> LiveRun:
        """Another system's threads may still be waiting in a loop, so there is a pause first."""
        time.sleep(self.plan.rest_s)
        return play(system.session(LANGUAGE), samples)

    def _scored(self, runs: Sequence[LiveRun], offline: Sequence[Offline]) -> Json:
        clips = [
            score_clip(heard.clip, run, Offline(whole.text, self.truth.ends[heard.clip.name].ends))
            for heard, run, whole in zip(self.truth.clips, runs, offline, strict=True)
        ]
        dataset = self.recordings.dataset
        facts = Machine({"cores": self.plan.threads}, self.plan.threads, None)
        card = StreamScorecard(dataset.name, dataset.sha256, tuple(clips), {}, facts, word_ends="forced alignment")
        found = card.to_json()
        for known in ("machine", "settings", "failures", "peak_mb", "dataset"):
            del found[known]
        cpu = sum(step.cpu for run in runs for step in run.steps)
        apart = [
            apart
            for heard, whole in zip(self.truth.clips, offline, strict=True)
            for apart in differences(self.truth.ends[heard.clip.name].ends, whole.ends, heard.clip.language)
        ]
        return {
            **found,
            "share_of_cores_overall": cpu / card.seconds / self.plan.threads,
            "offline_word_ends_less_alignment": _fields(summary(apart)),
            "clips": {clip.clip.name: _clip_json(clip) for clip in clips},
        }

    def _silence(self) -> Mapping[str, Json]:
        quiet = {"digital": silence.digital()}
        if (noise := silence.noise(self.recordings.non_speech(), silence.finds_speech)) is not None:
            quiet["noise"] = noise
        found: dict[str, Json] = {name: {} for name in self.systems}
        for kind, sound in quiet.items():
            for name, system in self.systems.items():
                print(f"  {kind}, {name}", file=sys.stderr, flush=True)
                run = self._play(name, system, sound.samples)
                share = sum(step.cpu for step in run.steps) / run.audio_seconds / self.plan.threads
                words = len(units(text_of(run.events), LANGUAGE))
                found[name][kind] = {"share_of_cores": share, "words": words, "rtf": run.wall_seconds / silence.SECONDS}
            if OURS in found:
                paced = stolen.play_paced(self.systems[OURS].session(LANGUAGE), sound.samples)
                share = paced.cpu_seconds / paced.seconds / self.plan.threads
                found[OURS][kind]["share_of_cores_in_real_time"] = share
        about = {kind: {"clips": sound.clips, "left_out": sound.left_out} for kind, sound in quiet.items()}
        return found | {"": about}

    def _memory(self) -> Mapping[str, Json]:
        return {name: self._soaked(name, MEMORY_MINUTES) for name in self.systems}

    def _soak(self) -> Mapping[str, Json]:
        names = [name for name in self.systems if name in self.plan.soak_systems]
        return {name: self._soaked(name, self.plan.soak_minutes) for name in names}

    def _soaked(self, name: str, minutes: int) -> Json:
        print(f"  {name}", file=sys.stderr, flush=True)
        job = soak.Job(name, self.model.artifacts, self.plan.threads, self.plan.manifest, minutes)
        return dict(soak.measure(job).to_json())

    def _stolen(self) -> Mapping[str, Json]:
        long = self.recordings.long()
        if self.ends_of_long is None:
            raise LookupError("no word ends of the long recording")
        seconds, count = self.ends_of_long.pause_before(STOLEN_SECONDS)
        samples = long.samples[: round(seconds * SAMPLE_RATE)]
        reference = " ".join(tokens_of(long.clip.text)[:count])
        found: dict[str, Json] = {}
        for name in (name for name in self.systems if name in self.plan.stolen_systems):
            print(f"  {name}", file=sys.stderr, flush=True)
            alone, disturbed = (
                stolen.play_paced(self.systems[name].session(LANGUAGE), samples, theft)
                for theft in (None, stolen.Theft())
            )
            found[name] = {
                "undisturbed": self._paced_json(alone, {"reference": reference}),
                "disturbed": self._paced_json(
                    disturbed, {"reference": reference, "undisturbed": text_of(alone.events)}
                ),
            }
        return found

    def _paced_json(self, run: stolen.PacedRun, truths: Mapping[str, str]) -> Json:
        said = text_of(run.events)
        errors = {name: count_errors(text, said, LANGUAGE) for name, text in truths.items()}
        against = {f"errors_against_{name}": {**asdict(c), "rate": c.rate} for name, c in errors.items()}
        return {**run.to_json(self.plan.threads), **against, "text": said}


def _offline(system: LiveSystem, heard: Heard) -> Offline:
    text, words = system.transcribe(heard.samples, LANGUAGE)
    return Offline(text, ends_of(words))


def _offline_key(name: str) -> str:
    """The same for systems that differ in their steps alone: offline there are none."""
    entry = LIVE_SYSTEMS[name]
    return f"{entry.module} {sorted((key, value) for key, value in entry.options.items() if key != 'step')}"


def _clip_json(clip: StreamClip) -> Json:
    """Both texts, and each timed word as word, end, first shown, committed."""
    words = [f"{w.word} {w.end:.2f} {w.shown:.2f} {w.committed:.2f}" for w in clip.score.timings]
    texts = {"streamed": clip.streamed.hypothesis.text, "offline": clip.offline.hypothesis.text}
    return {**texts, "words": "; ".join(words), "max_lag_s": round(clip.run.max_lag, 3)}


def _fields(found: Any) -> Json | None:
    return None if found is None else {key: round(value, 4) for key, value in asdict(found).items()}


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; 2 for a fault in it, before anything long has begun."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    unbundled = [spec for spec, bundle in options.model if bundle is None]
    if OURS in plan.systems and unbundled:
        wanted = f"write --model {unbundled[0]}=FILE.svb, or leave {OURS} out"
        print(f"no bundle for {unbundled[0]}: {wanted}", file=sys.stderr)
        return 2
    recordings = Recordings(options.data)
    truth, ends_of_long = _truth(plan, recordings, options.work / "word-ends.json")
    result: Json = {
        "date": machine.today(),
        "command": machine.command_line("benchmarks/stream.py", arguments),
        "machine": machine.describe(),
        "threads": plan.threads,
        "data": {"manifest": recordings.dataset.name, "sha256": recordings.dataset.sha256},
        "word_ends": truth.to_json(),
        "models": {},
    }
    for spec, bundle in options.model:
        # Their names in `weights` are those of transcribe.py; what counts is which formats they read.
        formats = {LIVE_SYSTEMS[name].format for name in plan.systems}
        wanted_formats = tuple(name for name, kind in (("faster-whisper", "ct2"), (OURS, "bundle")) if kind in formats)
        model = weights.prepare(spec, wanted_formats, options.work, bundle)
        systems = {name: create_live(name, model.artifacts, plan.threads) for name in plan.systems}
        for system in systems.values():
            system.load()
        result["models"][spec] = Bench(plan, model, systems, recordings, truth, ends_of_long).run()
        stream_table.write(result, options.output)  # after each model: the run takes hours
    print(stream_table.render(result))
    return 0


def _truth(plan: Plan, recordings: Recordings, cache: Path) -> tuple[Truth, WordEnds | None]:
    """The clips of the plan with their word ends, and the ends of the long recording where a stage needs them."""
    chosen = [recordings.named(name) for name in plan.clips]
    clips = tuple(chosen or [*recordings.read_english(), recordings.long()])
    wanted = list(clips) if "latency" in plan.stages else []
    long = recordings.long() if "stolen" in plan.stages else None
    found = word_ends([*wanted, *([long] if long else [])], cache)
    counted = Truth(clips if wanted else (), found)
    return counted, found[long.clip.name] if long else None


def _plan(options: argparse.Namespace) -> Plan:
    systems = tuple(name for name in LIVE_SYSTEMS if name in options.systems)
    return Plan(
        systems=systems,
        soak_systems=tuple(options.soak_systems),
        stolen_systems=tuple(options.stolen_systems),
        stages=tuple(stage for stage in STAGES if stage in options.stages),
        clips=tuple(options.clips),
        threads=options.threads,
        soak_minutes=options.soak_minutes,
        rest_s=options.rest,
        manifest=options.data,
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
    systems = list(LIVE_SYSTEMS)
    names = {"metavar": "NAME,...", "type": _listed(systems)}
    add("--data", type=Path, required=True, help="manifest of the recordings, JSON lines")
    add(
        "--model",
        type=weights.source_and_bundle,
        action="append",
        required=True,
        metavar="SOURCE=BUNDLE",
        help="may be repeated; BUNDLE is ours",
    )
    add("--systems", default=systems, help=f"of: {', '.join(systems)}", **names)
    add("--soak-systems", default=[OURS], help="those that get the long soak (default: ours)", **names)
    add("--stolen-systems", default=[OURS], help="those that lose half of the processor (default: ours)", **names)
    add("--stages", type=_listed(STAGES), default=list(STAGES), metavar="STAGE,...", help=f"of: {', '.join(STAGES)}")
    add("--clips", nargs="+", default=[], metavar="NAME", help="only these, by their names in the manifest")
    add("--threads", type=int, default=2)
    add("--soak-minutes", type=int, default=60, help="of audio (default %(default)s)")
    add("--rest", type=float, default=0.5, help="seconds of pause before each stream (default %(default)s)")
    add(
        "--work",
        type=Path,
        default=Path("build/benchmarks"),
        help="peers' model files and word ends are made here once",
    )
    add("--output", type=Path, default=Path(__file__).parent / "results" / "stream", help="without suffix")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
