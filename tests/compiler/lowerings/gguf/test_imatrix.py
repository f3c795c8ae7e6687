"""The importance matrix of a tiny random Llama against sums made by hand from what its modules are given."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.gguf.imatrix import importance

MODULES = {
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj",
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj",
    "blk.1.attn_output.weight": "model.layers.1.self_attn.o_proj",
    "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj",
    "output.weight": "lm_head",
}


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tokens() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 50, shape) for shape in ((2, 12), (1, 30), (1, 1))]


def test_it_is_the_mean_square_of_what_each_linear_is_given(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    found = importance(model, tokens, MODULES)
    assert {name: values.shape for name, values in found.items()} == {
        name: (24,) if "ffn_down" in name else (16,) for name in MODULES
    }
    # The first layer's attention is given the normed embedding, the head the normed last state.
    layer, total, last = model.model.layers[0], torch.zeros(16), torch.zeros(16)
    with torch.no_grad():
        for batch in tokens:
            ids = torch.as_tensor(batch)
            total += layer.input_layernorm(model.model.embed_tokens(ids)).square().sum(dim=(0, 1))
            last += model.model(input_ids=ids).last_hidden_state.square().sum(dim=(0, 1))
    count = sum(batch.size for batch in tokens)
    np.testing.assert_allclose(found["blk.0.attn_q.weight"], total / count, rtol=1e-5)
    np.testing.assert_allclose(found["output.weight"], last / count, rtol=1e-5)
    assert all(values.dtype == np.float32 for values in found.values())


def test_weights_with_one_input_have_one_importance(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    found = importance(model, tokens, MODULES)
    assert np.array_equal(found["blk.0.attn_q.weight"], found["blk.0.attn_k.weight"])
    assert not np.allclose(found["blk.0.attn_q.weight"], found["blk.1.attn_output.weight"])


def test_batches_do_not_show_in_the_result(model: LlamaForCausalLM) -> None:
    batch = np.random.default_rng(1).integers(0, 50, (4, 9))
    together = importance(model, [batch], MODULES)
    apart = importance(model, list(batch[:, None]), MODULES)
    for name, values in together.items():
        np.testing.assert_allclose(values, apart[name], rtol=1e-5)


def test_the_model_is_left_as_it_was(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    model.train()
    importance(model, tokens, MODULES)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_are_gone_after_a_failure(model: LlamaForCausalLM) -> None:
    with pytest.raises(IndexError):
        importance(model, [np.array([[99]])], MODULES)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_tokens_are_refused(model: LlamaForCausalLM) -> None:
    with pytest.raises(InputError, match="no tokens"):
        importance(model, [], MODULES)


def test_a_module_that_is_not_there_is_named(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"no module model\.layers\.9"):
        importance(model, tokens, {"blk.9.attn_q.weight": "model.layers.9"})


def test_a_module_that_is_never_run_is_named(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    model.spare = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="module spare was never run"):
        importance(model, tokens, {"blk.0.spare.weight": "spare"})


def test_values_that_are_not_finite_are_refused(model: LlamaForCausalLM, tokens: list[np.ndarray]) -> None:
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = torch.inf
    with pytest.raises(InputError, match=r"q_proj are not finite"):
        importance(model, tokens, MODULES)
