from pathlib import Path

import pytest
import torch

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.model import generate as module
from sottovoce_compiler.finetune.model.adapted import Lora, attach_all
from sottovoce_compiler.finetune.model.decoder import Decoder
from sottovoce_compiler.finetune.model.generate import generate

from .decoder_case import FAMILIES, batch_of, pair_of
from .test_decoder import WINDOWS

PROMPTS = [[int(token) for token in batch_of(length, seed=length).tokens] for length in (5, 19, 1, 11)]


def their_answer(model: object, prompt: list[int], max_tokens: int, stop: int | None = None) -> list[int]:
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=-1 if stop is None else stop,
        pad_token_id=0,
    )
    answer = found[0, len(prompt) :].tolist()
    return answer[: answer.index(stop)] if stop in answer else answer


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_transformers_own(name: str, tmp_path: Path) -> None:
    model, decoder = pair_of(name, tmp_path, **WINDOWS.get(name, {}))
    found = generate(decoder, PROMPTS, max_tokens=12)
    assert found == [their_answer(model, prompt, 12) for prompt in PROMPTS]
    stop = found[1][4]
    ended = generate(decoder, PROMPTS, max_tokens=12, stop={stop})
    assert ended == [their_answer(model, prompt, 12, stop) for prompt in PROMPTS]
    assert len(ended[1]) <= 4 < max(map(len, ended))


def test_each_answer_is_what_it_would_be_alone_whatever_fits_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, decoder = pair_of("gemma3", tmp_path)
    whole = generate(decoder, PROMPTS, max_tokens=8)
    assert whole == [generate(decoder, [prompt], max_tokens=8)[0] for prompt in PROMPTS]
    monkeypatch.setattr(module, "_KEPT_POSITIONS", 40)
    assert generate(decoder, PROMPTS, max_tokens=8) == whole


def test_an_answer_ends_where_the_context_does(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    prompt = [7] * (decoder.spec.context - 3)
    assert [len(answer) for answer in generate(decoder, [prompt, [5]], max_tokens=9)] == [3, 9]
    for wrong, tokens in ([], 0), ([7] * decoder.spec.context, decoder.spec.context):
        with pytest.raises(InputError, match=f"prompt 1 has {tokens} tokens; the model takes 1 to 63"):
            generate(decoder, [prompt, wrong], max_tokens=9)
    with pytest.raises(InputError, match="answers of 0 tokens"):
        generate(decoder, [prompt], max_tokens=0)


def test_generating_leaves_the_training_as_it_was(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    attach_all(decoder.linears(), Lora.of("lora", 4, 8.0, dropout=0.5))
    before = torch.get_rng_state()
    assert generate(decoder.train(), PROMPTS, max_tokens=3) == generate(decoder.eval(), PROMPTS, max_tokens=3)
    assert torch.equal(torch.get_rng_state(), before) and not decoder.training
    generate(decoder.train(), [], max_tokens=3)
    assert decoder.training and all(value.grad is None for value in Decoder.parameters(decoder))
