"""Which engine a bundle is opened with: the one that its manifest names, or what stands in for it. Engines are imported
when one is opened."""

from sottovoce.bundle import COREML, LITERT, LLAMA_CPP, Bundle
from sottovoce.engines import BundleEngine
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.stand_in import stand_in_for
from sottovoce.errors import BundleError
from sottovoce.manifest import printable

GGUF_FILE = "model.gguf"  # of a chat bundle for llama.cpp


def speech_engine(bundle: Bundle, threads: int) -> BundleEngine:
    """The engine of a speech bundle, not loaded yet. Raises BundleError for one that this runtime does not have."""
    name = bundle.manifest.engine.name
    if (other := stand_in_for(name)) is not None and other.speech is not None:
        return other.speech(bundle, threads)
    if name == "onnxruntime":
        from sottovoce.engines.onnxruntime import OnnxWhisper

        return OnnxWhisper(bundle, threads)
    if name == LITERT:
        from sottovoce.engines.litert import LiteRtWhisper

        return LiteRtWhisper(bundle, threads)
    if name == COREML:
        from sottovoce.engines.coreml import core_ml_speech

        return core_ml_speech(bundle)
    raise BundleError(
        f"{bundle.path}: made for {printable(name)!r}; this runtime transcribes with onnxruntime or LiteRT"
    )


def chat_engine(bundle: Bundle, threads: int, context: int | None) -> ChatEngine:
    """The loaded engine of a chat bundle. Raises BundleError for one that this runtime does not have."""
    name = bundle.manifest.engine.name
    made = bundle.manifest.model.get("context")
    if not isinstance(made, int) or isinstance(made, bool) or made < 1:
        raise BundleError(f"{bundle.path}: the manifest has context = {made!r:.50}; a whole number is needed")
    if (other := stand_in_for(name)) is not None and other.chat is not None:
        return other.chat(bundle, threads, context)
    if name == LLAMA_CPP:
        from sottovoce.engines.llama_cpp.engine import LlamaCpp

        engine = LlamaCpp(bundle.locate(GGUF_FILE), threads=threads, context=context or made)
        engine.load()
        return engine
    if name == "onnxruntime":
        from sottovoce.engines.onnxruntime_chat import OnnxChat

        onnx = OnnxChat(bundle, threads, context)
        onnx.load()
        return onnx
    if name == LITERT:
        from sottovoce.engines.litert_chat import LiteRtChat

        litert = LiteRtChat(bundle, threads, context)
        litert.load()
        return litert
    if name == COREML:
        from sottovoce.engines.coreml import core_ml_chat

        return core_ml_chat(bundle, context)
    raise BundleError(
        f"{bundle.path}: made for {printable(name)!r}; this runtime chats with llama.cpp, onnxruntime or LiteRT"
    )
