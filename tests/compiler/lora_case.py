"""LoRA adapters made and saved by peft, on the tiny models of `causal_case`, with every B random."""

import copy
import json
from pathlib import Path
from typing import Any

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def targets_of(model: Any) -> tuple[str, ...]:
    return FUSED if model.config.model_type == "phi3" else ALL


def save_lora(model: Any, folder: Path, *, seed: int = 0, b: float = 0.4, **config: Any) -> Any:
    """Save a random adapter for `model` to `folder`; a copy of `model` with it merged by peft. `b` is B's spread; the
    lengths of DoRA are not those of the base."""
    import torch
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 6, "target_modules": list(targets_of(model)), **config}
    torch.manual_seed(seed)
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(b * torch.randn_like(parameter))
            if ".lora_magnitude_vector." in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    wrapped.save_pretrained(folder)
    return wrapped.merge_and_unload().eval()


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_tensors(folder: Path, change: Any) -> None:
    """Save what `change` makes of the adapter's tensors by name (torch)."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
