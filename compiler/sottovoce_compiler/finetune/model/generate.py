"""Greedy answers of a model that is being trained, many prompts at once, for evaluation.

Prompts go through the model packed, like examples; then every text of a batch takes a token a step, over keys and
values that are kept. Knows a `Decoder` and token ids. Nothing of the training state changes.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch.nn import functional

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.model.decoder import Attend, Decoder, DecoderLayer, attend_within, window_of
from sottovoce_kernels.segments import Segments

# Positions whose keys and values are kept at once: 0.75 GB in float32 for 30 layers of 3 heads of 64.
_KEPT_POSITIONS = 1 << 14


@torch.no_grad()
def generate(
    model: Decoder, prompts: Sequence[Sequence[int]], *, max_tokens: int, stop: Collection[int] = ()
) -> list[list[int]]:
    """For each prompt up to `max_tokens` tokens, each the likeliest after those before it; without the one of `stop`
    that ended it. A text ends where the model's context does.

    Raises InputError for a prompt without tokens, or with as many as the context has.
    """
    if max_tokens < 1:
        raise InputError(f"answers of {max_tokens} tokens; one or more are generated")
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) < model.spec.context:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens; the model takes 1 to {model.spec.context - 1} and answers"
            )
    training = model.training
    model.eval()
    try:
        answers: dict[int, list[int]] = {}
        for batch in _batches(prompts, max_tokens):
            found = _Batch(model, [prompts[index] for index in batch], max_tokens, frozenset(stop)).answers()
            answers.update(zip(batch, found, strict=True))
    finally:
        model.train(training)
    return [answers[index] for index in range(len(prompts))]


def _batches(prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts that are answered together: of similar length, and no more than fit `_KEPT_POSITIONS`."""
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        if batch and (len(batch) + 1) * (len(prompts[index]) + max_tokens) > _KEPT_POSITIONS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _Batch:
    """Texts that grow by a token a step. Rows of the cache are the texts that have not ended: `alive`."""

    def __init__(self, model: Decoder, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]) -> None:
        self.model, self.stop = model, stop
        self.prompts = prompts
        self.limits = [min(max_tokens, model.spec.context - len(prompt)) for prompt in prompts]
        self.found: list[list[int]] = [[] for _ in prompts]
        self.alive = list(range(len(prompts)))
        self.device = model.embed.device
        spec = model.spec
        room = max(len(prompt) + limit for prompt, limit in zip(prompts, self.limits, strict=True))
        shape = (len(prompts), spec.kv_heads, room, spec.head_width)
        self.keys, self.values = (
            [torch.zeros(shape, dtype=model.dtype, device=self.device) for _ in range(spec.layers)] for _ in range(2)
        )

    def answers(self) -> list[list[int]]:
        logits = self._read()
        while self._take(logits.argmax(dim=-1).tolist()):
            logits = self._step()
        return self.found

    def _read(self) -> torch.Tensor:
        """Logits (texts, vocabulary) after each prompt, whose keys and values are kept."""
        segments = Segments.of([len(prompt) for prompt in self.prompts], self.device)
        tokens = torch.tensor([token for prompt in self.prompts for token in prompt], device=self.device)
        positions = torch.cat([torch.arange(length) for length in segments.lengths]).to(self.device)
        rows = torch.arange(len(self.prompts)).repeat_interleave(torch.tensor(segments.lengths)).to(self.device)
        within = attend_within(segments)

        def attend(layer: DecoderLayer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.keys[layer.index][rows, :, positions] = k
            self.values[layer.index][rows, :, positions] = v
            return within(layer, q, k, v)

        rotations = self.model.rotations.for_lengths(positions, segments.lengths, self._lengths())
        hidden = self.model.run(tokens, rotations, attend)
        return self.model.logits_of(hidden[segments.offsets[1:].long() - 1])

    def _step(self) -> torch.Tensor:
        """Logits (alive, vocabulary) after the last token of each text."""
        tokens = torch.tensor([self.found[text][-1] for text in self.alive], device=self.device)
        positions = torch.tensor(
            [len(self.prompts[text]) + len(self.found[text]) - 1 for text in self.alive], device=self.device
        )
        ones = (1,) * len(self.alive)
        rotations = self.model.rotations.for_lengths(positions, ones, self._lengths())
        return self.model.logits_of(self.model.run(tokens, rotations, self._attend_to_kept(positions)))

    def _attend_to_kept(self, positions: torch.Tensor) -> Attend:
        """One query a text (at `positions`), over what is kept of it and itself."""
        spec, rows = self.model.spec, torch.arange(len(self.alive), device=self.device)
        length = int(positions.max()) + 1
        back = positions[:, None] - torch.arange(length, device=self.device)  # how far behind the query a key is
        seen = {
            window: ((back >= 0) & (back < (window or length)))[:, None, None]
            for window in {window_of(spec, layer) for layer in range(spec.layers)}
        }

        def attend(layer: DecoderLayer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer.index], self.values[layer.index]
            keys[rows, :, positions] = k
            values[rows, :, positions] = v
            # The queries of a group share keys: they are rows of one product.
            out = functional.scaled_dot_product_attention(
                q.view(len(q), spec.kv_heads, -1, spec.head_width),
                keys[:, :, :length],
                values[:, :, :length],
                attn_mask=seen[window_of(spec, layer.index)],
                scale=spec.attention_scale,
            )
            return out.flatten(1, 2)

        return attend

    def _take(self, tokens: Sequence[int]) -> bool:
        """Note the token of each text that is alive; whether any still is."""
        going: list[int] = []
        for row, (text, token) in enumerate(zip(self.alive, tokens, strict=True)):
            if token in self.stop:
                continue
            self.found[text].append(token)
            if len(self.found[text]) < self.limits[text]:
                going.append(row)
        if len(going) < len(self.alive):
            self._keep(going)
        return bool(self.alive)

    def _keep(self, rows: Sequence[int]) -> None:
        """Let go of the texts that ended, a layer at a time."""
        self.alive = [self.alive[row] for row in rows]
        chosen = torch.tensor(rows, dtype=torch.int64, device=self.device)
        for kept in (self.keys, self.values):
            for layer, tensor in enumerate(kept):
                kept[layer] = tensor[chosen]

    def _lengths(self) -> tuple[int, ...]:
        """What each text that is alive may grow to."""
        return tuple(len(self.prompts[text]) + self.limits[text] for text in self.alive)
