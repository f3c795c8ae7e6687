from pathlib import Path

import pytest

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear, Linear
from sottovoce_compiler.lowerings.onnx.recipe import recipe
from sottovoce_compiler.report.cost import describe, whisper_cost

from ..whisper_case import CONFIG, checkpoint_of, random_model


def test_multiplications_are_those_that_torch_counts(tmp_path: Path) -> None:
    """Counted by torch over transformers' own model, which has no spectrum in it and the same products otherwise."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = {**CONFIG, "decoder_layers": 3, "encoder_ffn_dim": 96, "max_source_positions": 200}
    model = random_model(config)
    spec = whisper_spec(checkpoint_of(model, config))
    found = whisper_cost(spec, recipe("fp32", "x86-64", frozenset(), 32), {})
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoded = model.model.encoder(torch.zeros(1, 80, 400)).last_hidden_state
    spectrum = 2 * 200 * 201 * (2 * 400 + 80)
    cross = 200 * 3 * 2 * 64 * 64  # keys and values of the cross-attention, which transformers makes in its decoder
    assert found["encoder_macs_30s"] - spectrum - cross == counter.get_total_flops() // 2
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(encoder_outputs=(encoded,), decoder_input_ids=torch.tensor([[257]]))
    of_itself = 3 * 2 * 64  # a token's attention to its own past, here itself alone, is not counted
    assert found["decoder_macs_per_token"] + cross + of_itself == counter.get_total_flops() // 2
    assert found["cross_cache_bytes_30s"] == 200 * 3 * 2 * 64 * 4
    assert found["self_cache_bytes_per_token"] == 3 * 2 * 64 * 4


def test_sizes_are_of_bytes_and_of_files(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"12345")
    spec = whisper_spec(checkpoint_of(random_model()))
    chosen = recipe("int8", "x86-64", frozenset({"avx2"}), 64)
    cost = whisper_cost(spec, chosen, {"w": tmp_path / "w", "b": b"12"})
    assert cost["file_bytes"] == {"b": 2, "w": 5}
    assert cost["precision"]["encoder"] == "int8 weights a channel (63 levels), uint8 activations a tensor"
    assert cost["precision"]["head"] == "int8 weights in blocks of 64, int8 activations"


@pytest.mark.parametrize(
    ("linear", "text"),
    [
        (FloatLinear(), "float32"),
        (FloatLinear(half=True), "float16 weights, float32 products"),
        (BlockLinear(4, 32), "int4 weights in blocks of 32, int8 activations"),
        (DynamicInt8Linear(127), "int8 weights a channel (127 levels), uint8 activations a tensor"),
    ],
)
def test_every_kind_of_linear_is_told_in_words(linear: Linear, text: str) -> None:
    assert describe(linear) == text
