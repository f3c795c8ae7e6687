"""What the assistant speaks with: espeak-ng, a sentence at a time, which can be interrupted."""

import re
import subprocess
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from sottovoce.errors import MissingExtraError

MOST = 200  # characters that are said in one go, where no sentence ends
_END = re.compile(r"(?<=[.!?…])([\"')\]]*)\s+|\n+")
_SILENT = re.compile(r"[*_#`~|<>\[\]{}]|https?://\S+")  # what is written and never said


class Speaker(Protocol):
    """Something that speaks."""

    def say(self, text: str) -> None:
        """Says it, and returns when it is said, or when it is stopped."""
        ...

    def stop(self) -> None:
        """Falls silent at once; may be called from another thread."""
        ...


class Espeak:
    """espeak-ng, through the system's sound output, or through ALSA's `device` by aplay."""

    def __init__(self, voice: str = "en", words_per_minute: int = 160, device: str | None = None) -> None:
        self._speak = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdin"]
        self._play = None if device is None else ["aplay", "-q", "-D", device]
        self._lock = threading.RLock()  # a signal handler may come while it is held
        self._processes: list[subprocess.Popen[bytes]] = []

    def say(self, text: str) -> None:
        """See `Speaker.say`. Raises MissingExtraError where a program is missing."""
        try:
            with self._lock:
                processes = self._processes = self._start()
        except FileNotFoundError as error:
            package = {"aplay": "alsa-utils"}.get(str(error.filename), "espeak-ng")
            raise MissingExtraError(f"{error.filename} is not installed: sudo apt install {package}") from None
        pipe = processes[0].stdin
        assert pipe is not None
        try:
            pipe.write(text.encode())
            pipe.close()
        except BrokenPipeError:  # it was stopped
            pass
        for process in processes:
            process.wait()
        with self._lock:
            self._processes = []

    def stop(self) -> None:
        """See `Speaker.stop`."""
        with self._lock:
            for process in self._processes:
                process.terminate()

    def _start(self) -> list[subprocess.Popen[bytes]]:
        if self._play is None:
            return [subprocess.Popen(self._speak, stdin=subprocess.PIPE)]
        first = subprocess.Popen([*self._speak, "--stdout"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            second = subprocess.Popen(self._play, stdin=first.stdout)
        except OSError:
            first.kill()
            first.wait()
            raise
        assert first.stdout is not None
        first.stdout.close()  # it is the second one's now
        return [first, second]


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Sentences as soon as they are whole, from text that comes in pieces; without what cannot be said."""
    open_text = ""
    for piece in pieces:
        open_text += piece
        while (end := _end(open_text)) is not None:
            sentence, open_text = open_text[: end[0]], open_text[end[1] :]
            yield from _said(sentence)
    yield from _said(open_text)


def _end(text: str) -> tuple[int, int] | None:
    """Where the first sentence ends and the next begins; a long stretch without an end is cut between words."""
    if (found := _END.search(text)) is not None:
        return found.end(1) if found[1] is not None else found.start(), found.end()
    if len(text) > MOST and (space := text.rfind(" ", 0, MOST)) > 0:
        return space, space + 1
    return None


def _said(sentence: str) -> Iterator[str]:
    text = " ".join(_SILENT.sub(" ", sentence).split())
    if any(character.isalnum() for character in text):
        yield text
