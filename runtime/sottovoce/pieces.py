"""Decoding the pieces of recordings: grouped into batches, language heard on the way, gaps decoded again, words timed.

Knows the engine through its Protocol, and everything about one batch; knows nothing of files, bundles or voice
activity.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sottovoce.alignment import token_times
from sottovoce.decoding.fallback import Attempt, Decoder, RowLimits
from sottovoce.decoding.grammar import Grammar, Tokens, language_probabilities
from sottovoce.decoding.search import Prompt
from sottovoce.engines import DecodeBatch, Float, SpeechEngine
from sottovoce.segments import Cut, cut_segments, timed_words
from sottovoce.tokens import TokenTable
from sottovoce.types import Segment, TranscribeOptions, Word
from sottovoce.vad import SAMPLE_RATE

_CROSS_BYTES = 40 << 20  # of encoded audio decoded together; more clips at once gain little from here on
_TOKENS_A_SECOND = 25  # nobody speaks faster, in any language, at the bytes a token that Whisper's vocabulary has
_TOKENS_TO_SPARE = 20
_MAX_TOKENS = 224  # half the text context, as Whisper was trained
_STEERING = 8  # tokens at most that begin a transcript
_MAX_PROMPT = 448 - _MAX_TOKENS - _STEERING  # tokens of earlier text: what the rest leaves of the text context
_MIN_GAP = 1.5  # seconds of a piece after its last word that are worth a second look
_MAX_LOOKS = 4
_FRAME = 320  # samples of one encoded frame


# Whisper loses a consonant that begins the audio ("seven" becomes "Kevin"): a piece that has nothing before it starts
# with a little silence.
# Errors with 0, 0.05, 0.1, 0.2 and 0.3 s of it: tiny.en 80, 75, 70, 80, 77 of 1,336 words; base 200, 174, 172, 176, 175
# of 1,839. More of it makes a sentence of what began in the middle of one.
_LEAD = SAMPLE_RATE // 10


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples (n,) float32 of at most 29 s, which began `start` samples into their recording."""

    samples: Float
    start: int

    @property
    def seconds(self) -> float:
        return self.samples.size / SAMPLE_RATE

    @property
    def lead(self) -> int:
        """Samples of silence put before the piece: none where it follows other audio."""
        return max(0, _LEAD - self.start)

    @property
    def heard(self) -> int:
        """Samples of the piece with its lead."""
        return self.lead + self.samples.size

    def padded(self) -> Float:
        """The samples as the encoder hears them, after the lead; times in them are behind by that much."""
        return np.concatenate([np.zeros(self.lead, np.float32), self.samples])

    def time(self, seconds: float) -> float:
        """A time in the padded samples as seconds from the start of the recording, never outside this piece."""
        inside = min(max(seconds - self.lead / SAMPLE_RATE, 0.0), self.seconds)
        return round(inside + self.start / SAMPLE_RATE, 3)

    def after(self, seconds: float) -> "Piece | None":
        """What follows a time in the padded samples, if it is worth a second look."""
        at = max(0, round(seconds * SAMPLE_RATE) - self.lead)
        rest = self.samples[at:]
        # The whole piece again would only be heard as before.
        return Piece(rest, self.start + at) if at > 0 and rest.size > _MIN_GAP * SAMPLE_RATE else None


@dataclass(frozen=True, slots=True)
class Heard:
    """The language of a piece: probabilities of all languages, likeliest first."""

    probabilities: Mapping[str, float]

    @property
    def language(self) -> str:
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        return self.probabilities[self.language]


ENGLISH = Heard({"en": 1.0})


def groups(pieces: Sequence[Piece], bytes_per_second: int, most: int) -> list[list[Piece]]:
    """Neighbours decoded together: at most `most`, and no more than memory is set aside for."""
    out: list[list[Piece]] = []
    for piece in pieces:
        if out and len(out[-1]) < most:
            longest = max(one.seconds for one in (*out[-1], piece))
            if longest * (len(out[-1]) + 1) * bytes_per_second <= _CROSS_BYTES:
                out[-1].append(piece)
                continue
        out.append([piece])
    return out


def average(heard: Sequence[Heard]) -> Heard:
    """The language of pieces that are known to share one."""
    totals: dict[str, float] = {}
    for one in heard:
        for code, share in one.probabilities.items():
            totals[code] = totals.get(code, 0.0) + share / len(heard)
    return Heard(dict(sorted(totals.items(), key=lambda item: -item[1])))


@dataclass(frozen=True, slots=True)
class Begun:
    """A group whose audio is encoded, with what its first token told of the language."""

    pieces: Sequence[Piece]
    batch: DecodeBatch
    heard: Sequence[Heard]


@dataclass(frozen=True, slots=True)
class PieceDecoder:
    """Decodes pieces under one set of options."""

    engine: SpeechEngine
    tokens: Tokens
    table: TokenTable
    options: TranscribeOptions

    def begin(self, pieces: Sequence[Piece]) -> Begun:
        """Encode a group; where no language is given, one token's step tells it for every row."""
        capacity = _STEERING + max(_limit(piece) for piece in pieces) + (_MAX_PROMPT if self._has_prompt else 0)
        batch = self.engine.start([piece.padded() for piece in pieces], capacity)
        return Begun(pieces, batch, self._hear(batch, len(pieces)))

    def decode(self, begun: Begun, languages: Sequence[str], previous: Sequence[int] = ()) -> list[list[Segment]]:
        """Segments of every piece, in order; `id` is left 0. A gap at the end of a piece is decoded as a piece of its
        own."""
        found = self._decode_once(begun, languages, previous)
        out = [segments for segments, _ in found]
        rest = [(row, gap) for row, (_, gap) in enumerate(found) if gap is not None]
        for _ in range(_MAX_LOOKS):
            if not rest:
                break
            again = self.begin([gap for _, gap in rest])
            found = self._decode_once(again, [languages[row] for row, _ in rest], previous)
            for (row, _), (segments, _) in zip(rest, found, strict=True):
                out[row] += segments
            rest = [(row, gap) for (row, _), (_, gap) in zip(rest, found, strict=True) if gap is not None]
        return out

    def in_order(self, pieces: Sequence[Sequence[Piece]], first: Begun, language: str) -> Iterator[Segment]:
        """Segments of one recording, group by group; `first` is the first group, already begun."""
        previous = self.initial_prompt()
        waiting = [first]
        del first  # a group's encoded audio is its largest part: it goes before the next one comes
        for group in pieces:
            begun = waiting.pop() if waiting else self.begin(group)
            found = self.decode(begun, [language] * len(group), previous)
            del begun
            for segments in found:
                yield from segments
                if self.options.condition_on_previous_text and segments:
                    text = [token for segment in segments for token in segment.tokens]
                    previous = [*previous, *text] if segments[-1].temperature < 0.5 else []

    @property
    def _has_prompt(self) -> bool:
        return bool(self.options.initial_prompt) or self.options.condition_on_previous_text

    def _hear(self, batch: DecodeBatch, rows: int) -> list[Heard]:
        if not self.tokens.languages:
            return [ENGLISH] * rows
        if self.options.language is not None:
            return [Heard({self.options.language: 1.0})] * rows
        logits = batch.run(np.full((rows, 1), self.tokens.start, np.int64), [0])[:, 0]
        return [Heard(language_probabilities(row, self.tokens)) for row in logits]

    def initial_prompt(self) -> list[int]:
        """Tokens of the text that the options ask to be fed first."""
        text = self.options.initial_prompt
        return self.table.encode(" " + text.strip()) if text else []

    def _decode_once(
        self, begun: Begun, languages: Sequence[str], previous: Sequence[int]
    ) -> list[tuple[list[Segment], Piece | None]]:
        timestamps = not self.options.without_timestamps
        grammar = Grammar(self.tokens, timestamps, self.options.suppress_tokens)
        decoder = Decoder(self.tokens, grammar, self.options, self.table.decode)
        prompt = self._prompt(languages, previous, timestamps)
        rows = [RowLimits(_limit(piece), piece.seconds, piece.start) for piece in begun.pieces]
        attempts = decoder.decode(begun.batch, prompt, rows)
        words = self._words(begun, attempts, languages) if self.options.word_timestamps else None
        return [
            self._segments(piece, attempt, words[row] if words is not None else None)
            for row, (piece, attempt) in enumerate(zip(begun.pieces, attempts, strict=True))
        ]

    def _prompt(self, languages: Sequence[str], previous: Sequence[int], timestamps: bool) -> Prompt:
        before = [self.tokens.start_of_previous, *previous[-_MAX_PROMPT:]] if previous else []
        rows = [[*before, *self.tokens.prompt(code, self.options.task, timestamps)] for code in languages]
        return Prompt(np.array(rows, np.int64), len(before))

    def _segments(
        self, piece: Piece, attempt: Attempt, words: Sequence[tuple[int, Word]] | None
    ) -> tuple[list[Segment], Piece | None]:
        """Segments of one piece, and the rest of it if the transcript stopped well before its end."""
        if attempt.silent:
            return [], None
        cuts = self._cuts(piece, attempt)
        text = [token for token in attempt.decoded.tokens if token < self.tokens.end]
        segments = [self._segment(piece, attempt, cut, text, words) for cut in cuts]
        segments = [segment for segment in segments if segment.text.strip()]
        return segments, _rest(piece, cuts)

    def _cuts(self, piece: Piece, attempt: Attempt) -> list[Cut]:
        return cut_segments(attempt.decoded.tokens, self.tokens, piece.heard / SAMPLE_RATE)

    def _segment(
        self,
        piece: Piece,
        attempt: Attempt,
        cut: Cut,
        text: Sequence[int],
        words: Sequence[tuple[int, Word]] | None,
    ) -> Segment:
        ids = tuple(text[cut.first : cut.last])
        inside = None if words is None else tuple(word for at, word in words if cut.first <= at < cut.last)
        segment = Segment(
            id=0,
            start=piece.time(cut.start),
            end=piece.time(cut.end),
            text=self.table.decode(ids),
            tokens=ids,
            avg_logprob=round(attempt.decoded.avg_logprob, 4),
            no_speech_prob=round(attempt.decoded.no_speech_prob, 4),
            compression_ratio=round(attempt.compression_ratio, 4),
            temperature=attempt.decoded.temperature,
            words=inside,
        )
        # Attention places words better than the timestamps that the decoder wrote.
        return replace(segment, start=inside[0].start, end=inside[-1].end) if inside else segment

    def _words(
        self, begun: Begun, attempts: Sequence[Attempt], languages: Sequence[str]
    ) -> list[list[tuple[int, Word]]]:
        """Words of every row, from one run over all text tokens at once."""
        texts, logprobs = zip(*(self._text_of(attempt) for attempt in attempts), strict=True)
        longest = max(len(text) for text in texts)
        end = self.tokens.end
        prompts = [self.tokens.prompt(code, self.options.task, timestamps=False) for code in languages]
        rows = [[*p, *text, *[end] * (longest - len(text))] for p, text in zip(prompts, texts, strict=True)]
        begun.batch.restart()
        begun.batch.run(np.array(rows, np.int64), [0])
        attention = begun.batch.alignment()
        first = len(prompts[0]) - 1  # the position that predicts the first text token
        out: list[list[tuple[int, Word]]] = []
        for row, (piece, text) in enumerate(zip(begun.pieces, texts, strict=True)):
            if not text:
                out.append([])
                continue
            own = attention[row, :, first : first + len(text) + 1]
            times = token_times(own, -(-piece.heard // _FRAME))
            cuts = self._cuts(piece, attempts[row])
            if _rest(piece, cuts) is not None:
                times = np.minimum(times, cuts[-1].end)  # what comes later is heard again, and has its own words
            words: list[tuple[int, Word]] = []
            for cut in cuts:
                part, ends = slice(cut.first, cut.last), slice(cut.first, cut.last + 1)
                spoken, likely = text[part], logprobs[row][part]
                timed = timed_words(spoken, likely, times[ends], self.table, languages[row], piece.time)
                words += [(cut.first + at, word) for at, word in timed]
            out.append(words)
        return out

    def _text_of(self, attempt: Attempt) -> tuple[list[int], list[float]]:
        if attempt.silent:
            return [], []
        pairs = zip(attempt.decoded.tokens, attempt.decoded.logprobs, strict=False)
        kept = [(token, logprob) for token, logprob in pairs if token < self.tokens.end]
        return [token for token, _ in kept], [logprob for _, logprob in kept]


def _rest(piece: Piece, cuts: Sequence[Cut]) -> Piece | None:
    """What is left of a piece whose transcript stopped well before its end."""
    return piece.after(cuts[-1].end) if cuts and cuts[-1].closed else None


def _limit(piece: Piece) -> int:
    return min(_MAX_TOKENS, round(piece.seconds * _TOKENS_A_SECOND) + _TOKENS_TO_SPARE)
