"""The lowered graphs against transformers' own encoder and decoder, on random models of odd shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe, recipe
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, TAIL_STRIDE

from ...whisper_case import CONFIG, Lowered, checkpoint_of, lower, random_model, reference_run, sweep, write_graphs

FP32 = Recipe(FloatLinear(), FloatLinear(), FloatLinear(), half_tables=False)
TOKENS = [[257, 258, 262, 5, 66, 7, 100]]
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "128 mels, more layers here than there": {"num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 1},
    "width 192, heads that differ": {
        "d_model": 192,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 3,
        "encoder_layers": 1,
        "decoder_layers": 2,
    },
    "width 320, five heads, odd feed-forward": {
        "d_model": 320,
        "encoder_attention_heads": 5,
        "decoder_attention_heads": 5,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 160,
    },
}


def config(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model()


@pytest.fixture(scope="module")
def plain(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower(checkpoint_of(model), FP32, tmp_path_factory.mktemp("fp32"))


def live_keys(cross: dict[str, np.ndarray]) -> int:
    """Keys that are not hidden; those come first."""
    live = cross["key_bias"][0, 0, 0] > -1e8
    assert live[: live.sum()].all()
    return int(live.sum())


@pytest.mark.parametrize("name", SHAPES)
def test_at_full_context_the_logits_are_transformers_own(name: str, tmp_path: Path) -> None:
    """Float32 in another order of sums: 1e-5 on logits of a few units, the padding of the last frame included."""
    shape = config(**SHAPES[name])
    model = random_model(shape)
    lowered = lower(checkpoint_of(model, shape), FP32, tmp_path)
    # Not to the very end: the reference reflects the last 12 ms of 30 s, where we have silence.
    samples = np.concatenate([sweep(29.9), np.zeros(1600, np.float32)])
    wanted = reference_run(model, samples, TOKENS)
    cross = lowered.encode(samples)
    assert live_keys(cross) == 1500 and not cross["key_bias"][..., :1500].any()
    found = lowered.decode(cross, TOKENS)
    assert np.abs(wanted.logits.numpy()).max() > 0.5
    np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), atol=1e-5)
    attention = np.concatenate([layer.numpy() for layer in wanted.cross_attentions], axis=1)
    heads = shape["decoder_attention_heads"]
    picked = [layer * heads + head for layer, head in lowered.spec.alignment_heads]
    np.testing.assert_allclose(found["alignment"][..., :1500], attention[:, picked], atol=1e-6)


def test_audio_over_30_seconds_is_cut_there(plain: Lowered) -> None:
    samples = sweep(31)
    assert live_keys(plain.encode(samples)) == 1500


@pytest.mark.parametrize("count", [0, 1, 159, 320, 321, 7999])
def test_the_context_is_the_audio_and_half_a_second_and_the_compressed_rest(count: int, plain: Lowered) -> None:
    cross = plain.encode(sweep(1)[:count])
    context = -(-count // 320) + MARGIN_FRAMES
    tail = len(range(context + TAIL_STRIDE // 2, 1500, TAIL_STRIDE))
    assert live_keys(cross) == context + tail
    whole = -(-(context + tail) // 64) * 64  # the same sums in the same lanes, however far a batch pads it
    assert cross["cross_key_0"].shape == (1, 4, 16, whole)
    assert cross["cross_value_1"].shape == (1, 4, whole, 16)
    bias = cross["key_bias"][0, 0, 0]
    assert not bias[:context].any()
    # Together the kept frames weigh as much as the silence that they stand for.
    assert np.exp(bias[context:].astype(np.float64)).sum() == pytest.approx(1500 - context, rel=1e-5)
    assert all(np.isfinite(value).all() for value in cross.values())


@pytest.mark.parametrize("seconds", [29.42, 29.46, 29.5, 30.0])
def test_a_tail_of_a_few_frames_or_none_is_no_special_case(seconds: float, plain: Lowered) -> None:
    cross = plain.encode(sweep(seconds))
    assert np.isfinite(cross["cross_key_0"]).all()
    assert 1490 <= live_keys(cross) <= 1500


def test_step_by_step_is_the_whole_at_once(plain: Lowered) -> None:
    cross = plain.encode(sweep(2))
    whole = plain.decode(cross, TOKENS)
    past, steps, attention = None, [], []
    for i, token in enumerate(TOKENS[0]):
        past = plain.decode(cross, [[token]], past, i)
        steps.append(past["logits"][0, 0])
        attention.append(past["alignment"][0, :, 0])
    np.testing.assert_allclose(np.stack(steps), whole["logits"][0], atol=2e-5)
    np.testing.assert_allclose(np.stack(attention, axis=1), whole["alignment"][0], atol=1e-6)


def test_rows_of_a_batch_are_the_clips_alone(plain: Lowered) -> None:
    """Clips of two lengths, the shorter one's missing frames hidden, as the engine stacks them."""
    crosses = [plain.encode(sweep(1.0)), plain.encode(sweep(6.0, seed=1))]
    longest = max(cross["key_bias"].shape[-1] for cross in crosses)
    stacked = {}
    for name in crosses[0]:
        axis = 2 if "value" in name else 3
        parts = []
        for cross in crosses:
            widths = [(0, 0)] * 4
            widths[axis] = (0, longest - cross[name].shape[axis])
            parts.append(np.pad(cross[name], widths, constant_values=-1e9 if name == "key_bias" else 0))
        stacked[name] = np.concatenate(parts)
    together = plain.decode(stacked, [TOKENS[0], TOKENS[0][::-1]])["logits"]
    for row, (cross, tokens) in enumerate(zip(crosses, (TOKENS[0], TOKENS[0][::-1]), strict=True)):
        np.testing.assert_allclose(together[row], plain.decode(cross, [tokens])["logits"][0], atol=2e-5)


def test_one_audio_serves_many_rows(plain: Lowered) -> None:
    cross = plain.encode(sweep(1.0))
    rows = [TOKENS[0], TOKENS[0][::-1], TOKENS[0]]
    together = plain.decode(cross, rows)["logits"]
    np.testing.assert_allclose(together[1], plain.decode(cross, [rows[1]])["logits"][0], atol=2e-5)
    np.testing.assert_allclose(together[0], together[2], atol=1e-6)


# Root mean square against fp32, relative to the logits' spread; random weights have no structure to spare.
PRECISIONS = {
    "fp16": (recipe("fp16", "x86-64", frozenset(), 64), 2e-3),
    "int8": (recipe("int8", "x86-64", frozenset({"avx2"}), 64), 0.06),
    "int8 all channels": (recipe("int8", "aarch64", frozenset({"asimd"}), 64), 0.06),
    "int4": (recipe("int4", "x86-64", frozenset({"avx2"}), 64), 0.3),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_each_precision_stays_near_float32(name: str, model: Any, plain: Lowered, tmp_path: Path) -> None:
    chosen, tolerance = PRECISIONS[name]
    lowered = lower(checkpoint_of(model), chosen, tmp_path)
    samples = sweep(2)
    found = lowered.decode(lowered.encode(samples), TOKENS)["logits"]
    wanted = plain.decode(plain.encode(samples), TOKENS)["logits"]
    error = np.sqrt(((found - wanted) ** 2).mean()) / wanted.std()
    assert error < tolerance
    assert error > 0, "not the float32 graph again"


@pytest.mark.parametrize("name", ["fp16", "int8", "int8 all channels", "int4"])
def test_the_tied_embedding_is_stored_once(name: str, model: Any, tmp_path: Path) -> None:
    """A second copy, in any precision, would not fit under the weights' own size and one table's slack."""
    shape = config(vocab_size=CONFIG["vocab_size"] + 4096)
    large = random_model(shape)
    chosen, _ = PRECISIONS[name]
    sizes = []
    for source, settings in ((model, CONFIG), (large, shape)):
        write_graphs(checkpoint_of(source, settings), chosen, tmp_path)
        sizes.append((tmp_path / "weights.bin").stat().st_size)
    value = {"fp16": 2.0, "int8": 1 + 4 / 64, "int8 all channels": 1 + 4 / 64, "int4": 0.5 + 4 / 32}[name]
    assert (sizes[1] - sizes[0]) / (4096 * 64) == pytest.approx(value, rel=0.01)


def test_no_array_lies_twice_in_the_weights(model: Any, tmp_path: Path) -> None:
    import onnx

    write_graphs(checkpoint_of(model), recipe("int8", "x86-64", frozenset({"avx2"}), 64), tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    extents = set()
    for name in ("encoder.onnx", "decoder.onnx"):
        for tensor in onnx.load(tmp_path / name, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                assert place["location"] == "weights.bin"
                extents.add((int(place["offset"]), int(place["length"])))
    contents = [data[start : start + length] for start, length in extents]
    assert len(set(contents)) == len(contents)
    assert sum(length for _, length in extents) >= len(data) - 64 * len(extents), "nothing else is in the file"


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_two_lowerings_give_the_same_bytes(precision: str, model: Any, tmp_path: Path) -> None:
    chosen = recipe(precision, "x86-64", frozenset({"avx2"}), 64)
    for folder in ("one", "two"):
        write_graphs(checkpoint_of(model), chosen, tmp_path / folder)
    for name in ("encoder.onnx", "decoder.onnx", "weights.bin"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_the_graphs_are_valid_onnx_and_name_no_path(model: Any, tmp_path: Path) -> None:
    import onnx

    write_graphs(checkpoint_of(model), FP32, tmp_path)
    for name in ("encoder.onnx", "decoder.onnx"):
        onnx.checker.check_model(str(tmp_path / name))
        assert str(tmp_path).encode() not in (tmp_path / name).read_bytes()


def test_only_the_chosen_heads_are_in_the_alignment(model: Any, plain: Lowered, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(model)
    spec = whisper_spec(checkpoint)
    every = replace(spec, alignment_heads=tuple((layer, head) for layer in range(2) for head in range(4)))
    few = replace(spec, alignment_heads=((0, 2), (1, 1), (1, 3)))
    samples = sweep(1)
    all_heads = lower(checkpoint, FP32, tmp_path / "all", every)
    chosen = lower(checkpoint, FP32, tmp_path / "few", few)
    whole = all_heads.decode(all_heads.encode(samples), TOKENS)["alignment"]
    found = chosen.decode(chosen.encode(samples), TOKENS)["alignment"]
    assert whole.shape[1] == 8
    np.testing.assert_allclose(whole.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, whole[:, [2, 5, 7]], atol=1e-6)


def test_kinds_of_linear_stand_where_the_recipe_says(model: Any, tmp_path: Path) -> None:
    import onnx

    mixed = Recipe(DynamicInt8Linear(63), BlockLinear(8, 32), FloatLinear(), half_tables=True)
    write_graphs(checkpoint_of(model), mixed, tmp_path)
    kinds = {
        name: {node.op_type for node in onnx.load(tmp_path / name, load_external_data=False).graph.node}
        for name in ("encoder.onnx", "decoder.onnx")
    }
    assert "DynamicQuantizeMatMul" in kinds["encoder.onnx"] and "MatMulNBits" not in kinds["encoder.onnx"]
    assert "MatMulNBits" in kinds["decoder.onnx"] and "DynamicQuantizeMatMul" not in kinds["decoder.onnx"]
    assert "FusedMatMul" in kinds["decoder.onnx"], "the float head"
