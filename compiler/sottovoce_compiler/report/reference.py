"""The source at full precision: transformers' own Whisper in float32, the truth that an artifact is held
against.

Knows transformers and a `Checkpoint`. Shares no code with our lowering: features come from transformers'
extractor, tokens from its `generate`. Every window is the full 30 s, decoded greedily with timestamps, and
audio that is longer is walked through window by window at the timestamps said (Radford et al. 2022, section
3.8), without the previous text as a prompt. Looping and doubtful windows are decoded again at a higher
temperature, and silent ones dropped, by the paper's thresholds (section 4.5); what is drawn there comes from
a fixed seed.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.report.whisper_config import SpecialTokens, make_generation_config, special_tokens
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples between two mel frames
SECONDS_PER_TIMESTAMP = 0.02  # one encoder position: two mel frames
NO_SPEECH_THRESHOLD = 0.6
LOG_PROB_THRESHOLD = -1.0
COMPRESSION_RATIO_THRESHOLD = 2.4
TEMPERATURES = (0.0, 0.4, 0.8)  # the paper has six, by 0.2; each is another pass over the window's tokens
RULES = 1  # raise it when anything here changes what is transcribed: cached transcripts carry it
WINDOWS_PER_BATCH = 8
SHORTEST_REST = 0.1  # seconds left at the end that are not worth a window

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the source says of one recording; `language` is the one heard, None for an English-only model.

    `tokens` are those of all windows, timestamps included; `avg_logprob` is their mean natural log
    probability.
    """

    text: str
    language: str | None
    language_probability: float | None
    tokens: tuple[int, ...]
    avg_logprob: float


class SourceModel:
    """A Whisper checkpoint in transformers, float32 on the CPU; cheap to make, `load` reads the weights."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._parts: _Parts | None = None

    def load(self) -> "_Parts":
        """Reads the weights, one tensor at a time; a missing or misshapen one is a `SourceError` that names
        it.
        """
        if self._parts is None:
            self._parts = _load(self.checkpoint)
        return self._parts

    def transcribe(
        self,
        recordings: Sequence[Samples],
        languages: Sequence[str | None],
        progress: Callable[[int], None] = lambda finished: None,
    ) -> list[Transcript]:
        """One transcript for each recording of float32 samples at 16 kHz, shape (samples,), of any length.

        A language of None is detected in the first window. `progress` is told how many recordings have
        finished.
        """
        parts = self.load()
        runs = [_Run(samples, language) for samples, language in zip(recordings, languages, strict=True)]
        while waiting := [run for run in runs if not run.finished]:
            _decode_windows(parts, waiting[:WINDOWS_PER_BATCH])
            progress(sum(run.finished for run in runs))
        return [_transcript(parts, run) for run in runs]


@dataclass(frozen=True)
class _Parts:
    model: Any  # WhisperForConditionalGeneration: transformers' classes are not typed
    extractor: Any  # WhisperFeatureExtractor
    special: SpecialTokens
    vocabulary: Sequence[bytes | str]
    window: int  # samples


class _Run:
    """How far one recording has been heard."""

    def __init__(self, samples: Samples, language: str | None) -> None:
        self.samples = samples
        self.language = language  # what is decoded
        self.heard: tuple[str, float] | None = None  # what was detected, with its probability
        self.started = False
        self.position = 0  # sample at which the next window starts
        self.tokens: list[int] = []
        self.log_probs: list[float] = []

    @property
    def finished(self) -> bool:
        return self.started and len(self.samples) - self.position < SHORTEST_REST * SAMPLE_RATE

    def window(self, parts: _Parts) -> Samples:
        return self.samples[self.position : self.position + parts.window]


def _load(checkpoint: Checkpoint) -> _Parts:
    import torch
    import transformers

    special = special_tokens(checkpoint)
    library: Any = transformers  # not typed
    config = library.WhisperConfig.from_dict({**checkpoint.config, "dtype": "float32"})
    with torch.device("meta"):
        model = library.WhisperForConditionalGeneration(config)
    model.load_state_dict(_state(checkpoint, model.state_dict()), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = make_generation_config(checkpoint, special)
    window_frames = 2 * config.max_source_positions
    extractor = library.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=window_frames * HOP // SAMPLE_RATE, hop_length=HOP
    )
    return _Parts(model.eval(), extractor, special, checkpoint.vocabulary, window_frames * HOP)


def _state(checkpoint: Checkpoint, expected: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The tensors the model expects, in float32, from the checkpoint; the tied head is the embedding."""
    import torch

    stored = set(checkpoint.tensors.names())
    state: dict[str, torch.Tensor] = {}
    for name, empty in expected.items():
        source = "model.decoder.embed_tokens.weight" if name == "proj_out.weight" and name not in stored else name
        if source not in stored:
            raise SourceError(f"{checkpoint.spec} has no tensor {source}; a Whisper checkpoint needs it")
        if source in state:
            state[name] = state[source]
            continue
        array = np.ascontiguousarray(checkpoint.tensors.load(source), dtype=np.float32)
        if array.shape != tuple(empty.shape):
            raise SourceError(
                f"{checkpoint.spec}: tensor {source} has shape {array.shape}, "
                f"by config.json it has {tuple(empty.shape)}"
            )
        state[name] = torch.from_numpy(array)
    return state


@dataclass(frozen=True, slots=True)
class _Window:
    """What was said in one window: tokens without the end token, and their mean log probability with it."""

    tokens: list[int]
    log_prob: float
    no_speech: float
    compression_ratio: float

    @property
    def is_silent(self) -> bool:
        return self.no_speech > NO_SPEECH_THRESHOLD and self.log_prob < LOG_PROB_THRESHOLD

    @property
    def is_doubtful(self) -> bool:
        looping = self.compression_ratio > COMPRESSION_RATIO_THRESHOLD
        return not self.is_silent and (looping or self.log_prob < LOG_PROB_THRESHOLD)


def _decode_windows(parts: _Parts, runs: list[_Run]) -> None:
    """Decodes the next window of each run, and moves each run on."""
    import torch

    with torch.inference_mode(), torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(0)
        features = parts.extractor(
            [run.window(parts) for run in runs], sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        encoded = parts.model.model.encoder(features).last_hidden_state
        no_speech = _listen(parts, encoded, runs)
        windows: list[_Window | None] = [None] * len(runs)
        for temperature in TEMPERATURES:
            again = [i for i, window in enumerate(windows) if window is None or window.is_doubtful]
            said = _generate(parts, encoded[again], [runs[i] for i in again], temperature)
            for i, (tokens, log_prob) in zip(again, said, strict=True):
                ratio = _compression_ratio(_text(parts, tokens))
                windows[i] = _Window(tokens, log_prob, no_speech[i], ratio)
    for run, window in zip(runs, windows, strict=True):
        assert window is not None
        _take(parts, run, window)


def _take(parts: _Parts, run: _Run, window: _Window) -> None:
    length = len(run.window(parts))
    kept, samples = ([], length) if window.is_silent else _advance(window.tokens, parts.special.timestamp_begin, length)
    run.tokens += kept
    run.log_probs += [window.log_prob] * len(kept)
    run.position += samples
    run.started = True


def _listen(parts: _Parts, encoded: "torch.Tensor", runs: list[_Run]) -> list[float]:
    """One decoder step on the start token: sets each run's language where it has none; the no-speech
    probabilities.
    """
    import torch

    start = torch.full((len(runs), 1), parts.special.start)
    logits = parts.model(encoder_outputs=(encoded,), decoder_input_ids=start).logits[:, 0]
    languages = list(parts.special.languages)
    for run, row in zip(runs, logits, strict=True):
        if languages and run.heard is None:
            shares = row[[parts.special.languages[code] for code in languages]].softmax(-1)
            best = int(shares.argmax())
            run.heard = languages[best], float(shares[best])
            run.language = run.language or languages[best]
    return [float(share) for share in logits.softmax(-1)[:, parts.special.no_speech]]


def _generate(
    parts: _Parts, encoded: "torch.Tensor", runs: list[_Run], temperature: float
) -> Iterator[tuple[list[int], float]]:
    """Tokens of each run's window without the end token, and their mean log probability with it."""
    from transformers.modeling_outputs import BaseModelOutput

    if not runs:
        return
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0}
    if parts.special.languages:
        options |= {"language": [run.language for run in runs], "task": "transcribe"}
    output = parts.model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
        return_timestamps=True,
        force_unique_generate_call=True,
        return_dict_in_generate=True,
        output_scores=True,
        max_new_tokens=parts.model.config.max_target_positions // 2,  # as the published decoder
        **options,
    )
    log_probs = parts.model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    said = output.sequences[:, -len(output.scores) :].tolist()
    for tokens, scores in zip(said, log_probs.tolist(), strict=True):
        length = tokens.index(parts.special.end) if parts.special.end in tokens else len(tokens)
        yield tokens[:length], float(np.mean(scores[: length + 1]))


def _advance(tokens: list[int], timestamp_begin: int, length: int) -> tuple[list[int], int]:
    """The tokens to keep of a window of `length` samples, and by how many samples to go on.

    Two timestamps in a row end one segment and begin the next. If the last thing said is such a pair, or text
    after one, the window stops in the middle of a segment: go on from the pair, and drop what follows it.
    """
    is_time = [token >= timestamp_begin for token in tokens]
    pairs = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not pairs or (len(tokens) >= 2 and is_time[-1] and not is_time[-2]):
        return tokens, length
    seconds = (tokens[pairs[-1] - 1] - timestamp_begin) * SECONDS_PER_TIMESTAMP
    samples = round(seconds * SAMPLE_RATE)
    if not 0 < samples < length:
        return tokens, length
    return tokens[: pairs[-1]], samples


def _transcript(parts: _Parts, run: _Run) -> Transcript:
    language, probability = run.heard or (None, None)
    average = float(np.mean(run.log_probs)) if run.log_probs else 0.0
    return Transcript(_text(parts, run.tokens).strip(), language, probability, tuple(run.tokens), average)


def _text(parts: _Parts, tokens: Sequence[int]) -> str:
    """The bytes of the ordinary tokens as UTF-8; special tokens and timestamps are nothing that is said."""
    known = (parts.vocabulary[token] for token in tokens if token < len(parts.vocabulary))
    return b"".join(token for token in known if isinstance(token, bytes)).decode("utf-8", "replace")


def _compression_ratio(text: str) -> float:
    """Bytes of the text for each byte that zlib makes of it: high where it repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' advice about flags, which its own `generate` causes, off the user's terminal."""
    import logging

    from transformers.utils.logging import get_verbosity, set_verbosity

    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)
