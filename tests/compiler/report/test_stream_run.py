from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from sottovoce.errors import AudioError, InputError
from sottovoce.streaming.events import Event
from sottovoce.streaming.options import StreamOptions
from sottovoce_compiler.report import stream_run
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.stream_clock import Samples, no_time
from sottovoce_compiler.report.stream_run import beginning, compiled_stream, evaluate_stream, settings_from

from .report_case import dataset
from .stream_case import OFFLINE, clip, committed, silence

OWN = {"step": 0.9, "hold_back": 0.8}  # the bundle's settings


class Scripted:
    """A transcriber that says the same of everything, and notes what it was asked."""

    asked: ClassVar[list[dict[str, Any]]] = []
    languages = ("en", "de")

    def __init__(self, bundle: str | Path, threads: int | None = None) -> None:
        self.open = 0

    def stream_options(self, **settings: Any) -> StreamOptions:
        return StreamOptions(**{**OWN, **settings})

    def close(self) -> None:
        assert self.open == 0, "a session was left open"

    def session(self, **settings: Any) -> "Scripted":
        Scripted.asked.append(settings)
        self.open += 1
        return _Session(self)  # type: ignore[return-value]

    def transcribe(self, path: Path, **options: Any) -> tuple[Iterator[Any], None]:
        Scripted.asked.append(options)
        words = [SimpleNamespace(word=word, end=end) for word, end in OFFLINE.ends]
        return iter([SimpleNamespace(text=OFFLINE.text, words=words)]), None


class _Session:
    steps = 6

    def __init__(self, owner: Scripted) -> None:
        self._owner = owner

    def push(self, chunk: Samples) -> Iterator[Event]:
        return iter(())

    def finish(self) -> Iterator[Event]:
        yield committed(" And so, my")

    def close(self) -> None:
        self._owner.open -= 1


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path) -> np.ndarray:
        if path.name == "broken":
            raise AudioError("it is broken")
        return silence(4.0)

    Scripted.asked = []
    monkeypatch.setattr(stream_run.sottovoce, "Transcriber", Scripted)
    monkeypatch.setattr(stream_run, "load_audio", load)


def test_a_clip_is_streamed_and_transcribed_in_its_language_with_the_settings(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("a", "und so", "de", 4.0), ("b", "and so", "xx", 4.0))
    evaluate_stream("x.svb", data, {"step": 0.7}, charged=False)
    assert [asked["language"] for asked in Scripted.asked] == ["de", None, "de", None]
    assert Scripted.asked[0]["clock"] is no_time
    assert (Scripted.asked[0]["step"], Scripted.asked[0]["hold_back"]) == (0.7, OWN["hold_back"])
    assert Scripted.asked[2]["word_timestamps"] is True


def test_both_sides_are_scored_and_the_settings_recorded(tmp_path: Path) -> None:
    card = evaluate_stream("x.svb", dataset(tmp_path, ("a", "and so my fellow", "en", 4.0)), threads=2)
    found = card.to_json()
    assert (found["wer"], found["offline_wer"], found["threads"]) == (0.25, 0.0, 2)
    assert found["settings"].items() >= OWN.items() and "language" not in found["settings"]
    assert found["word_ends"]["matched"] == 3 and found["decodings_per_s"] == 1.5


def test_a_clip_that_fails_is_listed_and_the_others_are_measured(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("broken", "and", "en", 4.0), ("b", "and so my fellow", "en", 4.0))
    card = evaluate_stream("x.svb", data)
    assert [(failure.clip.name, failure.error) for failure in card.failures] == [("broken", "it is broken")]
    assert [one.clip.name for one in card.clips] == ["b"]


def test_a_gate_is_told_of_a_clip_that_fails_once_and_compares_the_others(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("broken", "and", "en", 4.0), ("b", "and so my fellow", "en", 4.0))
    card = compiled_stream(Path("x.svb"), data)
    offline, streamed = card.evaluations
    assert (offline.scores.wer, streamed.scores.wer) == (0.0, 0.25)
    assert offline.failures == () and [one.error for one in streamed.failures] == ["it is broken"]
    assert offline.dataset_sha256 == streamed.dataset_sha256 == data.sha256


def test_two_reports_of_a_compile_are_the_same_and_a_charged_one_names_the_machine(tmp_path: Path) -> None:
    data = dataset(tmp_path, ("a", "and so my fellow", "en", 4.0))
    first, second = (compiled_stream(Path("x.svb"), data).to_json() for _ in range(2))
    assert first == second and first["compute"] == "not charged"
    charged = compiled_stream(Path("x.svb"), data, charged=True).to_json()
    assert charged["machine"]["cores"] >= 1 and charged["peak_mb"] is None


def test_a_compile_measures_the_beginning_of_the_data_in_whole_clips() -> None:
    def kept(*seconds: float) -> list[str]:
        clips: list[Clip] = [clip(f"{number}", "x", seconds=long) for number, long in enumerate(seconds)]
        silent = [clip(f"n{number}", "", seconds=40.0, kind="noise") for number in range(2)]
        return [one.name for one in beginning(Dataset("case", (*clips, *silent))).clips]

    assert kept(60.0, 70.0, 50.0) == ["0", "2", "n0"]
    assert kept(700.0, 600.0) == ["n0", "1"], "one clip of speech there must be"


def test_settings_are_read_as_what_they_are() -> None:
    settings = settings_from(["step=0.5", "hold-back = 1", "partials=false", "initial_prompt=Ada, Grace"])
    assert settings == {"step": 0.5, "hold_back": 1.0, "partials": False, "initial_prompt": "Ada, Grace"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps=1", "NAME one of task, step"),
        ("step", "expected NAME=VALUE"),
        ("step=fast", "'fast' is not a number"),
        ("partials=1", "neither true nor false"),
        ("language=de", "in its language in the data"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"--set {text}: .*{said}"):
        settings_from([text])


def test_a_setting_out_of_its_range_is_refused_before_anything_is_streamed() -> None:
    with pytest.raises(InputError, match="step = 99"):
        settings_from(["step=99"])
