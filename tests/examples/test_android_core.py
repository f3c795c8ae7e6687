"""The Android example's module without Android, compiled and run on a workstation's Java.

Bundle reader, grammar, decoder, captions: the engine is the runtime's, over two pipes; what is compared is all else.
"""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import kotlin
import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce.bundle import open_bundle
from sottovoce.engines import DecodeBatch
from sottovoce.loading import Loaded
from sottovoce.pieces import Piece, PieceDecoder
from sottovoce.types import TranscribeOptions
from sottovoce.vad import VoiceStream
from sottovoce_compiler.pack import write_bundle

CORE = Path(__file__).parents[2] / "examples" / "android" / "core" / "src"
RESULT, START, RESTART, RUN, SPEECH = range(5)
TEXT_CONTEXT = 448
Float = NDArray[np.float32]
Run = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(kotlin.missing() is not None, reason=kotlin.missing() or "")


class Engine:
    """Answers what the program on the other end asks for."""

    def __init__(self, process: "subprocess.Popen[bytes]", loaded: Loaded | None) -> None:
        assert process.stdin and process.stdout
        self._in: IO[bytes] = process.stdout
        self._out: IO[bytes] = process.stdin
        self._loaded = loaded
        self._batch: DecodeBatch | None = None
        self._heard = VoiceStream(loaded.vad) if loaded and loaded.vad else None

    def serve(self) -> str:
        while True:
            (operation,) = struct.unpack(">b", self._read(1))
            if operation == RESULT:
                return self._read(self._number()).decode()
            if operation == START:
                assert self._loaded
                self._batch = self._loaded.engine.start([self._floats()], TEXT_CONTEXT)
            elif operation == RESTART:
                assert self._batch
                self._batch.restart()
            elif operation == RUN:
                self._run()
            elif operation == SPEECH:
                assert self._heard
                found = self._heard.push(self._floats())
                self._out.write(struct.pack(">i", found.size) + found.astype(">f4").tobytes())
                self._out.flush()

    def _run(self) -> None:
        assert self._batch
        tokens = [self._number() for _ in range(self._number())]
        positions = [self._number() for _ in range(self._number())]
        logits = self._batch.run(np.array([tokens], np.int64), positions)[0]
        self._out.write(logits.astype(">f4").tobytes())
        self._out.flush()

    def _number(self) -> int:
        value: int = struct.unpack(">i", self._read(4))[0]
        return value

    def _floats(self) -> Float:
        return np.frombuffer(self._read(4 * self._number()), ">f4").astype(np.float32)

    def _read(self, count: int) -> bytes:
        data = self._in.read(count)
        assert len(data) == count, "the program ended early"
        return data


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of the compiled module and its test program."""
    return kotlin.compile_kotlin(
        [CORE / "main" / "kotlin", CORE / "test" / "kotlin"], tmp_path_factory.mktemp("classes")
    )


@pytest.fixture
def run(program: str, tmp_path: Path) -> Run:
    def call(bundle: Path, samples: Float, mode: str, loaded: Loaded | None = None) -> list[str]:
        (tmp_path / "samples.f32").write_bytes(samples.astype("<f4").tobytes())
        arguments: list[Any] = [bundle, tmp_path / "samples.f32", mode, tmp_path / "unpacked"]
        command = ["java", "-cp", program, "sottovoce.core.ParityKt", *map(str, arguments)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                return Engine(process, loaded).serve().splitlines()
            finally:
                process.kill()

    return call


def of_runtime(loaded: Loaded, samples: Float) -> tuple[list[str], str]:
    """What the runtime makes of one piece, without second looks."""
    decoder = PieceDecoder(loaded.engine, loaded.tokens, loaded.table, TranscribeOptions())
    begun = decoder.begin([Piece(samples, 0)])
    language = begun.heard[0].language
    ((segments, _),) = decoder._decode_once(begun, [language], [])
    return [f"{one.start:.3f} {one.end:.3f}{one.text}" for one in segments], language


@pytest.mark.weights
def test_a_piece_has_the_segments_of_the_runtime_and_captions_its_words(tiny_bundle: Path, run: Run) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    loaded = Loaded.open(tiny_bundle, 1)
    spoken = [clip for clip in builtin_set().clips if clip.name.startswith(("two-cities-24", "beckett-00"))]
    assert len(spoken) == 2
    for clip in spoken:
        samples = load_audio(clip.file)
        segments, _ = of_runtime(loaded, samples)
        assert run(tiny_bundle, samples, "piece", loaded) == [*segments, "language null"]
    silence = np.zeros(8000, np.float32)
    samples = np.concatenate([load_audio(spoken[0].file), silence, silence])
    said = run(tiny_bundle, samples, "captions", loaded)
    finals = " ".join(line.removeprefix("final ") for line in said if line.startswith("final "))
    assert "direct to heaven" in finals and any(line.startswith("partial ") for line in said)


def test_a_random_multilingual_model_hears_the_same_language(random_bundle: Path, run: Run, tmp_path: Path) -> None:
    loaded = Loaded.open(random_bundle, 1)
    bundle = open_bundle(random_bundle)
    # The program unpacks a voice activity network too; this model has none, and never asks it.
    files = {name: bundle.read(name) for name in bundle.manifest.files} | {"vad.onnx": b"unused"}
    fields = {key: value for key, value in bundle.manifest.raw.items() if key not in ("format", "files")}
    with_vad = write_bundle(tmp_path / "with-vad.svb", fields, files)
    samples = np.random.default_rng(5).normal(0, 0.1, 40_000).astype(np.float32)
    found = run(with_vad, samples, "piece", loaded)
    assert found[-1] == f"language {of_runtime(loaded, samples)[1]}"


def test_a_damaged_bundle_is_refused_by_name(random_bundle: Path, run: Run, tmp_path: Path) -> None:
    whole, weights = random_bundle.read_bytes(), open_bundle(random_bundle).locate("weights.bin")
    places = {"manifest.json": whole.index(b'"task"') + 1, "weights.bin": weights.offset + weights.size // 2}
    for name, at in places.items():
        (tmp_path / "damaged.svb").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (said,) = run(tmp_path / "damaged.svb", np.zeros(16_000, np.float32), "piece")
        assert said.startswith("error: ") and name in said and "damaged" in said
        assert not (tmp_path / "unpacked" / name).exists()
    (tmp_path / "damaged.svb").write_bytes(whole[:-5000])
    (said,) = run(tmp_path / "damaged.svb", np.zeros(16_000, np.float32), "piece")
    assert said.startswith("error: damaged, or not a bundle")
