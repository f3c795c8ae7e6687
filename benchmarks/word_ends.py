"""When each word of a recording ended, told by none of the systems that are measured.

The reference text is aligned with the sound by pocketsphinx (BSD, a Gaussian-mixture acoustic model of US English that
shares nothing with Whisper), twice: once over the whole recording, then again over pieces cut at the pauses, on another
grid of frames. An end is trusted where both agree, where the word stands in the pronouncing dictionary, and where it
was not squeezed into the shortest time that the model allows. All others are left out and counted. Knows clips and
their true texts; knows nothing of systems.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from data import SAMPLE_RATE, Heard
from peers import Samples
from rapidfuzz.distance import Levenshtein

from sottovoce_compiler.report.stream_score import WordEnd, words_of

Reason = Literal["not in the dictionary", "passes differ", "squeezed", "not aligned"]

FRAME_SECONDS = 0.01
AGREEMENT_SECONDS = 0.05  # between the two passes
SHORTEST_PHONE = 3  # frames: one for each state
FIRST_LEAD = 3200  # samples of quiet before the sound in the first pass
SECOND_LEAD = 8080  # in the second: more, and half a frame off the grid of the first
TAIL = 8000  # samples of quiet after it, so that the last word does not have to last until the end
PAUSE_SECONDS = 0.2  # at which a piece may be cut
PIECE_SECONDS = 8.0  # after which it is cut at the next pause
_VERSION = 1  # of the method; a cached alignment of another is not taken
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"

_LETTERS = {
    **{"th": "TH", "sh": "SH", "ch": "CH", "ph": "F", "ck": "K", "ng": "NG", "qu": "K W", "wh": "W", "tz": "T S"},
    **{"ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "ai": "EY", "ay": "EY", "ei": "AY", "oi": "OY"},
    **{"a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH"},
    **{"k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T"},
    **{"u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z", "0": "Z IY R OW", "1": "W AH N", "2": "T UW"},
    **{"3": "TH R IY", "4": "F AO R", "5": "F AY V", "6": "S IH K S", "7": "S EH V AH N", "8": "EY T", "9": "N AY N"},
}
"""A sound for letters and digits: enough to find where a word that no dictionary has lies between its neighbours."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of the reference whose times are trusted; `place` counts all words of the reference, times in seconds."""

    place: int
    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class WordEnds:
    """One recording's trusted words in order, and those that were left out, by reason."""

    words: tuple[SpokenWord, ...]
    left_out: Mapping[Reason, tuple[str, ...]]

    @property
    def ends(self) -> tuple[WordEnd, ...]:
        """As the scoring takes them."""
        return tuple((word.word, word.end) for word in self.words)

    def pause_before(self, seconds: float) -> tuple[float, int]:
        """A moment in the longest pause of the last 10 s before `seconds`, and how many words lie before it.

        LookupError where no two neighbours there are trusted.
        """
        near = [word for word in self.words if seconds - 10 <= word.end <= seconds]
        pairs = [(a, b) for a, b in pairwise(near) if b.place == a.place + 1]
        if not pairs:
            raise LookupError(f"no pause is known within the 10 s before {seconds} s")
        before, after = max(pairs, key=lambda pair: pair[1].start - pair[0].end)
        return (before.end + after.start) / 2, before.place + 1


@dataclass(frozen=True, slots=True)
class Differences:
    """What another clock says of the same words, less what the alignment says; seconds."""

    words: int
    mean: float
    median: float
    mean_absolute: float
    p90_absolute: float


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A word of one pass; seconds. `squeezed`: each phone has the shortest time that there is."""

    word: str
    start: float
    end: float
    squeezed: bool = False


def word_ends(clips: Iterable[Heard], cache: Path) -> dict[str, WordEnds]:
    """The ends of each clip by its name, read from the JSON file `cache` where they were found before."""
    known: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    aligner: Aligner | None = None
    found: dict[str, WordEnds] = {}
    for heard in clips:
        key = _key(heard)
        if key not in known:
            aligner = aligner or Aligner()
            known[key] = asdict(aligner.align(heard.samples, heard.clip.text))
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
        found[heard.clip.name] = _from_json(known[key])
    return found


def differences(ends: Sequence[WordEnd], others: Sequence[WordEnd], language: str | None) -> tuple[float, ...]:
    """Seconds by which the words of `others` end later than the same words of `ends`."""
    ours, theirs = ([(unit, end) for word, end in side for unit in words_of(word, language)] for side in (ends, others))
    blocks = Levenshtein.opcodes([unit for unit, _ in ours], [unit for unit, _ in theirs])
    return tuple(
        theirs[block.dest_start + i][1] - ours[block.src_start + i][1]
        for block in blocks
        if block.tag == "equal"
        for i in range(block.src_end - block.src_start)
    )


def summary(values: Sequence[float]) -> Differences | None:
    """None of nothing."""
    if not values:
        return None
    apart = np.abs(values)
    centre = float(np.mean(values)), float(np.median(values))
    return Differences(len(values), *centre, float(apart.mean()), float(np.percentile(apart, 90)))


def tokens_of(text: str) -> list[str]:
    """The words of a text in lower case, each of which is one word to the scoring too; apostrophes inside stay."""
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in _APOSTROPHES else " " for c in text)
    plain = kept.replace(_APOSTROPHES[1], _APOSTROPHES[0]).lower()
    return [word for word in (part.strip(_APOSTROPHES[0]) for part in plain.split()) if word]


class Aligner:
    """pocketsphinx with its own model of US English. Raises LookupError where it is not installed."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError:
            raise LookupError("word ends need pocketsphinx: pip install pocketsphinx") from None
        self._decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        self._guessed: set[str] = set()

    def align(self, samples: Samples, text: str) -> WordEnds:
        """Where the words of `text` end in float32 (samples,) at 16 kHz."""
        tokens = tokens_of(text)
        for token in tokens:
            self._learn(token)
        whole = self._pass(samples, tokens, FIRST_LEAD)
        if whole is None:
            return WordEnds((), {"not aligned": tuple(tokens)} if tokens else {})
        again: list[_Aligned] = []
        for piece in pieces(whole):
            again += self._again(samples, piece)
        words: list[SpokenWord] = []
        left_out: dict[Reason, tuple[str, ...]] = {}
        for place, (first, second) in enumerate(zip(whole, again, strict=True)):
            if (reason := self._doubt(first, second)) is not None:
                left_out[reason] = (*left_out.get(reason, ()), first.word)
            else:
                start, end = ((a + b) / 2 for a, b in ((first.start, second.start), (first.end, second.end)))
                words.append(SpokenWord(place, first.word, round(start, 3), round(end, 3)))
        return WordEnds(tuple(words), left_out)

    def _learn(self, token: str) -> None:
        """Gives a word that the dictionary lacks a pronunciation, which is a guess."""
        if self._decoder.lookup_word(token) is None:
            self._decoder.add_word(token, guess(token, self._decoder.lookup_word), True)
            self._guessed.add(token)

    def _doubt(self, first: _Aligned, second: _Aligned) -> Reason | None:
        if first.word in self._guessed:
            return "not in the dictionary"
        if math.isnan(second.end):
            return "not aligned"
        if first.squeezed or second.squeezed:
            return "squeezed"
        return "passes differ" if abs(first.end - second.end) > AGREEMENT_SECONDS else None

    def _pass(self, samples: Samples, tokens: Sequence[str], lead: int) -> list[_Aligned] | None:
        """Words from one search, with quiet around the sound; None where the text does not fit it."""
        if not tokens:
            return []
        self._decoder.set_align_text(" ".join(tokens))
        self._decode(np.pad(samples, (lead, TAIL)))
        if self._decoder.hyp() is None:
            return None
        said = [entry for entry in self._decoder.seg() if not entry.word.startswith(("<", "["))]
        found = [self._from_entry(entry, lead / SAMPLE_RATE) for entry in said]
        return found if [word.word for word in found] == list(tokens) else None

    def _again(self, samples: Samples, piece: "Piece") -> list[_Aligned]:
        """The words of one piece on its own; without an end where they cannot be found."""
        tokens = [word.word for word in piece.words]
        part = samples[round(piece.start * SAMPLE_RATE) : None if piece.end is None else round(piece.end * SAMPLE_RATE)]
        found = self._pass(part, tokens, SECOND_LEAD)
        if found is None:
            return [_Aligned(token, math.nan, math.nan) for token in tokens]
        return [replace(word, start=word.start + piece.start, end=word.end + piece.start) for word in found]

    def _from_entry(self, entry: Any, lead: float) -> _Aligned:
        phones = len(self._decoder.lookup_word(entry.word).split())
        frames = entry.end_frame + 1 - entry.start_frame
        start, end = (frame * FRAME_SECONDS - lead for frame in (entry.start_frame, entry.end_frame + 1))
        return _Aligned(entry.word.partition("(")[0], max(start, 0.0), end, frames <= phones * SHORTEST_PHONE)

    def _decode(self, samples: Samples) -> None:
        hiss = np.random.default_rng(0).integers(-2, 3, samples.size)  # digital silence has no logarithm
        pcm = np.clip(samples * 32768 + hiss, -32768, 32767).astype("<i2")
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()


@dataclass(frozen=True, slots=True)
class Piece:
    """Words between two pauses and the stretch of sound that they are in; seconds, `end` None at the very end."""

    start: float
    end: float | None
    words: tuple[_Aligned, ...]


def pieces(words: Sequence[_Aligned]) -> Iterator[Piece]:
    """Cuts in the middle of pauses, at the first one after `PIECE_SECONDS`."""
    start, first = 0.0, 0
    for i in range(1, len(words)):
        before, after = words[i - 1].end, words[i].start
        if after - before >= PAUSE_SECONDS and after - start >= PIECE_SECONDS:
            cut = (before + after) / 2
            yield Piece(start, cut, tuple(words[first:i]))
            start, first = cut, i
    if words:
        yield Piece(start, None, tuple(words[first:]))


def guess(word: str, lookup: Any) -> str:
    """Phones for a word that is not in the dictionary: known words inside it, and letters one by one."""
    plain = unicodedata.normalize("NFKD", word)
    letters = "".join(c for c in plain if c.isascii() and c.isalnum())
    phones: list[str] = []
    while letters:
        known = next((n for n in range(len(letters) - 1, 3, -1) if lookup(letters[:n])), 0)
        taken = known or (2 if letters[:2] in _LETTERS else 1)
        phones.append(str(lookup(letters[:known])) if known else _LETTERS.get(letters[:taken], "AH"))
        letters = letters[taken:]
    return " ".join(phones) or "AH"


def _key(heard: Heard) -> str:
    digest = hashlib.sha256(heard.samples.tobytes())
    digest.update(f"{_VERSION} {heard.clip.text}".encode())
    return digest.hexdigest()


def _from_json(fields: Mapping[str, Any]) -> WordEnds:
    words = tuple(SpokenWord(**word) for word in fields["words"])
    return WordEnds(words, {reason: tuple(words) for reason, words in fields["left_out"].items()})
