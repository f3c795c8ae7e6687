"""A microphone that is a script: one that vanishes, one that cannot do 16 kHz, and none at all."""

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sottovoce.errors import AudioError, InputError, MissingExtraError
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.sources.microphone import Microphone, input_devices


class FakePortAudio:
    """As much of the module sounddevice as is used: devices, and streams whose callback the test calls."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.devices = [
            {"name": "Speakers", "max_input_channels": 0, "default_samplerate": 48_000.0},
            {"name": "USB Audio", "max_input_channels": 2, "default_samplerate": 44_100.0},
            {"name": "Built-in", "max_input_channels": 1, "default_samplerate": 48_000.0},
        ]
        self.default: int | None = 1
        self.possible = {(16_000, 1)}
        self.streams: list[FakeStream] = []
        self.looks = 0
        self.broken = ""

    def query_devices(self, device: str | int | None = None, kind: str | None = None) -> Any:
        listed = [one | {"index": index} for index, one in enumerate(self.devices)]
        if kind is None:
            return listed
        chosen = self.default if device is None else device
        if isinstance(chosen, str):
            names = [str(one["name"]) for one in listed]
            if chosen not in names:
                raise ValueError(f"No input device matching {chosen!r}")
            chosen = names.index(chosen)
        if chosen is None or not 0 <= chosen < len(listed):
            raise self.PortAudioError(f"Error querying device {chosen if chosen is not None else -1}")
        if not listed[chosen]["max_input_channels"]:
            raise ValueError(f"Not an input device: {listed[chosen]['name']!r}")
        return listed[chosen]

    def check_input_settings(self, *, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if (samplerate, channels) not in self.possible:
            raise self.PortAudioError("Invalid sample rate", -9997)

    def InputStream(self, **settings: Any) -> "FakeStream":
        if self.broken:
            raise self.PortAudioError(self.broken, -9985)
        self.streams.append(FakeStream(settings))
        return self.streams[-1]

    def _terminate(self) -> None:
        self.looks += 1

    def _initialize(self) -> None:
        pass


class FakeStream:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.active, self.closed = False, False
        self.at = 0.0

    def start(self) -> None:
        self.active = True

    def close(self) -> None:
        self.active, self.closed = False, True

    def say(self, value: float, frames: int = 160, *, overflow: bool = False) -> None:
        """Calls back with a block of one value; the block's memory is used again afterwards."""
        block = np.full((frames, self.settings["channels"]), value, np.float32)
        times = SimpleNamespace(inputBufferAdcTime=self.at)
        self.settings["callback"](block, frames, times, SimpleNamespace(input_overflow=overflow))
        block[:] = np.nan
        self.at += frames / self.settings["samplerate"]


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def opened(portaudio: FakePortAudio, notices: list[str]) -> Iterator[Callable[..., Microphone]]:
    """Makes microphones, which are closed in the end, and gets their stream open with a first block of ones."""
    made: list[Microphone] = []

    def make(device: str | int | None = None, **options: Any) -> Microphone:
        made.append(Microphone(device, notice=notices.append, retry=0.01, **options))
        return made[-1]

    yield make
    for microphone in made:
        microphone.close()


def first(portaudio: FakePortAudio, microphone: Microphone) -> AudioChunk:
    """The first chunk: one block of ones, said as soon as there is a stream."""

    def say() -> None:
        while not (portaudio.streams and portaudio.streams[-1].active):
            pass
        portaudio.streams[-1].say(1.0)

    threading.Thread(target=say, daemon=True).start()
    chunk = next(microphone)
    assert isinstance(chunk, AudioChunk)
    return chunk


def test_nothing_is_opened_before_the_first_chunk_is_asked_for(portaudio: FakePortAudio, opened: Any) -> None:
    assert opened().name == "USB Audio" and portaudio.streams == []


def test_blocks_are_copied_and_come_as_one_chunk(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened()
    assert first(portaudio, microphone).samples.tolist() == [[1.0]] * 160
    portaudio.streams[0].say(2.0)
    portaudio.streams[0].say(3.0)
    chunk = next(microphone)
    assert chunk.sample_rate == 16_000 and chunk.samples[:, 0].tolist() == [2.0] * 160 + [3.0] * 160
    assert portaudio.streams[0].settings["device"] == 1


@pytest.mark.parametrize(
    ("possible", "rate", "channels"),
    [({(16_000, 1)}, 16_000, 1), ({(44_100, 1)}, 44_100, 1), (set(), 44_100, 2)],
)
def test_a_device_that_cannot_do_16_khz_mono_keeps_its_own_rate(
    portaudio: FakePortAudio, opened: Any, possible: set[tuple[int, int]], rate: int, channels: int
) -> None:
    portaudio.possible = possible
    chunk = first(portaudio, opened())
    assert (chunk.sample_rate, chunk.samples.shape) == (rate, (160, channels))


def test_an_overflow_of_the_device_is_a_gap_as_long_as_its_clock_says(portaudio: FakePortAudio, opened: Any) -> None:
    time = [0.0]
    microphone = opened(clock=lambda: time[0])
    first(portaudio, microphone)
    time[0] = 0.9
    portaudio.streams[0].at += 0.75
    portaudio.streams[0].say(2.0, overflow=True)
    assert next(microphone) == AudioGap(pytest.approx(0.75)) and len(next(microphone).samples) == 160


def test_an_overflow_on_a_clock_that_jumps_is_no_longer_than_time(portaudio: FakePortAudio, opened: Any) -> None:
    time = [0.0]
    microphone = opened(clock=lambda: time[0])
    first(portaudio, microphone)
    time[0] = 0.5
    portaudio.streams[0].at += 1e6
    portaudio.streams[0].say(2.0, overflow=True)
    assert next(microphone) == AudioGap(0.5)


def test_a_late_listener_is_told_how_much_was_dropped(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened(limit=1.0)
    first(portaudio, microphone)
    for value in range(30):
        portaudio.streams[0].say(float(value), 1600)
    assert next(microphone) == AudioGap(pytest.approx(2.0))
    assert sorted(set(next(microphone).samples[:, 0].tolist())) == list(range(20, 30))


@pytest.mark.parametrize("how", ["inactive", "silent"])
def test_a_microphone_that_vanishes_is_waited_for(
    portaudio: FakePortAudio, opened: Any, notices: list[str], how: str
) -> None:
    time = [0.0]
    microphone = opened("USB Audio", clock=lambda: time[0], stall=0.01 if how == "silent" else 100.0)
    first(portaudio, microphone)
    time[0] += 2.5
    portaudio.streams[0].active = how == "silent"
    gone = portaudio.devices.pop(1)
    assert next(microphone) == AudioGap(2.5)
    assert portaudio.streams[0].closed is False  # the gap is told before anything is tried
    time[0] += 1.0
    assert next(microphone) == AudioGap(1.0)
    assert portaudio.streams[0].closed and notices == ["microphone 'USB Audio' is gone; waiting for it to come back"]
    portaudio.devices.append(gone)  # in another place
    time[0] += 0.5
    assert next(microphone) == AudioGap(0.5)
    threading.Timer(0.05, lambda: portaudio.streams[-1].say(5.0)).start()
    chunk = next(microphone)
    assert chunk.samples[0, 0] == 5.0 and portaudio.streams[-1].settings["device"] == 2
    assert portaudio.looks == 2 and notices[1:] == ["microphone 'USB Audio' is back after 4 s"]


def test_a_number_means_the_same_microphone_after_others_were_unplugged(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened(2)
    first(portaudio, microphone)
    del portaudio.devices[1]
    portaudio.streams[0].active = False
    assert isinstance(next(microphone), AudioGap)
    threading.Timer(0.05, lambda: portaudio.streams[-1].say(5.0)).start()
    next(microphone)
    assert microphone.name == "Built-in" and portaudio.streams[-1].settings["device"] == 1


def test_a_device_that_fails_again_and_again_is_tried_until_it_opens(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened()
    first(portaudio, microphone)
    portaudio.streams[0].active = False
    portaudio.broken = "Device unavailable"
    assert [type(next(microphone)) for _ in range(5)] == [AudioGap] * 5
    portaudio.broken = ""
    threading.Timer(0.05, lambda: portaudio.streams[-1].say(5.0)).start()
    assert next(one for one in microphone if isinstance(one, AudioChunk)).samples[0, 0] == 5.0


def test_a_gap_without_length_is_none(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened(clock=lambda: 0.0)
    first(portaudio, microphone)
    portaudio.streams[0].active = False
    threading.Timer(0.4, lambda: portaudio.streams[-1].say(5.0)).start()
    assert isinstance(next(microphone), AudioChunk)


def test_stopping_hands_over_what_was_recorded_and_gives_the_device_back(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened()
    first(portaudio, microphone)
    portaudio.streams[0].say(2.0)
    microphone.stop()
    portaudio.streams[0].say(3.0)
    assert [chunk.samples[0, 0] for chunk in microphone] == [2.0]
    assert portaudio.streams[0].closed


def test_stopping_ends_the_wait_for_one_that_is_gone(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened()
    first(portaudio, microphone)
    portaudio.streams[0].active = False
    portaudio.devices.clear()
    next(microphone)
    microphone.stop()
    assert all(isinstance(one, AudioGap) for one in microphone)


def test_a_microphone_can_be_closed_at_any_moment_and_again(portaudio: FakePortAudio, opened: Any) -> None:
    microphone = opened()
    first(portaudio, microphone)
    microphone.close()
    microphone.close()
    assert portaudio.streams[0].closed and list(microphone) == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("Headset", "no microphone 'Headset' .No input device matching 'Headset'.; .*--list-devices"),
        (7, "no microphone 7 .Error querying device 7."),
        (0, "no microphone 0 .Not an input device: 'Speakers'."),
    ],
)
def test_a_device_that_does_not_exist_is_bad_input(portaudio: FakePortAudio, device: str | int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Microphone(device)


def test_a_machine_without_a_microphone_says_so(portaudio: FakePortAudio) -> None:
    portaudio.default = None
    with pytest.raises(InputError, match="no microphone on this machine"):
        Microphone()


def test_a_device_that_is_taken_is_an_error_and_not_waited_for(portaudio: FakePortAudio, opened: Any) -> None:
    portaudio.broken = "Device unavailable"
    with pytest.raises(AudioError, match="'USB Audio' cannot be opened: Device unavailable; "):
        next(opened())


def test_devices_are_listed_without_those_that_only_play(portaudio: FakePortAudio) -> None:
    found = [(one.index, one.name, one.channels, one.rate, one.is_default) for one in input_devices()]
    assert found == [(1, "USB Audio", 2, 44_100, True), (2, "Built-in", 1, 48_000, False)]
    portaudio.default = None
    assert not any(one.is_default for one in input_devices())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sottovoce\[mic\]'"):
        Microphone()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MissingExtraError, match="apt install libportaudio2"):
        input_devices()
