"""The tiny random models of `causal_case` as they are trained, beside transformers' and PEFT's."""

import copy
from pathlib import Path
from typing import Any

import torch

from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.batches import IGNORED, PackedTokens
from sottovoce_compiler.finetune.model.adapted import Lora
from sottovoce_compiler.finetune.model.decoder import Decoder, Kept
from sottovoce_compiler.sources import resolve
from sottovoce_kernels.segments import Segments

from ...causal_case import MODELS, config_of, random_model, save
from ...lora_case import targets_of

# What a float32 sum in another order leaves, on logits of up to twenty and gradients of a few tens.
CLOSE = {"rtol": 1e-5, "atol": 5e-5}
# One of each family, with everything that any of them has.
FAMILIES = ("llama", "llama 3", "mistral", "qwen2", "qwen3", "gemma3", "smollm3", "phi3", "phi3 partial, longrope")


def decoder_of(model: Any, folder: Path, kept: Kept | None = None) -> Decoder:
    """Ours of the same weights, saved to `folder` and read again."""
    folder.mkdir(exist_ok=True)
    return Decoder(language_model(resolve(str(save(model, folder)))), kept)


def pair_of(name: str, folder: Path, **changes: Any) -> tuple[Any, Decoder]:
    """transformers' model and ours of the same random weights; `changes` are to its config."""
    config = config_of(name)
    for key, value in changes.items():
        setattr(config, key, value)
    model = random_model(config)
    return model, decoder_of(model, folder / "source")


def batch_of(*lengths: int, seed: int = 0) -> PackedTokens:
    """Random examples of these lengths; the first third of each is not learned."""
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = [], []
    for length in lengths:
        one = torch.randint(3, 260, (length,), generator=generator)
        following = torch.cat([one[1:], torch.tensor([IGNORED])])
        following[: length // 3] = IGNORED
        tokens.append(one)
        labels.append(following)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return PackedTokens(torch.cat(tokens), torch.cat(labels), positions, Segments.of(lengths))


def alone(batch: PackedTokens, index: int) -> PackedTokens:
    """One example of a pack."""
    first, end = batch.segments.bounds()[index]
    return PackedTokens(
        batch.tokens[first:end], batch.labels[first:end], batch.positions[first:end], Segments.of([end - first])
    )


def theirs(model: Any, batch: PackedTokens) -> torch.Tensor:
    """transformers' logits (T, vocabulary), each example by itself."""
    each = [model(tokens[None], use_cache=False).logits[0] for tokens in batch.tokens.split(batch.segments.lengths)]
    return torch.cat(each)


def with_peft(model: Any, lora: Lora, seed: int = 3) -> Any:
    """A copy of `model` with an adapter of PEFT's of the same kind, every number of it random."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        use_rslora=lora.rank_stabilized,
        use_dora=lora.dora,
        lora_dropout=lora.dropout,
        target_modules=list(targets_of(model)),
    )
    wrapped = get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
            if ".lora_magnitude_vector." in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    return wrapped


def parts(wrapped: Any, module: str) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of one of PEFT's modules by our names."""
    layer = wrapped.base_model.model.get_submodule(module)
    found = {"lora_a": layer.lora_A["default"].weight, "lora_b": layer.lora_B["default"].weight}
    if "default" in layer.lora_magnitude_vector:
        found["magnitude"] = layer.lora_magnitude_vector["default"].weight
    return found


def copy_adapter(wrapped: Any, decoder: Decoder, lora: Lora) -> None:
    """The same adapter on ours."""
    with torch.no_grad():
        for name, layer in decoder.linears().items():
            layer.attach(lora)
            for part, parameter in parts(wrapped, name).items():
                getattr(layer, part).copy_(parameter)


__all__ = ["MODELS"]
