"""The writers: what each format demands, and that text is put out as it comes."""

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.formats import FORMATS, render, transcript
from sottovoce.types import Segment, TranscriptionInfo, Word

INFO = TranscriptionInfo("en", 0.98, 12.5, 11.0, all_language_probs=(("en", 0.98), ("de", 0.01)))
CLOCK = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d+):(\d\d):(\d\d)[.,](\d{3})")


def segment(
    start: float, end: float, text: str, words: tuple[Word, ...] | None = None, logprob: float = -0.2
) -> Segment:
    return Segment(0, start, end, text, (1, 2), logprob, 0.01, 1.1, 0.0, words)


def spoken(text: str, start: float = 0.0, each: float = 0.4) -> Segment:
    """A segment whose words follow one another without pause."""
    parts = re.findall(r"\s*\S+", text)
    words = tuple(Word(start + i * each, start + (i + 1) * each, part, 0.9) for i, part in enumerate(parts))
    return segment(start, start + len(parts) * each, text, words)


def file(format: str, *segments: Segment, words: bool = False) -> str:
    return "".join(render(format, segments, INFO, words=words))


def cue_times(text: str) -> list[tuple[int, int]]:
    found = []
    for match in CLOCK.finditer(text):
        a, b, c, d, e, f, g, h = map(int, match.groups())
        found.append((((a * 60 + b) * 60 + c) * 1000 + d, ((e * 60 + f) * 60 + g) * 1000 + h))
    return found


def test_srt_has_numbers_commas_and_blank_lines() -> None:
    assert file("srt", segment(0, 1.5, " Hello."), segment(3661.25, 3662, " There.")) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:02,000\nThere.\n\n"
    )


def test_vtt_has_a_header_and_points() -> None:
    assert file("vtt", segment(0, 1.5, " Hello.")) == "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n"


def test_tsv_has_a_header_and_whole_milliseconds() -> None:
    assert file("tsv", segment(0.0014, 1.5, " a\tb")) == "start\tend\ttext\n1\t1500\ta b\n"


def test_tsv_with_words_has_a_row_a_word() -> None:
    rows = file("tsv", spoken(" one two"), words=True).splitlines()
    assert rows[1:] == ["0\t400\tone", "400\t800\ttwo"]


def test_txt_has_a_line_a_segment_and_none_for_silence() -> None:
    assert (
        file("txt", segment(0, 1, " One\ntwo."), segment(1, 2, "  "), segment(2, 3, "Three.")) == "One two.\nThree.\n"
    )


def test_an_arrow_in_the_text_does_not_end_a_cue() -> None:
    assert file("srt", segment(0, 1, "a --> b")).count("-->") == 1
    assert file("vtt", segment(0, 1, "a --> b")).count("-->") == 1


def test_vtt_escapes_what_would_be_markup() -> None:
    assert "if a &lt;b&gt; &amp; c\n" in file("vtt", segment(0, 1, "if a <b> & c"))


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "txt"])
@pytest.mark.parametrize("breaking", ["\n\n", "\r\n", "\r", "\x0b", "\x1c", "\u2028", "\x85"])
def test_line_breaks_in_the_text_end_neither_cue_nor_row(format: str, breaking: str) -> None:
    plain = file(format, segment(0, 1, "a b")).splitlines()
    assert file(format, segment(0, 1, f"a{breaking}b")).splitlines() == plain


def test_json_is_one_object_with_text_segments_and_language() -> None:
    data = json.loads(file("json", spoken(" Hello world."), segment(1, 2, " Bye.")))
    assert data["text"] == "Hello world. Bye." and data["language"] == "en" and data["duration"] == 12.5
    assert [each["start"] for each in data["segments"]] == [0.0, 1]
    assert data["segments"][0]["words"][1] == {
        "start": 0.4,
        "end": 0.8,
        "word": " world.",
        "probability": 0.9,
    }
    assert "words" not in data["segments"][1]


def test_json_has_null_for_what_is_not_a_number() -> None:
    text = json.dumps(transcript([segment(0, 1, "a", logprob=float("-inf"))], INFO), allow_nan=False)
    assert json.loads(text)["segments"][0]["avg_logprob"] is None


def test_json_of_nothing_is_still_an_object() -> None:
    data = json.loads(file("json"))
    assert data["text"] == "" and data["segments"] == []


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "tsv"])
def test_each_segment_is_put_out_before_the_next_is_decoded(format: str) -> None:
    decoded: list[int] = []

    def decode() -> Iterator[Segment]:
        for number in range(3):
            decoded.append(number)
            yield segment(number, number + 1, f"part{number}")

    seen = ""
    pieces = render(format, decode(), INFO)
    while "part0" not in seen:
        seen += next(pieces)
    assert decoded == [0]


def test_without_words_a_cue_is_a_whole_segment() -> None:
    assert len(cue_times(file("srt", spoken(" word" * 60)))) == 1


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_with_words_a_cue_is_at_most_two_lines_of_42_and_7_seconds(format: str) -> None:
    text = file(
        format,
        spoken(" These are ordinary words of several lengths, said one after the other." * 6),
        words=True,
    )
    cues = [block.splitlines() for block in text.split("\n\n") if "-->" in block]
    assert len(cues) > 3
    for cue in cues:
        lines = cue[1 + (format == "srt") :]
        assert 1 <= len(lines) <= 2 and all(0 < len(line) <= 42 for line in lines)
    assert all(end - start <= 7000 for start, end in cue_times(text))
    assert " ".join(line for cue in cues for line in cue[1 + (format == "srt") :]).count("ordinary") == 6


def test_a_pause_ends_a_cue() -> None:
    words = (Word(0, 0.5, " Yes.", 0.9), Word(3.0, 3.5, " No.", 0.9))
    assert cue_times(file("srt", segment(0, 3.5, " Yes. No.", words), words=True)) == [(0, 500), (3000, 3500)]


def test_words_without_spaces_are_joined_without_and_count_double_when_wide() -> None:
    words = tuple(Word(i * 0.1, i * 0.1 + 0.1, character, 0.9) for i, character in enumerate("漢字" * 25))
    lines = [line for line in file("srt", segment(0, 5, "漢字" * 25, words), words=True).splitlines() if "漢" in line]
    assert [len(line) for line in lines] == [21, 21, 8]


def test_a_word_wider_than_a_line_has_its_own() -> None:
    assert f"\n{'x' * 60}\n" in file("srt", spoken(f" a {'x' * 60} b"), words=True)


def test_a_segment_that_was_asked_for_words_and_has_none_is_one_cue() -> None:
    assert len(cue_times(file("srt", segment(0, 1, "a b c"), words=True))) == 1


seconds = st.floats(-5, 5000, allow_nan=False) | st.sampled_from([float("nan"), float("inf")])
segments = st.lists(st.builds(segment, seconds, seconds, st.text(max_size=20)), max_size=8)


@given(segments, st.sampled_from(["srt", "vtt"]))
def test_times_never_run_backwards_whatever_the_segments_say(given_segments: list[Segment], format: str) -> None:
    times = [time for cue in cue_times(file(format, *given_segments)) for time in cue]
    assert times == sorted(times)


@given(segments, st.sampled_from(sorted(FORMATS)))
def test_every_format_takes_every_text(given_segments: list[Segment], format: str) -> None:
    text = file(format, *given_segments)
    assert json.loads(text) if format == "json" else "\r" not in text
