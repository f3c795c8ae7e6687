"""Which words to settle when: the policies that were compared, on the same audio, compute not charged.

    python benchmarks/policies.py --data speech/manifest.jsonl --model whisper-tiny.en.svb

Everything but the policy is the runtime's: voice activity, window, forced settled words, steps. Word ends are those of
stream.py, told by none of the policies.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import machine
from data import Heard, Recordings
from word_ends import WordEnds, word_ends

import sottovoce
from sottovoce.streaming.listener import HeardWord
from sottovoce.streaming.policy import Policy, Settling, plain
from sottovoce_compiler.report.stream import Offline, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import no_time, play

LANGUAGE = "en"


@dataclass
class LocalAgreement:
    """Settles what the last `agreeing` hypotheses have in common (Liu et al. 2020; Macháček et al. 2023: two)."""

    agreeing: int
    _said: list[list[str]] = field(default_factory=list)

    def reset(self) -> None:
        self._said = []

    def add(self, words: Sequence[HeardWord]) -> None:
        self._said = [*self._said, [plain(one.word.word) for one in words]][-self.agreeing :]

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int:
        if len(self._said) < self.agreeing:
            return 0
        common = 0
        for said in zip(*self._said, strict=False):
            if len(set(said)) > 1:
                break
            common += 1
        return min(common, len(words))

    def settle(self, count: int) -> None:
        self._said = [said[count:] for said in self._said]


@dataclass
class AlignAtt:
    """Settles the words whose attention ends `distance` seconds before the newest audio (Papi et al. 2023)."""

    distance: float

    def reset(self) -> None: ...

    def add(self, words: Sequence[HeardWord]) -> None: ...

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int:
        for at, one in enumerate(words):
            if one.word.end > now - self.distance:
                return at
        return len(words)

    def settle(self, count: int) -> None: ...


@dataclass
class AtTheEnd:
    """Settles nothing until the speaker is silent, or the window is full: what the cutting alone costs."""

    def reset(self) -> None: ...

    def add(self, words: Sequence[HeardWord]) -> None: ...

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int:
        return 0

    def settle(self, count: int) -> None: ...


POLICIES: Mapping[str, Callable[[], Policy]] = {
    "at the end of speech": AtTheEnd,
    "LocalAgreement-2": lambda: LocalAgreement(2),
    "LocalAgreement-3": lambda: LocalAgreement(3),
    "AlignAtt, 0.5 s": lambda: AlignAtt(0.5),
    "AlignAtt, 1.0 s": lambda: AlignAtt(1.0),
    "ours, 0.2 s": lambda: Settling(0.2),
}
HEADS = ("policy", "errors", "commit mean", "p50", "p90", "p99", "first partial p50", "rewritten")


def main(arguments: Sequence[str]) -> int:
    """Prints one Markdown table a model, and writes it where it is asked to."""
    options = _parser().parse_args(arguments)
    recordings = Recordings(options.data)
    clips = [recordings.named(name) for name in options.clips] or [*recordings.read_english(), recordings.long()]
    ends = word_ends(clips, options.work / "word-ends.json")
    lines = [f"# Policies, compute not charged\n\n{json.dumps(machine.describe())}\n"]
    for bundle in options.model:
        lines += ["", *_table(bundle, clips, ends)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return 0


def _table(bundle: Path, clips: Sequence[Heard], ends: Mapping[str, WordEnds]) -> Iterator[str]:
    with closing(sottovoce.Transcriber(bundle, threads=2)) as transcriber:
        whole = {heard.clip.name: _offline(transcriber, heard) for heard in clips}
        cards = {name: _card(transcriber, make, clips, ends, whole) for name, make in POLICIES.items()}
    offline = next(iter(cards.values())).offline.words
    yield f"{bundle.name}: {offline.errors} errors of {offline.reference} words offline"
    yield ""
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{'---|' * len(HEADS)}"
    for name, card in cards.items():
        commit, shown = card.score.commit_delay, card.score.shown_delay
        assert commit is not None and shown is not None
        delays = [commit.mean, commit.p50, commit.p90, commit.p99, shown.p50, card.score.rewritten_per_word or 0.0]
        yield f"| {name} | {card.streamed.words.errors} | {' | '.join(f'{value:.2f}' for value in delays)} |"


def _card(
    transcriber: sottovoce.Transcriber,
    make: Callable[[], Policy],
    clips: Sequence[Heard],
    ends: Mapping[str, WordEnds],
    whole: Mapping[str, str],
) -> StreamScorecard:
    scored = []
    for heard in clips:
        session = transcriber.session(clock=no_time, policy=make(), language=LANGUAGE)
        run = play(session, heard.samples, clock=no_time)
        name = heard.clip.name
        scored.append(score_clip(heard.clip, run, Offline(whole[name], ends[name].ends)))
    return StreamScorecard("", "", tuple(scored), {}, None)


def _offline(transcriber: sottovoce.Transcriber, heard: Heard) -> str:
    segments, _ = transcriber.transcribe(heard.samples, language=LANGUAGE)
    return "".join(segment.text for segment in segments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="manifest of the recordings, JSON lines")
    add("--model", type=Path, action="append", required=True, metavar="BUNDLE", help="may be repeated")
    add("--clips", nargs="+", default=[], metavar="NAME", help="only these, by their names in the manifest")
    add("--work", type=Path, default=Path("build/benchmarks"), help="where word ends are kept")
    add("--output", type=Path, help="a Markdown file, beside the screen")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
