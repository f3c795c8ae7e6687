"""Each part of the browser's example against the runtime's own, in Node alone: no browser, no packages of npm."""

import hashlib
import json
import shutil
import subprocess
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bundle_case import FILES, make_bundle
from chat_bundle_case import make_chat_bundle
from numpy.typing import NDArray

from sottovoce.audio import load_audio
from sottovoce.bundle import open_bundle
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.sampling import Sampler
from sottovoce.chunking import chunks
from sottovoce.decoding.grammar import Grammar, Tokens
from sottovoce.decoding.guards import compression_ratio, loop_start, too_fast
from sottovoce.segments import cut_segments
from sottovoce.tokens import TokenTable, pack_tokens
from sottovoce.vad import SAMPLE_RATE, VadOptions, speech_spans

NODE = shutil.which("node")
SCRIPT = Path(__file__).with_name("browser_parts.mjs")
EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
WANTED = 15 * SAMPLE_RATE

VOCABULARY = 160
GENERATION = {
    "tokens": {
        **{"end": 50, "start": 51, "languages": {"en": 52, "de": 53}, "translate": 54, "transcribe": 55},
        **{"start_of_previous": 56, "no_speech": 57, "no_timestamps": 58, "timestamp_begin": 59},
    },
    "suppress": [3, 7, 51],
    "suppress_at_begin": [20],
}
TOKENS = Tokens.of(GENERATION, VOCABULARY)

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node 20 or newer: apt install nodejs")


def browser(part: str, **given: Any) -> Any:
    assert NODE is not None
    asked = json.dumps({"part": part, **given})
    done = subprocess.run([NODE, SCRIPT], input=asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(values: NDArray[np.float32]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def test_random_numbers_are_numpys_to_the_bit() -> None:
    seeds = [0, 1, 2**32 - 1, 2**40 + 17, 2**64 - 1]
    for seed, found in zip(seeds, browser("random", seeds=[str(seed) for seed in seeds], count=50), strict=True):
        assert found["uniform"] == list(np.random.default_rng(seed).random(50))
        # The logarithm of a JavaScript engine may differ in its last bit.
        np.testing.assert_allclose(found["gumbel"], np.random.default_rng(seed).gumbel(size=50), atol=1e-15)


def test_loops_begin_where_the_runtime_finds_them() -> None:
    random = np.random.default_rng(0)
    rows = [[int(token) for token in random.integers(0, 1 + at % 5, 10 + at)] for at in range(60)]
    rows += [[*range(9), *list(range(100, 100 + period)) * 6] for period in range(1, 40)]
    wanted = [loop_start(row) for row in rows]
    assert browser("loops", rows=rows) == wanted
    assert None in wanted and len(set(wanted)) > 5


def test_guards_judge_text_as_the_runtime_does() -> None:
    texts = ["", "Hello there.", "no " * 60, "Grüße aus Köln \N{PARTY POPPER}" * 4, "the age of wisdom, " * 20]
    for text, (ratio, fast) in zip(texts, browser("texts", texts=texts, seconds=3.0), strict=True):
        # Both are zlib at level 6, but a browser's build of it may choose matches differently.
        assert ratio == pytest.approx(compression_ratio(text), rel=0.05)
        assert fast == too_fast(text, 3.0)


def test_the_same_tokens_are_allowed_after_every_beginning() -> None:
    random = np.random.default_rng(1)
    begun = [[], [59], [59, 1], [59, 1, 70], [59, 1, 70, 70], [62, 4, 9, 80, 80, 5], [100, 2], [59, 1, 2, 3]]
    rows = [(done, random.normal(0, 3, VOCABULARY).astype(np.float32)) for done in begun * 8]
    wanted = []
    for done, logits in rows:
        allowed = logits[None].copy()
        Grammar(TOKENS, True).apply(allowed, [done])
        wanted.append(listed(allowed[0]))
    asked = [{"done": done, "logits": listed(logits)} for done, logits in rows]
    assert browser("grammar", tokens=GENERATION, rows=asked) == wanted


def test_segments_are_cut_at_the_same_timestamps() -> None:
    random = np.random.default_rng(2)
    rows = [{"ids": [59, 1, 2, 70, 70, 3, 90], "duration": 9.0}, {"ids": [1, 2, 50, 3], "duration": 2.5}]
    rows += [{"ids": [int(i) for i in random.choice([1, 2, 60, 75, 110, 159], 9)], "duration": 1.1} for _ in range(30)]
    found = browser("cuts", tokens=GENERATION, vocabulary=VOCABULARY, rows=rows)
    for row, cuts in zip(rows, found, strict=True):
        ids, wanted = row["ids"], cut_segments(row["ids"], TOKENS, row["duration"])
        text = [token for token in ids if token < TOKENS.end]
        assert [(cut["start"], cut["end"], cut["tokens"], cut["closed"]) for cut in cuts] == [
            (cut.start, cut.end, text[cut.first : cut.last], cut.closed) for cut in wanted
        ]


def test_recordings_are_cut_into_the_same_pieces() -> None:
    random = np.random.default_rng(3)
    rows = []
    for frames in (0, 1, 40, 700, 2000, 2500):
        smooth = np.convolve(random.random(frames + 30), np.ones(30) / 30, "valid")[:frames]
        probabilities = np.clip((smooth - 0.5) * 6 + 0.45, 0, 1).astype(np.float32)
        rows.append((probabilities, max(0, frames * 512 - 100)))
    rows.append((np.ones(3000, np.float32), 3000 * 512))
    asked = [{"probabilities": listed(one), "total": total} for one, total in rows]
    for (probabilities, total), found in zip(rows, browser("pieces", rows=asked), strict=True):
        spans = speech_spans(probabilities, total, VadOptions())
        pieces = chunks(spans, probabilities, WANTED)
        for key, wanted in (("spans", spans), ("pieces", pieces)):
            assert [(one["start"], one["end"]) for one in found[key]] == [(one.start, one.end) for one in wanted]


def test_tokens_decode_to_the_same_text(tmp_path: Path) -> None:
    texts = [b" the", b"\xe2\x82", b"\xac", b"\xff", "é".encode(), b"", b"<|end|>"]
    (tmp_path / "tokens.bin").write_bytes(pack_tokens(texts))
    rows = [[0, 1, 2], [1], [3, 4], [5, 6, 0], []]
    table = TokenTable(texts, 6)
    assert browser("table", file=str(tmp_path / "tokens.bin"), special=6, rows=rows) == [
        table.decode(row) for row in rows
    ]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_wav_files_become_the_same_samples(rate: int, tmp_path: Path) -> None:
    random = np.random.default_rng(rate)
    files = []
    for width, channels in ((1, 1), (2, 2), (3, 1), (4, 2)):
        with wave.open(str(tmp_path / f"{width}.wav"), "wb") as file:
            file.setparams((channels, width, rate, 0, "NONE", ""))
            file.writeframes(random.integers(0, 256, 3001 * width * channels, np.uint8).tobytes())
        files.append(tmp_path / f"{width}.wav")
    found = browser("wave", files=[str(file) for file in files])
    for file, samples in zip(files, found, strict=True):
        np.testing.assert_allclose(samples, load_audio(file), atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 0.8},
        {"temperature": 1.2, "top_k": 5, "min_p": 0.0, "frequency_penalty": 0.4, "presence_penalty": 0.2},
        {"temperature": 0.7, "top_k": 100, "top_p": 0.5, "repetition_penalty": 1.1},
    ],
)
def test_a_seed_draws_the_same_tokens(options: dict[str, Any]) -> None:
    rows = np.random.default_rng(4).normal(0, 2, (40, 3000)).astype(np.float32)
    sampler = Sampler(ChatOptions(seed=11, **options), 3000, [1, 2, 3])
    wanted = []
    for row in rows:
        wanted.append(sampler.choose(row.copy()))
        sampler.accept(wanted[-1])
    asked = [listed(row) for row in rows]
    assert browser("samples", options=options, seed=11, prompt=[1, 2, 3], rows=asked) == wanted


def test_bundles_are_opened_and_a_changed_byte_anywhere_is_found(tmp_path: Path) -> None:
    whole = make_bundle(tmp_path / "whole.svb")
    data, files = whole.read_bytes(), [whole]
    for at in [*range(0, len(data), 997), len(data) - 1]:
        files.append(tmp_path / f"{at}.svb")
        files[-1].write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for cut in (0, 10, 5000, len(data) - 1):
        files.append(tmp_path / f"cut-{cut}.svb")
        files[-1].write_bytes(data[:cut])
    found = browser("bundle", files=[str(file) for file in files])
    assert found[0] == {"name": "whisper-nano", "files": sorted(FILES)}
    for file, one in zip(files[1:], found[1:], strict=True):
        assert one.get("error", "").startswith("BundleError: "), file.name


def test_a_bundle_beyond_the_page_is_refused_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "whole.svb", required=["stream"])
    with zipfile.ZipFile(bundle) as archive:
        manifest = archive.read("manifest.json")
    for old, new in ((b'"runtime": "0.1.0"', b'"runtime": "9.9.9"'), (b'"stream"', b'"psyche"')):
        changed = manifest.replace(old, new)
        digests = [hashlib.sha256(one).hexdigest().encode() for one in (manifest, changed)]
        assert len(changed) == len(manifest) and digests[0] != digests[1]
        data = bundle.read_bytes().replace(manifest, changed).replace(*digests)
        (tmp_path / f"{new[1:4].decode()}.svb").write_bytes(data)
    first, second = browser("bundle", files=[str(tmp_path / "run.svb"), str(tmp_path / "psy.svb")])
    assert "9.9.9" in first["error"] and "psyche" in second["error"]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_widened_graph_computes_what_the_quantized_one_says(precision: str, tmp_path: Path) -> None:
    bundle = open_bundle(make_chat_bundle(tmp_path / "nano.svb", precision))
    for name in ("model.onnx", "weights.bin"):
        (tmp_path / name).write_bytes(bundle.read(name))
    out = tmp_path / "wide"
    out.mkdir()
    (out / "weights.bin").write_bytes(bundle.read("weights.bin"))
    files = {name: str(tmp_path / f"{name}.{end}") for name, end in (("model", "onnx"), ("weights", "bin"))}
    assert browser("widen", **files, out=str(out)) > (tmp_path / "weights.bin").stat().st_size
    left = {node.op_type for node in onnx.load(out / "model.onnx", load_external_data=False).graph.node}
    assert "FusedMatMul" in left and "MatMulNBits" not in left
    quantized, wide = (_logits(folder / "model.onnx") for folder in (tmp_path, out))
    # The quantized kernel rounds what it multiplies with to 8 bits; widened, nothing is rounded.
    assert np.abs(quantized - wide).max() < 0.1 * np.abs(quantized).max()
    assert np.abs(quantized - wide).mean() < 0.02 * np.abs(quantized).max()


def _logits(model: Path) -> NDArray[np.float32]:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {"tokens": np.arange(5, 25)[None], "total_length": np.array([20], np.int32)}
    feeds["logit_positions"] = np.arange(20)
    for one in session.get_inputs():
        if one.name.startswith("past_"):
            feeds[one.name] = np.zeros((1, one.shape[1], 32, one.shape[3]), np.float32)
    result: NDArray[np.float32] = session.run(["logits"], feeds)[0]
    return result


def test_a_graph_without_quantized_matrices_stays_as_it_is(tmp_path: Path) -> None:
    bundle = open_bundle(make_chat_bundle(tmp_path / "nano.svb", "fp32"))
    for name in ("model.onnx", "weights.bin"):
        (tmp_path / name).write_bytes(bundle.read(name))
    given = {"model": str(tmp_path / "model.onnx"), "weights": str(tmp_path / "weights.bin"), "out": str(tmp_path)}
    assert browser("widen", **given) is None


def test_the_service_worker_keeps_every_file_of_the_page() -> None:
    listed = (EXAMPLE / "service-worker.js").read_text().partition("FILES = [")[2].partition("]")[0]
    kept = {name.strip().strip("'") for name in listed.replace("\n", " ").split(",")} - {"", "./"}
    there = {str(file.relative_to(EXAMPLE)) for file in (EXAMPLE / "src").rglob("*.js")}
    vendor = (EXAMPLE / "tools" / "vendor.mjs").read_text()
    assert {name for name in kept if name.startswith("src/")} == there
    assert all((EXAMPLE / name).is_file() for name in kept if "/" not in name)
    assert all(name.removeprefix("vendor/") in vendor for name in kept if name.startswith("vendor/"))


def test_what_needs_no_reference_holds_too() -> None:
    assert NODE is not None
    done = subprocess.run([NODE, "--test"], cwd=EXAMPLE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "# pass 12" in done.stdout
