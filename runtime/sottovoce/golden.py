"""Golden cases: what a bundle said when it was made, and whether this device's engine still agrees.

A case is a short recording, the tokens that the bundle chose for it, and the log probability of each. The device feeds
the same tokens and compares probabilities: kernels differ between processors by rounding, which moves them a little; a
wrong kernel, a saturating one or a wrong weight moves them a lot. A case without tokens is sound without speech, and
the bundle must find no words in it. Knows the loaded parts of a bundle; knows nothing of how cases are chosen.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio import load_audio
from sottovoce.bundle import Bundle, open_bundle
from sottovoce.engines import Float
from sottovoce.errors import BundleError, InputError, SottovoceError
from sottovoce.loading import Loaded
from sottovoce.pieces import Piece, PieceDecoder
from sottovoce.types import TranscribeOptions

FOLDER = "golden/"
# Chosen, not yet measured across processors: wide enough for another rounding, far below what a wrong kernel does.
MAX_MEAN_DIFFERENCE = 0.15  # nats a token
MIN_SAME_CHOICE = 0.85  # share of tokens that are still the likeliest
_MAX_TOKENS = 400

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One golden case; `tokens` are without the prompt and the end, `logprobs` has one more value, for the end."""

    audio: str
    language: str
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any], name: str) -> "Case":
        """Raises BundleError naming the case when it is not one."""
        try:
            case = cls(
                str(raw["audio"]),
                str(raw["language"]),
                str(raw["text"]),
                tuple(int(token) for token in raw["tokens"]),
                tuple(float(value) for value in raw["logprobs"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{name} is not a golden case: {error!r}") from None
        if len(case.tokens) > _MAX_TOKENS or (case.tokens and len(case.logprobs) != len(case.tokens) + 1):
            raise BundleError(f"{name} has {len(case.tokens)} tokens and {len(case.logprobs)} log probabilities")
        if case.tokens and min(case.tokens) < 0:
            raise BundleError(f"{name} has the token {min(case.tokens)}; none is below 0")
        return case


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """`checks` are all things looked at, `failures` those that differ, each with what was expected and found."""

    ok: bool
    checks: tuple[str, ...]
    failures: tuple[str, ...]


def verify(path: str | os.PathLike[str], threads: int | None = None) -> VerifyResult:
    """Re-check a bundle on this device: checksums, compatibility, golden cases.

    A damaged bundle is a result with failures. Raises InputError when there is nothing at `path`.
    """
    if not Path(path).exists():
        raise InputError(f"there is no bundle at {path}")
    from sottovoce.chat.loading import is_gguf  # speech needs nothing else of it

    if is_gguf(Path(path)):
        raise InputError(
            f"{path} is a plain GGUF file, with nothing to verify it by; `sottovoce compile` makes a bundle"
        )
    checks: list[str] = []
    failures: list[str] = []
    try:
        bundle = open_bundle(path)
        failures += bundle.check_all()
        checks.append(f"checksums of {len(bundle.manifest.files)} files")
        if not failures:
            notes = bundle.check_runtime()
            checks += [f"runtime, engine and processor{''.join(f' ({note})' for note in notes)}"]
            _check_cases(bundle, threads or min(4, os.cpu_count() or 1), checks, failures)
    except SottovoceError as error:
        failures.append(str(error))
    return VerifyResult(not failures, tuple(checks), tuple(failures))


def case_names(bundle: Bundle) -> list[str]:
    return sorted(name for name in bundle.manifest.files if name.startswith(FOLDER) and name.endswith(".json"))


def _check_cases(bundle: Bundle, threads: int, checks: list[str], failures: list[str]) -> None:
    if not case_names(bundle):
        failures.append("the bundle has no golden cases: nothing shows that it still says what it said")
    elif bundle.manifest.task == "chat":
        from sottovoce import golden_chat

        golden_chat.check_cases(bundle, threads, checks, failures)
    else:
        _check_speech(bundle, threads, checks, failures)


def _check_speech(bundle: Bundle, threads: int, checks: list[str], failures: list[str]) -> None:
    loaded = Loaded.open(bundle.path, threads)
    try:
        for name in case_names(bundle):
            case = _read_case(bundle, name)
            found = check_case(loaded, case, load_audio(bundle.read(case.audio)))
            checks.append(f"{name}: {case.text.strip() or 'no words in sound without speech'}")
            failures += [f"{name}: {what}" for what in found]
    finally:
        loaded.engine.close()


def _read_case(bundle: Bundle, name: str) -> Case:
    try:
        return Case.of(json.loads(bundle.read(name)), name)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{name} is not a golden case: {error}") from None


def check_case(loaded: Loaded, case: Case, samples: Float) -> list[str]:
    """What differs from the case, one line each."""
    if not case.tokens:
        pieces = loaded.cut(samples, TranscribeOptions()).pieces
        return ["speech was found in sound that has none"] if pieces else []
    if max(case.tokens) >= loaded.engine.vocab_size:
        return [f"token {max(case.tokens)} is beyond the vocabulary of {loaded.engine.vocab_size}"]
    logprobs, likeliest = score(loaded, samples, case.language, case.tokens)
    return differences(logprobs, np.array(case.logprobs), likeliest[:-1] == np.array(case.tokens))


def differences(found: Logprobs, expected: Logprobs, chosen: NDArray[np.bool_]) -> list[str]:
    """What is beyond the tolerances, one line each: of log probabilities, and of whether each token is still the
    likeliest."""
    difference = float(np.abs(found - expected).mean())
    same = float(np.mean(chosen))
    problems = []
    if not difference <= MAX_MEAN_DIFFERENCE:  # NaN must fail too
        problems.append(
            f"log probabilities differ by {difference:.3f} on average, more than {MAX_MEAN_DIFFERENCE}: "
            "this engine or processor computes something else"
        )
    if same < MIN_SAME_CHOICE:
        problems.append(f"{same:.0%} of the tokens are still the likeliest, fewer than {MIN_SAME_CHOICE:.0%}")
    return problems


def choose(loaded: Loaded, samples: Float, language: str) -> tuple[int, ...]:
    """The text tokens that the bundle chooses for one piece of audio, greedily and without timestamps."""
    options = TranscribeOptions(language=language, temperature=(0.0,), without_timestamps=True)
    decoder = PieceDecoder(loaded.engine, loaded.tokens, loaded.table, options)
    (segments,) = decoder.decode(decoder.begin([Piece(samples, 0)]), [language])
    return tuple(token for segment in segments for token in segment.tokens)


def score(loaded: Loaded, samples: Float, language: str, tokens: Sequence[int]) -> tuple[Logprobs, NDArray[np.int64]]:
    """Log probability of each of `tokens` and then the end, and the likeliest token in each of their places.

    Plain probabilities over the whole vocabulary, with no token forbidden, without timestamps.
    """
    prompt = loaded.tokens.prompt(language, "transcribe", timestamps=False)
    fed = [*prompt, *tokens]
    batch = loaded.engine.start([samples], len(fed))
    places = range(len(prompt) - 1, len(fed))
    logits = batch.run(np.array([fed], np.int64), list(places))[0].astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    shares = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    wanted = np.array([*tokens, loaded.tokens.end])
    return shares[np.arange(len(wanted)), wanted], logits.argmax(axis=-1)
