"""Opening a model to chat with, from a bundle or a plain GGUF file: everything a chat holds once it is loaded."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.bundle import Bundle, open_bundle
from sottovoce.chat.constraint import Constraints
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.plain_text import PlainText
from sottovoce.chat.prefix import PrefixCache
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.thinking import ThinkingTags, tags_of
from sottovoce.chat.tool_formats import PLAIN, ToolFormat
from sottovoce.chat.tools import format_of
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.opening import chat_engine
from sottovoce.errors import BundleError, InputError
from sottovoce.gguf import GgufFile
from sottovoce.manifest import printable

TEMPLATE = "chat_template.jinja"
NO_REPORT = "a plain GGUF file: nothing was measured on it, and nothing can be verified"
_GGUF_MAGIC = b"GGUF"
_COMPOSING = ("qwen2", "qwen35")  # pre-tokenizers of tokenizers that compose text first; a GGUF file does not say it
# What a GGUF file may recommend, by our names.
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


@dataclass(frozen=True, slots=True)
class LoadedChat:
    """The parts of an opened model. `identity` tells it from others; `note` is what a user should know of it, or ""."""

    engine: ChatEngine
    identity: str
    template: ChatTemplate | None
    form: ToolFormat
    tags: ThinkingTags | None
    defaults: Mapping[str, Any]
    constraints: Constraints
    prefix: PrefixCache
    plain: PlainText
    bundle: Bundle | None
    note: str
    composes: bool  # text is brought to Unicode's NFC before it becomes tokens; llama.cpp does not do it itself

    @classmethod
    def open(cls, path: Path, threads: int, context: int | None) -> "LoadedChat":
        """Raises BundleError for what is damaged, made for another task, or beyond this runtime; EngineError,
        MissingExtraError or InputError as the engine does."""
        return _open_plain(path, threads, context) if is_gguf(path) else _open_bundle(path, threads, context)


def is_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file and no bundle, by what it begins with."""
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False


def _open_plain(path: Path, threads: int, context: int | None) -> LoadedChat:
    from sottovoce.engines.llama_cpp.engine import LlamaCpp
    from sottovoce.engines.llama_cpp.state import fingerprint

    engine = LlamaCpp(path, threads=threads, context=context)
    engine.load()
    header = engine.gguf
    source = header.metadata.get("tokenizer.chat_template")
    template = source if isinstance(source, str) and source else None
    try:
        composes = str(header.metadata.get("tokenizer.ggml.pre")) in _COMPOSING
        tokens, sampling = _special_tokens(header), _sampling(header)
        return _assembled(engine, fingerprint(header).hex(), template, tokens, sampling, None, NO_REPORT, composes)
    except BaseException:
        engine.close()
        raise


def _open_bundle(path: Path, threads: int, context: int | None) -> LoadedChat:
    bundle = open_bundle(path)
    manifest = bundle.manifest
    if manifest.task != "chat":
        raise BundleError(f"{path} is a bundle for {manifest.task!r}; this one chats")
    note = "; ".join(bundle.check_runtime())
    template = None
    if TEMPLATE in manifest.files:
        template = _decoded(bundle, bundle.read(TEMPLATE))
    engine = chat_engine(bundle, threads, context)
    try:
        generation = manifest.generation
        identity = hashlib.sha256(repr(sorted(manifest.files.items())).encode()).hexdigest()
        composes = generation.get("composes") is True
        tokens = _texts(bundle, generation.get("special_tokens", {}))
        return _assembled(engine, identity, template, tokens, generation.get("sampling", {}), bundle, note, composes)
    except BaseException:
        engine.close()
        raise


def _assembled(
    engine: ChatEngine,
    identity: str,
    source: str | None,
    special_tokens: Mapping[str, str],
    defaults: Any,
    bundle: Bundle | None,
    note: str,
    composes: bool,
) -> LoadedChat:
    plain = PlainText(engine.vocabulary)
    plain.prepare()
    template = ChatTemplate(source, special_tokens=special_tokens) if source is not None else None
    return LoadedChat(
        engine=engine,
        identity=identity,
        template=template,
        form=format_of(template) if template else PLAIN,
        tags=tags_of(source) if source is not None else None,
        defaults=_checked(defaults),
        constraints=Constraints(engine.vocabulary),
        prefix=PrefixCache(engine),
        plain=plain,
        bundle=bundle,
        note=note,
        composes=composes,
    )


def _checked(defaults: Any) -> Mapping[str, Any]:
    """What the model recommends, once it is known to be possible."""
    if not isinstance(defaults, Mapping):
        raise BundleError(f"the model's sampling settings are {printable(repr(defaults))}; an object is needed")
    try:
        ChatOptions.of(defaults)
    except InputError as error:
        raise BundleError(f"the model's sampling settings: {error}") from None
    return dict(defaults)


def _sampling(header: GgufFile) -> dict[str, Any]:
    found = {name: header.metadata.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _special_tokens(header: GgufFile) -> dict[str, str]:
    """The variables that templates read, by the ids that the metadata name."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found = {}
    for name, key in named.items():
        index = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(tokens, list) and isinstance(index, int) and 0 <= index < len(tokens):
            found[name] = tokens[index]
    return found


def _texts(bundle: Bundle, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise BundleError(f"{bundle.path}: the manifest's special_tokens are not texts")
    return dict(value)


def _decoded(bundle: Bundle, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{bundle.path}: {TEMPLATE} is not UTF-8 text") from None
