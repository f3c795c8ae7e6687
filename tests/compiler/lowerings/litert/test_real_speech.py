"""A real Whisper on LiteRT beside the same on ONNX Runtime: words, and when they are said."""

from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from sottovoce import Transcriber
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.normalize import normalize
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target


@pytest.mark.weights
def test_a_real_bundle_says_the_words_of_the_other_engine_at_their_times(tiny_bundle: Path, tmp_path: Path) -> None:
    checkpoint, target = resolve("whisper-tiny.en"), load_target("linux-x86-64")
    spec, request = whisper_spec(checkpoint), Request("whisper-tiny.en", target, tmp_path, {}, "int8")
    request = replace(request, format="litert")
    lowered = lower(request, checkpoint, spec, tmp_path, lambda done: None)
    made = write_bundle(tmp_path / "t.svb", manifest_fields(request, checkpoint, spec, lowered), lowered.files)
    heard = [Transcriber(path, threads=1) for path in (made, tiny_bundle)]
    for clip in builtin_set().clips[:2]:
        mine, theirs = (
            [word for s in one.transcribe(clip.file, word_timestamps=True)[0] for word in s.words or ()]
            for one in heard
        )
        # Both round int8 their own way, and each by the processor's: a comma or a capital may differ, and a word.
        plain = [[normalize(word.word, "en") for word in words] for words in (mine, theirs)]
        same = [
            (mine[block.a + place], theirs[block.b + place])
            for block in SequenceMatcher(None, *plain, autojunk=False).get_matching_blocks()
            for place in range(block.size)
        ]
        assert len(same) >= max(map(len, plain)) - 1 > 0
        assert all(abs(a.start - b.start) < 0.2 for a, b in same)
