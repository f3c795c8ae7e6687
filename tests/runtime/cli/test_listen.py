"""`sottovoce listen` with a transcriber that says what it was told to: sources, options, Ctrl-C."""

import io
import json
import os
import signal
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.runtime.cli.live_case import SPEECH, FakeTranscriber
from tests.runtime.wave_case import encode, tone, wave

import sottovoce
from sottovoce.cli import listen, main
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.events import Event
from sottovoce.streaming.options import StreamOptions
from sottovoce.streaming.sources.pipe import ENCODINGS

Capture = pytest.CaptureFixture[str]
TEXT = "Ask not what.\nAsk why.\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeTranscriber]:
    class Fake(FakeTranscriber):
        made: list[FakeTranscriber] = []  # noqa: RUF012

    monkeypatch.setitem(vars(sottovoce), "Transcriber", Fake)
    return Fake


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(body: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))

    return give


class FakeMicrophone:
    """One second of sound, a gap, then silence until it is stopped."""

    devices: list[Any] = []  # noqa: RUF012
    name = "USB Audio"

    def __init__(self, device: Any, notice: Any) -> None:
        self.devices.append(device)
        self.notice = notice
        self.stopped, self.closed = threading.Event(), False
        self._chunks = iter([AudioChunk(tone(1.0, 44_100)[:, None], 44_100), AudioGap(2.0)])

    def __iter__(self) -> "FakeMicrophone":
        return self

    def __next__(self) -> Any:
        chunk = next(self._chunks, None)
        if chunk is None:
            while not self.stopped.wait(0.01):
                pass
            raise StopIteration
        return chunk

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> type[FakeMicrophone]:
    monkeypatch.setattr(FakeMicrophone, "devices", [])
    monkeypatch.setattr("sottovoce.streaming.sources.microphone.Microphone", FakeMicrophone)
    return FakeMicrophone


def interrupt_soon() -> None:
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


def test_raw_samples_from_standard_input_become_lines(fake: Any, stdin: Any, capsys: Capture) -> None:
    stdin(encode(tone(1.0, 16_000), "i16"))
    assert main(["listen", "b.svb", "-"]) == 0
    assert tuple(capsys.readouterr()) == (TEXT, "")
    (transcriber,) = fake.made
    assert transcriber.path == "b.svb" and transcriber.options == {} and transcriber.log == ["load", "close"]
    np.testing.assert_allclose(transcriber.samples[:, 0], tone(1.0, 16_000), atol=2**-15)


def test_rate_channels_and_encoding_of_raw_samples_can_be_said(fake: Any, stdin: Any) -> None:
    spoken = np.stack([tone(0.5, 48_000), tone(0.5, 48_000, 880.0)], axis=1)
    stdin(encode(spoken, "f32"))
    assert main(["listen", "b.svb", "-", "--rate", "48000", "--channels", "2", "--encoding", "f32le"]) == 0
    assert fake.made[0].heard[0].sample_rate == 48_000
    np.testing.assert_array_equal(fake.made[0].samples, spoken)


def test_a_wav_header_says_it_better_than_the_options(fake: Any, stdin: Any) -> None:
    stdin(wave(tone(0.5, 8000), 8000))
    assert main(["listen", "b.svb", "-", "--rate", "48000"]) == 0
    assert fake.made[0].heard[0].sample_rate == 8000 and fake.made[0].samples.shape == (4000, 1)


def test_options_given_are_those_of_a_stream(fake: Any, stdin: Any) -> None:
    stdin(bytes(3200))
    arguments = ["--language", "de", "--task", "translate", "--end-of-speech", "1.5", "--step", "0.5"]
    arguments += ["--no-partials", "--initial-prompt", "Anna", "--threads", "3"]
    assert main(["listen", "b.svb", "-", *arguments]) == 0
    expected: dict[str, Any] = {"language": "de", "task": "translate", "end_of_speech": 1.5, "step": 0.5}
    expected |= {"partials": False, "initial_prompt": "Anna"}
    assert fake.made[0].options == expected and fake.made[0].threads == 3
    StreamOptions(**expected)


def test_json_is_a_line_for_each_event(fake: Any, stdin: Any, capsys: Capture) -> None:
    stdin(bytes(3200))
    assert main(["listen", "b.svb", "-", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SPEECH) and json.loads(lines[0])["event"] == "speech_started"


def test_words_are_printed_with_their_times(fake: Any, stdin: Any, capsys: Capture) -> None:
    stdin(bytes(3200))
    assert main(["listen", "b.svb", "-", "--words"]) == 0
    assert capsys.readouterr().out.startswith("0.50\t0.90\tAsk\n")


def test_ctrl_c_ends_the_microphone_with_everything_said_and_exit_code_0(
    fake: Any, microphone: Any, capsys: Capture
) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupt_soon()
    assert main(["listen", "b.svb"]) == 0
    assert tuple(capsys.readouterr()) == (TEXT, "sottovoce: 2.0 s of audio were lost at 0:01\n")
    assert signal.getsignal(signal.SIGINT) is before and fake.made[0].log == ["load", "close"]


def test_ctrl_c_ends_a_pipe_that_stays_open_too(fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdin", os.fdopen(reading, "r"))
    os.write(writing, bytes(3200))
    interrupt_soon()
    assert main(["listen", "b.svb", "-"]) == 0
    assert capsys.readouterr().out == TEXT and fake.made[0].seconds == 0.1
    os.close(writing)


def test_a_second_ctrl_c_does_not_wait(fake: Any, stdin: Any, capsys: Capture) -> None:
    def impatient(self: FakeTranscriber, chunks: Any) -> Any:
        yield from SPEECH[:4]
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        yield from SPEECH[4:]

    fake._events = impatient
    stdin(bytes(3200))
    assert main(["listen", "b.svb", "-"]) == 130
    assert capsys.readouterr().out == "Ask not\n"


@pytest.mark.parametrize(
    ("given", "expected"), [([], None), (["--device", "2"], 2), (["--device", "USB Audio"], "USB Audio")]
)
def test_the_microphone_is_chosen_by_number_or_name(
    given: list[str], expected: Any, fake: Any, microphone: Any
) -> None:
    interrupt_soon()
    assert main(["listen", "b.svb", *given]) == 0 and microphone.devices == [expected]


def test_on_a_terminal_there_is_a_level_and_the_name_of_the_microphone(
    fake: Any, microphone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    interrupt_soon()
    assert main(["listen", "b.svb"]) == 0
    assert "#######." in out.getvalue()  # a sine at half of full scale: -9 dB
    assert "microphone: USB Audio; Ctrl-C ends" in err.getvalue() and out.getvalue().endswith("\x1b[1G\x1b[K")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: BUNDLE"),
        (["b.svb", "talk.wav"], "talk.wav: listen takes the microphone"),
        (["b.svb", "--rate", "8000"], "--rate is for samples from standard input"),
        (["b.svb", "-", "--device", "1"], "--device and - "),
        (["b.svb", "-", "--rate", "7"], "a sample rate of 7 Hz; 1000 to 768000 Hz can be used"),
        (["b.svb", "-", "--channels", "0"], "0 channels; 1 to 1024 are possible"),
        (["b.svb", "-", "--encoding", "mp3"], "mp3"),
        (["b.svb", "-", "--step", "0"], "'0' is not a number of seconds above 0"),
        (["b.svb", "-", "--end-of-speech", "soon"], "'soon' is not a number"),
        (["b.svb", "-", "--language", "xx"], "no language 'xx'"),
        (["b.svb", "-"], "standard input: empty (0 bytes)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, fake: Any, stdin: Any, capsys: Capture
) -> None:
    fake.says = ()
    stdin(b"")
    assert main(["listen", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_a_terminal_as_standard_input_is_refused(fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert main(["listen", "b.svb", "-"]) == 2
    assert "arecord" in capsys.readouterr().err


def test_a_source_that_breaks_off_keeps_what_was_said(fake: Any, stdin: Any, capsys: Capture) -> None:
    class Breaking(FakeMicrophone):
        def __next__(self) -> Any:
            raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sottovoce.streaming.sources.microphone.Microphone", Breaking)
        assert main(["listen", "b.svb"]) == 1
    assert tuple(capsys.readouterr()) == (TEXT, "sottovoce: error: Input/output error\n")


def test_a_missing_extra_is_told_before_anything_is_loaded(
    fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for arguments in (["b.svb"], ["--list-devices"]):
        assert main(["listen", *arguments]) == 2
        assert "pip install 'sottovoce[mic]'" in capsys.readouterr().err
    assert fake.made == []


def test_devices_are_listed_without_a_bundle(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from sottovoce.streaming.sources import microphone

    found = [
        microphone.InputDevice(3, "USB Audio", 2, 44_100, True),
        microphone.InputDevice(11, "Line", 1, 8000, False),
    ]
    monkeypatch.setattr(microphone, "input_devices", lambda: found)
    assert main(["listen", "--list-devices"]) == 0
    assert capsys.readouterr().out == "*   3  USB Audio  (2 channels, 44100 Hz)\n   11  Line  (1 channel, 8000 Hz)\n"


def test_the_encodings_offered_are_those_that_are_read() -> None:
    assert tuple(ENCODINGS) == listen.ENCODINGS


def test_a_stream_that_never_speaks_prints_no_text_and_says_why(fake: Any, stdin: Any, capsys: Capture) -> None:
    said: tuple[Event, ...] = ()
    fake.says = said
    stdin(bytes(3200))
    assert main(["listen", "b.svb", "-"]) == 0
    assert tuple(capsys.readouterr()) == ("", "sottovoce: no speech was heard\n")
