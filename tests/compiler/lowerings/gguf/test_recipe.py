"""The recipe against what llama.cpp's own `llama_model_quantize` chose, recorded in recipe_types.json.

The record was made from files with these names and row sizes and random values; a type is written as runs over the
layers ("3*Q6_K 2*Q4_K"), and what is not in the record stayed in float32.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.gguf.recipe import MIXES, Choice, fallback_share, plan

RECORD: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "recipe_types.json").read_text())
ROWS = 4


def shapes(model: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, ffn, inner = model["width"], model["ffn"], model["heads"] * model["head_width"]
    split = {name: (ROWS, width) for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")}
    fused = {name: (ROWS, width) for name in ("attn_qkv", "ffn_up")}
    layer = fused if model["architecture"] == "phi3" else split
    layer |= {"attn_output": (ROWS, inner), "ffn_down": (ROWS, ffn), "attn_norm": (width,), "ffn_norm": (width,)}
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (ROWS, width), "output_norm.weight": (width,)}
    if not model["tied"]:
        found["output.weight"] = (ROWS, width)
    # Backwards: the order in which tensors come must not matter.
    for i in reversed(range(model["layers"])):
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()} | {f"blk.{i}.attn_q.bias": (width,)}
    return found


def planned(model: dict[str, Any], mix: str, importance: bool = False) -> tuple[Choice, ...]:
    facts = {name: model[name] for name in ("layers", "heads", "kv_heads")}
    return plan(mix, model["architecture"], shapes(model), **facts, importance=importance)


def recorded(types: dict[str, str]) -> dict[str, list[str]]:
    """Type by layer for each kind of tensor."""
    found = {}
    for names, runs in types.items():
        kinds = [kind for run in runs.split() for kind in [run.split("*")[1]] * int(run.split("*")[0])]
        found |= {name: kinds for name in names.split()}
    return found


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", RECORD)
def test_every_tensor_gets_the_type_llama_cpp_gives_it(name: str, mix: str, importance: bool) -> None:
    model = RECORD[name]
    types = model["types"].get(f"{mix} with importance" if importance else mix, model["types"][mix])
    wanted = recorded(types)
    choices = planned(model, mix, importance)
    assert [choice.name for choice in choices] == list(shapes(model))
    for choice in choices:
        layer = re.match(r"blk\.(\d+)\.", choice.name)
        kind = choice.name.removesuffix(".weight").split(".")[-1]
        by_layer = wanted.get(kind, ["F32"] * (model["layers"] + 1))
        assert choice.chosen.name == by_layer[int(layer[1]) if layer else 0], choice


def test_the_record_has_types_that_depend_on_importance_on_shared_heads_and_on_eighty_layers() -> None:
    def values(model: str, mix: str) -> set[str]:
        return set(recorded(RECORD[model]["types"][mix])["attn_v"])

    assert RECORD["grouped"]["types"]["Q4_0"] != RECORD["grouped"]["types"]["Q4_0 with importance"]
    assert values("grouped", "IQ4_NL") == {"Q5_K"} and values("untied", "IQ4_NL") == {"IQ4_NL"}
    assert values("seventy", "Q4_K_M") == {"Q6_K", "Q5_K"} and values("eighty_plain", "Q4_K_M") == {"Q6_K", "Q4_K"}


def test_a_tensor_that_fell_back_says_what_was_wanted_and_why() -> None:
    choices = {choice.name: choice for choice in planned(RECORD["smollm2"], "Q4_K_M")}
    query = choices["blk.4.attn_q.weight"]
    assert (query.wanted, query.chosen) == (Kind.Q4_K, Kind.Q5_0)
    assert query.reason == "rows of 576 values are not a multiple of 256"
    embedding = choices["token_embd.weight"]
    assert (embedding.wanted, embedding.chosen) == (Kind.Q6_K, Kind.Q8_0)
    assert choices["blk.4.ffn_down.weight"] == Choice("blk.4.ffn_down.weight", (ROWS, 1536), Kind.Q4_K, Kind.Q4_K, "")


def test_rows_that_no_block_divides_stay_in_half_precision() -> None:
    choices = {choice.name: choice for choice in planned(RECORD["odd"], "Q4_0")}
    assert choices["blk.0.attn_q.weight"].chosen is Kind.F16
    assert choices["blk.0.attn_q.weight"].reason == "rows of 48 values are not a multiple of 32"


def test_a_matrix_of_one_row_is_a_vector() -> None:
    (choice,) = plan("Q8_0", "llama", {"blk.0.attn_q.weight": (1, 64)}, layers=1, heads=1, kv_heads=1)
    assert (choice.wanted, choice.chosen) == (Kind.F32, Kind.F32)


def test_the_share_that_fell_back_counts_weights_not_tensors() -> None:
    choices = (
        Choice("a", (10, 30), Kind.Q4_K, Kind.Q5_0, "too short"),
        Choice("b", (2, 256), Kind.Q4_K, Kind.Q4_K),
        Choice("c", (88,), Kind.F32, Kind.F32),
    )
    assert fallback_share(choices) == 300 / 900
    assert fallback_share(()) == 0


def test_an_unknown_mix_is_refused_by_name_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'Q3_X' is not one of F32, F16.*IQ4_NL"):
        planned(RECORD["odd"], "Q3_X")
