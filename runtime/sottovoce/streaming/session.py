"""One stream, without threads: audio is pushed in, events come out.

The data's way: intake (any rate, any type) -> voice activity -> window of audio -> listener (a hypothesis of what
follows the settled words) -> policy (which of them to settle) -> events. This module knows only when each of them is
asked. Memory is bounded by the window; work is bounded by making no more than one decoding a step, and fewer where
the machine is slow.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from sottovoce.errors import AudioError, InputError
from sottovoce.streaming.chunks import AudioGap, Chunk
from sottovoce.streaming.endpoint import FRAME_SECONDS, Endpoint, Turn
from sottovoce.streaming.events import AudioDropped, Committed, Event, Partial, SpeechEnded, SpeechStarted
from sottovoce.streaming.intake import Float, Intake
from sottovoce.streaming.listener import Excerpt, Hypothesis, Listener
from sottovoce.streaming.options import StreamOptions
from sottovoce.streaming.policy import Policy, Settling
from sottovoce.streaming.utterance import Language, Utterance
from sottovoce.streaming.window import AudioWindow
from sottovoce.vad import FRAME, SAMPLE_RATE, VoiceActivity, VoiceStream

_PRE_ROLL = 0.3  # seconds before the first frame of speech that belong to it
_DETECTION = 0.2  # seconds more that are kept: speech is noticed a few frames late
_PAUSE_FRAMES = round(0.2 / FRAME_SECONDS)  # of silence: nothing said before it is cut off any more
_SLACK = 1.25  # audio that must come for each second of a step's work
_KEPT = 2.0  # seconds of silence after which what was said before helps no more to understand what comes
_CLEAR_OF_END = 2.0  # seconds before the newest audio whose words are settled when the window is full
_EARLIEST_CUT, _WANTED_CUT = 0.25, 0.4  # of the window

Clock = Callable[[], float]


class StreamSession:
    """A stream in the making; `Transcriber.session` makes one.

    Not safe for use from several threads at once. One engine serves one session at a time.
    """

    def __init__(
        self,
        listener: Listener,
        activity: VoiceActivity,
        options: StreamOptions,
        sample_rate: int = SAMPLE_RATE,
        clock: Clock = time.perf_counter,
        prompt: tuple[int, ...] = (),
        policy: Policy | None = None,
    ) -> None:
        self._listener, self._activity, self._options, self._clock = listener, activity, options, clock
        self._prompt = prompt
        self._intake = Intake(sample_rate)
        self._window = AudioWindow(round((options.window + _KEPT + 1) * SAMPLE_RATE))
        self._hear_anew()
        self._utterance = Utterance()
        self._language = Language(options.language)
        self._settling = policy or Settling(options.hold_back)
        self._hypothesis: Hypothesis | None = None
        self._shown = ""
        self._decoded_to = 0  # samples of the stream that the newest hypothesis has heard
        self._cost = 0.0  # seconds that the last step took
        self._loud_to = 0  # samples: where the last speech was heard
        self._is_late = False
        self._closed = False
        self.steps = 0

    @property
    def time(self) -> float:
        """Seconds of audio taken in."""
        return self._window.end / SAMPLE_RATE

    def push(self, chunk: Chunk) -> Iterator[Event]:
        """Take in a chunk, all of which has arrived already: iterate over the events to the end.

        Speech that ends inside the chunk is settled on the way; unsettled text is said once, after the last sample.
        Raises AudioError for audio that is none (all before the fault has been taken in), EngineError when the engine
        fails, InputError after `close`.
        """
        if self._closed:
            raise InputError("this stream is closed; open another one")
        if isinstance(chunk, AudioGap):
            yield from self._gap(chunk.seconds)
            return
        for block, more in _and_whether_more(self._intake.blocks(chunk)):
            yield from self._take(block, more)
        if self._endpoint.speaking and self._is_due():
            yield from self._step()

    def finish(self) -> Iterator[Event]:
        """The stream has ended: what is open is settled."""
        if self._closed:
            return
        yield from self._take(self._intake.finish(), more=False)
        if self._endpoint.speaking:
            yield from self._end()

    def close(self) -> None:
        """Give the memory back; nothing more can be pushed."""
        self._closed = True
        self._window = AudioWindow(1)
        self._hypothesis = None
        self._utterance.clear()

    def _hear_anew(self) -> None:
        """Voice activity begins at the window's end."""
        self._voice = VoiceStream(self._activity)
        self._endpoint = Endpoint(self._options.vad_threshold, self._options.end_of_speech)
        self._heard_from = self._window.end

    def _take(self, samples: Float, more: bool) -> Iterator[Event]:
        """Take in samples (n,); `more` says that others are there already, so that no step is worth making for the
        newest of these."""
        for start in range(0, samples.size, FRAME):
            self._is_late = more or samples.size - start > self._options.step * SAMPLE_RATE
            block = samples[start : start + FRAME]
            self._window.append(block)
            for probability in self._voice.push(block):
                yield from self._frame(float(probability))
            if not self._endpoint.speaking:
                self._let_go()
            elif self._window.seconds >= self._options.window:
                yield from self._make_room()

    def _frame(self, probability: float) -> Iterator[Event]:
        turn = self._endpoint.push(probability)
        if turn is Turn.STARTED:
            began = self._heard_from + self._endpoint.began * FRAME
            self._begin_speech(began)
            yield SpeechStarted(round(began / SAMPLE_RATE, 3))
        elif turn is Turn.ENDED:
            yield from self._end()
        elif self._endpoint.speaking:
            if not self._endpoint.quiet:
                self._loud_to = self._window.end
            elif self._endpoint.quiet == _PAUSE_FRAMES and not self._is_late:
                yield from self._step()

    def _let_go(self) -> None:
        """Nobody speaks: keep what the next word may need."""
        if self._window.end - self._loud_to > _KEPT * SAMPLE_RATE:
            self._utterance.clear()
        if not self._utterance.tokens:
            self._window.drop_before(self._window.end - round((_PRE_ROLL + _DETECTION) * SAMPLE_RATE))

    def _begin_speech(self, began: int) -> None:
        """Speech from sample `began` on: it continues what was said just before, or begins anew."""
        if not self._utterance.tokens:
            # What was heard before is done with, and must not be heard twice.
            self._window.drop_before(max(began - round(_PRE_ROLL * SAMPLE_RATE), self._loud_to))
            self._language.new_speech()
        self._utterance.begins(began / SAMPLE_RATE)
        self._settling.reset()
        self._hypothesis = None
        self._loud_to = self._decoded_to = self._window.end
        self._shown = ""

    def _is_due(self) -> bool:
        """Whether enough audio has come since the last step: more than the step takes, or partials are shed."""
        if self._all_heard:
            return True  # no decoding is needed
        return self._window.end - self._decoded_to >= max(self._options.step, _SLACK * self._cost) * SAMPLE_RATE

    @property
    def _all_heard(self) -> bool:
        """Whether the newest hypothesis knows everything said so far, with the pause after it."""
        paused = self._decoded_to >= self._loud_to + (_PAUSE_FRAMES - 1) * FRAME
        return self._hypothesis is not None and paused

    def _step(self) -> Iterator[Event]:
        """Decode, unless that could bring nothing new; settle what can be settled; show the rest."""
        if not self._all_heard:
            self._decode()
        hypothesis = self._hypothesis
        assert hypothesis is not None
        if not hypothesis.looped:
            count = self._settling.count(hypothesis.words, self.time, quiet=self._all_heard)
            yield from self._settle(count)
        yield from self._show()

    def _decode(self) -> None:
        began = self._clock()
        window = self._window
        excerpt = Excerpt(
            window.samples, window.start, self._utterance.tokens, max(window.start, self._utterance.end), self._prompt
        )
        hypothesis = self._listener.hear(excerpt, self._language.fixed)
        likeliest = self._language.heard(hypothesis, window.seconds)
        if likeliest != hypothesis.language:
            hypothesis = replace(self._listener.hear(excerpt, likeliest), languages=hypothesis.languages)
        self._hypothesis = hypothesis
        self._settling.add(hypothesis.words)
        self._decoded_to = window.end
        self._cost = self._clock() - began
        self.steps += 1

    def _settle(self, count: int) -> Iterator[Committed]:
        hypothesis = self._hypothesis
        if hypothesis is None or not count:
            return
        self._language.settle(hypothesis.language)
        self._settling.settle(count)
        self._hypothesis = replace(hypothesis, words=hypothesis.words[count:])
        self._shown = ""
        yield self._utterance.settle(hypothesis.words[:count], hypothesis.language)

    def _show(self) -> Iterator[Partial]:
        """The unsettled words, where they are not what is shown already."""
        words = self._hypothesis.words if self._hypothesis is not None else ()
        text = "".join(one.word.word for one in words)
        if self._options.partials and text != self._shown:
            self._shown = text
            yield Partial(text, words[0].word.start if words else round(self.time, 3))

    def _end(self) -> Iterator[Event]:
        """Nobody speaks any more: everything that was said is settled."""
        if not self._all_heard:
            self._decode()
        assert self._hypothesis is not None
        yield from self._settle(len(self._hypothesis.words))
        yield from self._show()
        self._endpoint.reset()
        self._hypothesis = None
        yield SpeechEnded(round(self._loud_to / SAMPLE_RATE, 3))

    def _make_room(self) -> Iterator[Event]:
        """The window is full: settle all but the newest words, and let go of audio at the best pause."""
        if not self._all_heard:
            self._decode()
        hypothesis, window = self._hypothesis, self._window
        assert hypothesis is not None
        clear = self.time - _CLEAR_OF_END
        yield from self._settle(sum(one.word.end <= clear for one in hypothesis.words))
        start, length = window.start / SAMPLE_RATE, self._options.window
        cut = self._utterance.best_cut(start + _EARLIEST_CUT * length, start + _WANTED_CUT * length)
        if cut is None:  # nothing was understood: nothing is lost with it
            cut = max(start + length / 2, self._utterance.end / SAMPLE_RATE)
            self._utterance.clear()
        self._utterance.forget_before(cut)
        window.drop_before(round(cut * SAMPLE_RATE))
        yield from self._show()

    def _gap(self, seconds: float) -> Iterator[Event]:
        """Audio was lost: what came before it is settled, what comes after begins anew."""
        if not 0 < seconds < float("inf"):
            raise InputError(f"a gap of {seconds} s; more than 0 is needed")
        yield from self.finish()
        start = self.time
        self._window.skip(round(seconds * SAMPLE_RATE))
        self._utterance.clear()
        self._hear_anew()
        yield AudioDropped(round(start, 3), round(self.time, 3))


def _and_whether_more(blocks: Iterator[Float]) -> Iterator[tuple[Float, bool]]:
    """Each block, and whether another one follows; a block before faulty audio comes before its error."""
    before = next(blocks, None)
    while before is not None:
        try:
            after = next(blocks, None)
        except AudioError:
            yield before, False
            raise
        yield before, after is not None
        before = after
