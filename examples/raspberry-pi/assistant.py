"""A hands-free voice assistant: it listens, thinks, and speaks, and nothing leaves the board.

    python3 assistant.py whisper-base.svb smollm2.svb
    python3 assistant.py whisper-base.svb smollm2.svb --wake ''      answers everything that it hears

Say "computer", and then what you want to know. Needs the `sottovoce` runtime with its extras `mic` and `chat-wheel`,
and espeak-ng.
"""

import argparse
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from typing import Any, Protocol

from hearing import STDIN, Ear, open_source, utterances
from speaking import Espeak, Speaker, sentences

import sottovoce
from sottovoce.streaming.drive import drive

SYSTEM = "You are a voice assistant. Answer in one or two short sentences of plain words."
MOST_TOKENS = 120  # of an answer
REMEMBERED = 8  # messages, the system's not among them
WAITING = 8.0  # seconds in which a question may follow the wake word alone
INTERRUPTING = 2  # words that stop an answer, where it may be interrupted
# Nobody reads what is said while it is said: it is decoded where the speaker pauses, and settled at the end, all of it.
WHOLE: dict[str, Any] = {"partials": False, "step": 5.0, "hold_back": 5.0}
STOP = frozenset(("stop", "be quiet", "never mind"))


class Thinker(Protocol):
    """What answers: `sottovoce.Chat`."""

    def stream(self, messages: Any, **options: Any) -> Any: ...


class Assistant:
    """Answers what is said to it. With `may_interrupt` the ear stays open while it speaks, and words stop it: for a
    microphone that cancels echo, since without one it would hear itself."""

    def __init__(
        self, thinker: Thinker, speaker: Speaker, ear: Ear, *, wake: str = "", may_interrupt: bool = False
    ) -> None:
        self._thinker, self._speaker, self._ear = thinker, speaker, ear
        self._wake, self._may_interrupt = plain(wake), may_interrupt
        self._messages: list[dict[str, str]] = []
        self._awake_until = -1.0
        self._answering: threading.Thread | None = None
        self._given_up = threading.Event()

    def listen(self, events: Iterator[Any], clock: Callable[[], float]) -> None:
        """Until the events end; `clock` gives seconds of what was heard so far."""
        try:
            for text, complete in utterances(events):
                if self._is_speaking() and self._may_interrupt and len(plain(text).split()) >= INTERRUPTING:
                    self.give_up()
                if complete:
                    self._heard(text, clock())
            if self._answering is not None:
                self._answering.join()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Falls silent, and forgets the rest of the answer."""
        self._given_up.set()
        while self._answering is not None and self._answering.is_alive():
            self._speaker.stop()  # again: a sentence may have begun a moment after it was told to stop
            self._answering.join(0.05)
        self._answering = None

    def stop(self) -> None:
        """Ends `listen`, and what is being said; for a signal handler."""
        self._given_up.set()
        self._speaker.stop()
        self._ear.stop()

    def _heard(self, text: str, now: float) -> None:
        question = self._question(text, now)
        if plain(text) in STOP or plain(question or "") in STOP:
            self.give_up()
        elif question:
            self.give_up()
            print(f"> {question}", flush=True)
            self._given_up = threading.Event()
            self._answering = threading.Thread(target=self._answer, args=(question, self._given_up), daemon=True)
            self._answering.start()
        elif question == "":  # called, and nothing asked yet
            self._awake_until = now + WAITING

    def _question(self, text: str, now: float) -> str | None:
        """What is asked: what follows the wake word; None where nobody called."""
        if not self._wake:
            return text
        found = re.search(rf"\b{re.escape(self._wake)}\b\W*", text, re.IGNORECASE)
        if found is not None:
            return text[found.end() :].strip()
        if now <= self._awake_until:
            self._awake_until = -1.0
            return text
        return None

    def _answer(self, question: str, given_up: threading.Event) -> None:
        self._messages = [*self._messages[-REMEMBERED + 1 :], {"role": "user", "content": question}]
        said: list[str] = []
        try:
            for sentence in sentences(self._thoughts(given_up)):
                with nullcontext() if self._may_interrupt else self._ear.shut():
                    if given_up.is_set():
                        break
                    print(sentence, flush=True)
                    said.append(sentence)
                    self._speaker.say(sentence)
        except sottovoce.SottovoceError as error:
            print(error, file=sys.stderr, flush=True)
        self._messages.append({"role": "assistant", "content": " ".join(said)})

    def _thoughts(self, given_up: threading.Event) -> Iterator[str]:
        messages = [{"role": "system", "content": SYSTEM}, *self._messages]
        with closing(self._thinker.stream(messages, max_tokens=MOST_TOKENS, overflow="drop_oldest")) as deltas:
            for delta in deltas:
                if given_up.is_set():
                    return
                yield delta.text

    def _is_speaking(self) -> bool:
        return self._answering is not None and self._answering.is_alive()


def plain(text: str) -> str:
    """Words in lower case without punctuation."""
    return " ".join(re.sub(r"[^\w']+", " ", text).casefold().split())


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("speech", help="a bundle that transcribes")
    parser.add_argument("chat", help="a bundle that chats, or a .gguf file")
    parser.add_argument("source", nargs="?", choices=(STDIN,), help="samples from standard input")
    parser.add_argument("--device", metavar="NAME", help="microphone, by number or a part of its name")
    parser.add_argument("--speaker", metavar="NAME", help="ALSA device to speak through (aplay -L lists them)")
    parser.add_argument("--voice", default="en", help="of espeak-ng (espeak-ng --voices lists them)")
    parser.add_argument(
        "--wake", metavar="WORD", default="computer", help="that calls it; '' for none (default: computer)"
    )
    parser.add_argument("--interrupt", action="store_true", help="words stop it; needs a microphone that cancels echo")
    return parser.parse_args(arguments)


def main() -> int:
    """Listens until it is stopped, or its input ends."""
    args = parse(sys.argv[1:])
    try:
        with ExitStack() as stack:
            transcriber = stack.enter_context(sottovoce.Transcriber(args.speech))
            thinker = stack.enter_context(sottovoce.Chat(args.chat))
            transcriber.load()
            thinker.load()
            ear = Ear(open_source(args.source, args.device))
            speaker = Espeak(args.voice, device=args.speaker)
            assistant = Assistant(thinker, speaker, ear, wake=args.wake, may_interrupt=args.interrupt)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: assistant.stop())
            session = transcriber.session(**{"partials": True} if args.interrupt else WHOLE)
            events = stack.enter_context(closing(drive(session, ear)))
            print("listening", flush=True)
            assistant.listen(events, lambda: session.time)
    except sottovoce.SottovoceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
