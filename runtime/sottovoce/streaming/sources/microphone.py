"""A microphone, through sounddevice (the extra `mic`): one that vanishes is waited for.

Knows PortAudio's devices and callbacks. Knows nothing of speech, nor of converting rates: where a device does not give
16 kHz mono, its own rate and channels are handed over.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from sottovoce.errors import AudioError, InputError, MissingExtraError
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.sources.queue import LIMIT_SECONDS, LiveQueue

SAMPLE_RATE = 16_000  # Hz, asked for first
BLOCK_SECONDS = 0.032
STALL_SECONDS = 2.0  # without a callback: the device is gone, whatever it says
RETRY_SECONDS = 1.0
_LOOK = 0.25  # seconds without audio after which the device is asked whether it is still there

_LIST = "sottovoce listen --list-devices shows what there is"


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A device that can be recorded from; `rate` is its own, in Hz."""

    index: int
    name: str
    channels: int
    rate: int
    is_default: bool


def input_devices() -> list[InputDevice]:
    """Every device of this machine with an input. Raises MissingExtraError without the extra."""
    sounddevice = _sounddevice()
    default = None
    with suppress(ValueError, sounddevice.PortAudioError):  # there is none
        default = sounddevice.query_devices(kind="input")["index"]
    return [
        InputDevice(one["index"], one["name"], one["max_input_channels"], _own_rate(one), one["index"] == default)
        for one in sounddevice.query_devices()
        if one["max_input_channels"] > 0
    ]


class Microphone:
    """Audio from `device`: a number, a part of a name, or None for the system's choice. Opens at the first `next`.

    Chunks are float32 (n, channels). What a late listener leaves lying longer than `limit` seconds is dropped, oldest
    first, with an `AudioGap` in its place. A device that vanishes is reported through `notice` and looked for every
    second; the time until it is back comes as `AudioGap`.

    Raises MissingExtraError without the extra, InputError for a device that does not exist, AudioError for one that
    cannot be opened.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        notice: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
        limit: float = LIMIT_SECONDS,
        stall: float = STALL_SECONDS,
        retry: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sounddevice = _sounddevice()
        self._device, self._notice, self._clock = device, notice, clock
        self._stall, self._retry = stall, retry
        self._queue = LiveQueue(limit, "drop")
        self._stream: Any = None
        self._info = self._find(device)
        self._heard = 0.0  # by the clock: when audio last came
        self._pieces = self._listen()

    @property
    def name(self) -> str:
        """What the system calls the device."""
        return str(self._info["name"])

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk | AudioGap:
        return next(self._pieces)

    def stop(self) -> None:
        """Records no more."""
        self._queue.finish()

    def close(self) -> None:
        """Gives the device back."""
        self._queue.close()
        self._release()

    def _listen(self) -> Iterator[AudioChunk | AudioGap]:
        try:
            self._open()
        except self._sounddevice.PortAudioError as error:
            raise AudioError(f"microphone {self.name!r} cannot be opened: {_reason(error)}; {_LIST}") from None
        while not self._queue.ended:
            taken = self._queue.take(min(self._stall, _LOOK))
            if taken is not None:
                yield taken
            elif not self._queue.ended and not self._is_alive():
                yield from self._wait_for_it()
        self._release()
        yield from self._queue

    def _wait_for_it(self) -> Iterator[AudioGap]:
        """Until the device is back, or nobody wants it any more."""
        gone = at = self._heard
        self._notice(f"microphone {self.name!r} is gone; waiting for it to come back")
        while not self._queue.ended:
            now = self._clock()
            if now > at:  # a gap without length is none
                yield AudioGap(now - at)
            at = now
            if self._reopen():
                self._queue.lose(self._heard - at)  # opening takes its time too
                self._notice(f"microphone {self.name!r} is back after {self._heard - gone:.0f} s")
                return
            self._queue.take(self._retry)  # nothing can come: a wait that `stop` ends

    def _reopen(self) -> bool:
        self._release()
        try:
            # PortAudio lists devices once; only this makes it look again.
            self._sounddevice._terminate()
            self._sounddevice._initialize()
            self._info = self._find(self._device)
            self._open()
        except (self._sounddevice.PortAudioError, InputError):
            self._release()
            return False
        return True

    def _find(self, device: str | int | None) -> dict[str, Any]:
        """What PortAudio knows of the device. A number may mean another device after one was unplugged: from then on
        the name counts."""
        try:
            info: dict[str, Any] = self._sounddevice.query_devices(device, "input")
        except (ValueError, self._sounddevice.PortAudioError) as error:
            which = "no microphone on this machine" if device is None else f"no microphone {device!r}"
            raise InputError(f"{which} ({_reason(error)}); {_LIST}") from None
        if isinstance(device, int):
            self._device = info["name"]
        return info

    def _open(self) -> None:
        rate, channels = self._settings()
        self._heard = self._clock()
        self._stream = self._sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(rate * BLOCK_SECONDS),
            device=self._info["index"],
            channels=channels,
            dtype="float32",
            callback=self._callback(rate),
        )
        self._stream.start()
        self._heard = self._clock()

    def _settings(self) -> tuple[int, int]:
        """Rate and channels: 16 kHz mono if the device does that, else as near as it gets."""
        own, channels = _own_rate(self._info), int(self._info["max_input_channels"])
        for rate, count in ((SAMPLE_RATE, 1), (own, 1)):
            with suppress(self._sounddevice.PortAudioError):
                self._sounddevice.check_input_settings(
                    device=self._info["index"], channels=count, dtype="float32", samplerate=rate
                )
                return rate, count
        return own, channels

    def _callback(self, rate: int) -> Callable[..., None]:
        """What PortAudio's thread calls with each block; it must not wait, and it must not raise."""
        ended: float | None = None  # by the device's clock: when the last block did

        def take(block: Any, frames: int, times: Any, status: Any) -> None:
            nonlocal ended
            begun, now = float(times.inputBufferAdcTime), self._clock()
            if status and status.input_overflow:
                # Some devices' clocks stand still or jump: one block at least, and no more than time has passed.
                measured = min(begun - ended, now - self._heard) if ended is not None else 0.0
                self._queue.lose(max(measured, frames / rate))
            ended, self._heard = begun + frames / rate, now
            self._queue.put(block.copy(), rate)  # the block is PortAudio's memory

        return take

    def _is_alive(self) -> bool:
        with suppress(self._sounddevice.PortAudioError):
            return bool(self._stream.active) and self._clock() - self._heard < self._stall
        return False

    def _release(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(self._sounddevice.PortAudioError):
                stream.close()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError("the microphone needs an extra: pip install 'sottovoce[mic]'") from None
    except OSError:  # the package is there, the library that it calls is not
        also = "; on Debian, Ubuntu and Raspberry Pi OS: sudo apt install libportaudio2"
        raise MissingExtraError(
            f"sounddevice finds no PortAudio library{also if sys.platform == 'linux' else ''}"
        ) from None
    return sounddevice


def _own_rate(info: Any) -> int:
    return int(info["default_samplerate"])


def _reason(error: Exception) -> str:
    """The first line of an error, without what sounddevice puts around it."""
    text = str(error.args[0]) if error.args else str(error)
    return text.splitlines()[0].strip().rstrip(":") if text.strip() else type(error).__name__
