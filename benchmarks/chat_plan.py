"""What a run of chat.py does and on what: the plan, and the models with their bundles. Measures nothing."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sottovoce.bundle import Location, open_bundle
from sottovoce.chat.loading import is_gguf
from sottovoce.engines.opening import GGUF_FILE

LLAMA_CPP, ONNXRUNTIME = "llama.cpp", "onnxruntime"


@dataclass(frozen=True, slots=True)
class Plan:
    """`repetitions` are counted rounds; `tokens` the length of an answer; `prompts` lengths of prompts in tokens."""

    stages: tuple[str, ...]
    threads: int
    repetitions: int
    rest_s: float
    tokens: int
    prompts: tuple[int, ...]
    history: int
    context: int
    text: Path | None
    text_tokens: int
    precisions: tuple[str, ...]
    onnx_precisions: tuple[str, ...]
    quantized_values: int
    work: Path


@dataclass(frozen=True, slots=True)
class ChatBundle:
    """One packed model: a bundle, or a plain GGUF file, with the engine and precision that it names."""

    path: Path
    engine: str
    precision: str

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.engine} {self.precision}"

    def gguf(self) -> Location:
        """Where its GGUF lies."""
        return Location(self.path, 0, -1) if is_gguf(self.path) else open_bundle(self.path).locate(GGUF_FILE)

    def gguf_file(self, work: Path) -> Path:
        """Its GGUF as a file of its own, which other programs want; copied out of the bundle once."""
        if is_gguf(self.path):
            return self.path
        where = self.gguf()
        facts = where.path.stat()
        key = hashlib.sha256(f"{where.path.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
        copy = work / f"{key}.gguf"
        if not copy.exists():
            work.mkdir(parents=True, exist_ok=True)
            part = copy.with_suffix(".part")
            with where.path.open("rb") as source, part.open("wb") as into:
                source.seek(where.offset)
                left = where.size
                while left > 0 and (piece := source.read(min(left, 1 << 20))):
                    left -= into.write(piece)
            shutil.move(part, copy)
        return copy


@dataclass(frozen=True, slots=True)
class ChatModel:
    """One source with all its bundles, and folders of onnxruntime-genai by what they are called."""

    spec: str
    bundles: tuple[ChatBundle, ...]
    genai: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The source's name; of a path its last part, as folders are nobody's business."""
        return Path(self.spec).stem if Path(self.spec).expanduser().exists() else self.spec

    def of(self, engine: str) -> tuple[ChatBundle, ...]:
        """Those that this engine runs."""
        return tuple(bundle for bundle in self.bundles if bundle.engine == engine)


def read_bundle(path: Path) -> ChatBundle:
    """What lies at `path`, by its manifest; of a plain GGUF file only the engine is known."""
    if is_gguf(path):
        return ChatBundle(path, LLAMA_CPP, "as given")
    manifest = open_bundle(path).manifest
    return ChatBundle(path, manifest.engine.name, manifest.precision)


def grouped(
    pairs: Sequence[tuple[str, Path | None]], genai: Sequence[tuple[str, str, Path]] = ()
) -> tuple[ChatModel, ...]:
    """One model a source, in the order of its first mention; `genai` are a source, a name and a folder."""
    bundles: dict[str, list[ChatBundle]] = {}
    for spec, path in pairs:
        bundles.setdefault(spec, []).extend([] if path is None else [read_bundle(path)])
    folders: dict[str, dict[str, Path]] = {}
    for spec, name, folder in genai:
        folders.setdefault(spec, {})[name] = folder
    return tuple(ChatModel(spec, tuple(found), folders.get(spec, {})) for spec, found in bundles.items())
