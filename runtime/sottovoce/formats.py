"""Segments as text: txt, json, srt, vtt and tsv, piece by piece as they are decoded.

Knows what each format demands of times, line lengths and characters. Knows nothing of files or terminals: a
writer is a function from an iterable of segments to an iterator of strings; joined, those are the file.

Cue times never run backwards or overlap, whatever the segments say. With words, cues are cut at word
boundaries to what a viewer can read: two lines of 42 columns (a wide character counts as two), at most 7 s,
no pause of more than a second.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sottovoce.types import Segment, TranscriptionInfo, Word

LINE_COLUMNS = 42
CUE_LINES = 2
CUE_SECONDS = 7.0
CUE_PAUSE = 1.0  # seconds without a word that end a cue

Writer = Callable[[Iterable[Segment], TranscriptionInfo, bool], Iterator[str]]

_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


def render(format: str, segments: Iterable[Segment], info: TranscriptionInfo, *, words: bool = False) -> Iterator[str]:
    """The pieces of the file in one of FORMATS; a piece is put out as soon as its segment is there."""
    return FORMATS[format](segments, info, words)


def write_txt(segments: Iterable[Segment], info: TranscriptionInfo, words: bool) -> Iterator[str]:
    """One segment a line."""
    for segment in segments:
        if text := _one_line(segment.text):
            yield text + "\n"


def write_json(segments: Iterable[Segment], info: TranscriptionInfo, words: bool) -> Iterator[str]:
    """One JSON object, `transcript` below; it comes in one piece, because half an object is of no use."""
    yield json.dumps(transcript(segments, info), ensure_ascii=False, allow_nan=False) + "\n"


def write_srt(segments: Iterable[Segment], info: TranscriptionInfo, words: bool) -> Iterator[str]:
    """SubRip: numbered cues, a comma before the milliseconds."""
    for number, cue in enumerate(_in_order(_cues(segments, words)), start=1):
        # The arrow is the one thing that must not stand in a cue's text; SubRip has no escapes.
        text = "\n".join(line.replace("-->", "->") for line in cue.lines)
        yield f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


def write_vtt(segments: Iterable[Segment], info: TranscriptionInfo, words: bool) -> Iterator[str]:
    """WebVTT (W3C, section 4): a header, a point before the milliseconds, text escaped as in HTML."""
    yield "WEBVTT\n\n"
    for cue in _in_order(_cues(segments, words)):
        text = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
        yield f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


def write_tsv(segments: Iterable[Segment], info: TranscriptionInfo, words: bool) -> Iterator[str]:
    """Start and end in whole milliseconds, and the text; one line a segment, or a word."""
    yield "start\tend\ttext\n"
    for cue in _in_order(_rows(segments, words)):
        yield f"{cue.start}\t{cue.end}\t{cue.lines[0]}\n"


FORMATS: Mapping[str, Writer] = {
    "txt": write_txt,
    "json": write_json,
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": write_tsv,
}


def transcript(segments: Iterable[Segment], info: TranscriptionInfo) -> dict[str, Any]:
    """JSON-ready: `text`, `segments` and what is known of the audio; infinities and NaN become None."""
    listed = [_plain(segment) for segment in segments]
    known = {key: _rounded(value) for key, value in asdict(info).items() if key != "all_language_probs"}
    return {"text": "".join(str(segment["text"]) for segment in listed).strip(), "segments": listed, **known}


@dataclass(frozen=True, slots=True)
class _Cue:
    """Lines that are shown together; times in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def _cues(segments: Iterable[Segment], words: bool) -> Iterator[_Cue]:
    """One cue a segment; or with words, as many as make it readable."""
    for segment in segments:
        if words and segment.words:
            for group in _readable(segment.words):
                yield _Cue(_milliseconds(group[0].start), _milliseconds(group[-1].end), tuple(_lines(group)))
        elif text := _one_line(segment.text):
            yield _Cue(_milliseconds(segment.start), _milliseconds(segment.end), (text,))


def _rows(segments: Iterable[Segment], words: bool) -> Iterator[_Cue]:
    """One row a segment; or with words, one a word."""
    for segment in segments:
        spoken: Iterable[tuple[float, float, str]] = [(segment.start, segment.end, segment.text)]
        if words and segment.words:
            spoken = [(word.start, word.end, word.word) for word in segment.words]
        for start, end, text in spoken:
            if line := _one_line(text):
                yield _Cue(_milliseconds(start), _milliseconds(end), (line,))


def _in_order(cues: Iterable[_Cue]) -> Iterator[_Cue]:
    """Moves times forward where a cue begins before the last one ended, or ends before it begins."""
    last = 0
    for cue in cues:
        start = max(cue.start, last)
        last = max(cue.end, start)
        yield _Cue(start, last, cue.lines)


def _readable(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Groups of words that fit one cue."""
    group: list[Word] = []
    for word in words:
        if not _one_line(word.word):
            continue
        if group and (
            word.start - group[-1].end > CUE_PAUSE
            or word.end - group[0].start > CUE_SECONDS
            or len(_lines([*group, word])) > CUE_LINES
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _lines(words: Iterable[Word]) -> list[str]:
    """Words put on lines of at most LINE_COLUMNS; one that is wider has a line of its own."""
    lines: list[str] = []
    for word in words:
        text = _BREAKS.sub(" ", word.word)
        if lines and columns(lines[-1] + text.rstrip()) <= LINE_COLUMNS:
            lines[-1] += text
        else:
            lines.append(text.lstrip())
    return [line.rstrip() for line in lines]


def columns(text: str) -> int:
    """Columns of a fixed-width display: a wide character counts as two, a combining one as none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _one_line(text: str) -> str:
    """Without the line breaks and control characters that would end a cue, a row or a line."""
    return _BREAKS.sub(" ", text).strip()


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000)) if math.isfinite(seconds) else 0


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"


def _plain(segment: Segment) -> dict[str, Any]:
    fields = {key: _rounded(value) for key, value in asdict(segment).items() if key != "words"}
    if segment.words is not None:
        fields["words"] = [{key: _rounded(value) for key, value in asdict(word).items()} for word in segment.words]
    return fields


def _rounded(value: Any) -> Any:
    """Floats to a millionth, so that a time reads 0.56; what JSON cannot say becomes None."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
