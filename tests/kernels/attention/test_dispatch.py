"""Which attention is chosen, by facts that no machine here needs to have."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from sottovoce_kernels.attention import attention, dispatch, flash
from sottovoce_kernels.attention.dispatch import Facts, choose_attention, facts_of
from sottovoce_kernels.attention.mask import Mask
from sottovoce_kernels.attention.tiles import CONSUMER, tile_for
from sottovoce_kernels.segments import Segments

H100 = Facts(width=64, dtype="bfloat16", span=10**6, capability=(9, 0), triton=True)


@pytest.mark.parametrize(
    ("facts", "name", "reason"),
    [
        (H100, "triton", "flash-attn is not installed"),
        (replace(H100, flash_attn=(2, 8)), "flash_attn", "has this mask"),
        (replace(H100, flash_attn=(2, 8), key_bias=True), "triton", "no bias of keys"),
        (replace(H100, flash_attn=(2, 8), softcap=True), "flash_attn", "has this mask"),
        (replace(H100, flash_attn=(2, 5), softcap=True), "triton", "flash-attn 2.5 has no softcapping, 2.6 has"),
        (replace(H100, flash_attn=(2, 8), width=84), "triton", "multiples of 8"),
        (replace(H100, flash_attn=(2, 8), triton=False, key_bias=True), "sdpa", "Triton is not installed"),
        (replace(H100, width=512), "sdpa", "heads of 512"),
        (replace(H100, width=8), "sdpa", "heads of 8"),
        (replace(H100, dtype="float32"), "sdpa", "float32"),
        (replace(H100, capability=(7, 5)), "sdpa", "7.5 is below 8.0"),
        (replace(H100, span=2**31), "sdpa", "2147483648"),
        (replace(H100, triton=False), "sdpa", "Triton is not installed"),
        (Facts(width=64, dtype="bfloat16"), "sdpa", "on a CPU"),
    ],
)
def test_choice_follows_from_facts_and_says_why(facts: Facts, name: str, reason: str) -> None:
    choice = choose_attention(facts)
    assert choice.name == name
    assert reason in choice.reason
    assert "\n" not in choice.reason and len(choice.reason) < 140


@pytest.mark.parametrize("width", range(dispatch.NARROWEST, dispatch.WIDEST + 1, 8))
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
def test_what_our_kernels_are_chosen_for_has_a_tile(width: int, capability: tuple[int, int]) -> None:
    assert choose_attention(replace(H100, width=width, capability=capability)).name == "triton"
    assert all(tile_for(name, width, capability).warps for name in CONSUMER)


def test_facts_are_those_of_the_tensors() -> None:
    q, k = torch.zeros(6, 4, 16, dtype=torch.bfloat16), torch.zeros(9, 2, 16, dtype=torch.bfloat16)
    facts = facts_of(q, k, k, (5, 9), Mask(False, 1.0, softcap=2.0), True)
    assert (facts.width, facts.dtype, facts.span) == (16, "bfloat16", 5 * 64)
    assert facts.softcap and facts.key_bias
    assert facts.capability is None
    assert choose_attention(facts).name == "sdpa"


def test_flash_attn_is_asked_for_the_mask_as_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package that notes what it is given: its window leaves the query itself out."""
    asked: dict[str, object] = {}

    def stand_in(*args: object, **options: object) -> object:
        asked.update(options, lengths=args[5:])
        return args[0]

    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", package)
    q, segments = torch.zeros(6, 4, 16), Segments.of([4, 2])
    assert flash.attention(q, q, q, segments, segments, Mask(True, 0.5, window=3, softcap=9.0)) is q
    assert asked == {
        "lengths": (4, 4),
        "softmax_scale": 0.5,
        "causal": True,
        "window_size": (2, 0),
        "softcap": 9.0,
        "deterministic": True,
    }
    flash.attention(q, q, q, segments, segments, Mask(False, 0.5))
    assert asked["window_size"] == (-1, -1) and asked["causal"] is False


def test_the_operation_runs_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.ones(6, 2, 16)
    operation = __import__("sottovoce_kernels.attention.op", fromlist=["op"])
    monkeypatch.setattr(operation, "choose_attention", lambda facts: dispatch.Choice("flash_attn", "for the test"))
    monkeypatch.setattr(flash, "attention", lambda q, *rest: q * 7)
    assert torch.equal(attention(q, q, q, Segments.of([6]), causal=True, scale=1.0), q * 7)
