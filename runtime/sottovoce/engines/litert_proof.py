"""Whether an interpreter that is no longer maintained may answer: it may where the bundle's golden cases hold.

`tflite-runtime` is all that some devices have. It loads graphs whose int8 products it computes wrongly, and says
nothing: of whisper-tiny.en, fp32 is right there, int8 and fp16 are not. Knows golden cases; knows no interpreter.
"""

import json
from collections.abc import Callable

import numpy as np

from sottovoce.bundle import Bundle
from sottovoce.engines import BundleEngine
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.litert_model import CHOICES, Package
from sottovoce.errors import BundleError, EngineError

Check = Callable[[str], list[str]]  # what differs from the golden case of a name


def prove_speech(bundle: Bundle, package: Package, engine: BundleEngine) -> None:
    """Re-runs the golden cases of a speech bundle with the loaded `engine`.

    Raises EngineError naming what differs, or that there are none to hold it against.
    """
    # Golden cases are run with the parts of a loaded bundle, which loading this engine is one of.
    from sottovoce.audio import load_audio
    from sottovoce.decoding.grammar import Tokens
    from sottovoce.golden import Case, check_case
    from sottovoce.loading import TOKENS, Loaded
    from sottovoce.tokens import TokenTable, unpack_tokens

    tokens = Tokens.of(bundle.manifest.generation, engine.vocab_size)
    table = TokenTable(unpack_tokens(bundle.read(TOKENS)), tokens.end)
    loaded = Loaded(bundle, tokens, table, engine, None, {})

    def check(name: str) -> list[str]:
        case = Case.of(_read(bundle, name), name)
        # Without tokens it is a case of the voice activity detector, which another engine runs.
        return check_case(loaded, case, load_audio(bundle.read(case.audio))) if case.tokens else []

    _prove(bundle, package, check)


def prove_chat(bundle: Bundle, package: Package, engine: ChatEngine) -> None:
    """The same for a chat bundle; the sequence is empty afterwards."""
    from sottovoce.golden import differences
    from sottovoce.golden_chat import TEMPLATE_CASE, ChatCase

    def check(name: str) -> list[str]:
        if name == TEMPLATE_CASE:
            return []
        case = ChatCase.of(_read(bundle, name), name)
        engine.truncate(0)
        logits = engine.evaluate([*case.prompt, *case.tokens[:-1]], outputs=len(case.tokens)).astype(np.float64)
        top = logits.max(axis=-1, keepdims=True)
        shares = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        tokens = np.array(case.tokens)
        found = shares[np.arange(tokens.size), tokens]
        return differences(found, np.array(case.logprobs), logits.argmax(axis=-1) == tokens)

    _prove(bundle, package, check)
    engine.truncate(0)


def _prove(bundle: Bundle, package: Package, check: Check) -> None:
    from sottovoce.golden import case_names

    names = case_names(bundle)
    failures = [f"{name}: {what}" for name in names for what in check(name)]
    if names and not failures:
        return
    why = failures[0] if failures else "the bundle has no golden cases to hold it against"
    raise EngineError(
        f"{bundle.path}: {package.name} {package.version} may not answer, {why}\n"
        f"install its maintained successor instead: pip install {CHOICES[0][0]}"
    )


def _read(bundle: Bundle, name: str) -> dict[str, object]:
    try:
        found = json.loads(bundle.read(name))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not a golden case: {error}") from None
    if not isinstance(found, dict):
        raise BundleError(f"{name} is not a golden case: it holds no object")
    return found
