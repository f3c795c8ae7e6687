from pathlib import Path

import numpy as np
import pytest

from sottovoce.errors import InputError
from sottovoce.gguf import read_gguf
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.lowering import FILE, lower_gguf
from sottovoce_compiler.lowerings.gguf.precision import GGUF_PRECISIONS, mix_of
from sottovoce_compiler.lowerings.gguf.recipe import MIXES
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_targets import PRECISIONS

from ...chat_compile_case import chat_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(chat_folder(tmp_path_factory.mktemp("chat") / "nano")))


def test_every_precision_of_ours_and_of_llama_cpp_is_one_of_its_mixes() -> None:
    assert {mix_of(one) for one in (*PRECISIONS, *GGUF_PRECISIONS)} == set(MIXES)
    assert (mix_of("int4"), mix_of("int8"), mix_of("q5_k_m")) == ("Q4_K_M", "Q8_0", "Q5_K_M")
    for unknown in ("Q4_K_M", "int3", ""):
        with pytest.raises(InputError, match=rf"precision '{unknown}' is not one of fp32, fp16, int8, int4, bf16"):
            mix_of(unknown)


def test_what_was_stored_how_is_counted_by_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    lowered = lower_gguf(language_model(checkpoint), checkpoint, "int4", 2048, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / FILE] and lowered.files == {FILE: tmp_path / FILE}
    opened = read_gguf(tmp_path / FILE)
    sizes = {name: int(np.prod(tensor.shape)) for name, tensor in opened.tensors.items()}
    weights = lowered.weights
    assert weights["parameters"] == sum(sizes.values())
    held = sum(tensor.bytes for tensor in opened.tensors.values())
    assert weights["bits_per_weight"] == round(8 * held / sum(sizes.values()), 3)
    for kind, share in weights["share_by_type"].items():
        of_kind = sum(sizes[name] for name, tensor in opened.tensors.items() if tensor.kind == kind)
        assert share == round(of_kind / sum(sizes.values()), 4)
    assert opened.metadata["general.file_type"] == int(MIXES["Q4_K_M"][1])
    assert (lowered.model["context"], lowered.engine["name"]) == (2048, "llama.cpp")


def test_progress_ends_where_all_is_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    told: list[float] = []
    lower_gguf(language_model(checkpoint), checkpoint, "q4_0", 2048, tmp_path, None, told.append)
    assert told == sorted(told) and 0 < told[0] < told[-1] == pytest.approx(1.0)


def test_importance_reaches_the_tensors_it_is_named_for(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = language_model(checkpoint)
    plain, weighed = tmp_path / "plain", tmp_path / "weighed"
    for folder in (plain, weighed):
        folder.mkdir()
    lower_gguf(model, checkpoint, "iq4_nl", 2048, plain)
    spread = np.geomspace(1, 1e4, 256).astype(np.float32)
    lowered = lower_gguf(model, checkpoint, "iq4_nl", 2048, weighed, {"blk.1.ffn_up.weight": spread})
    assert lowered.weights["importance_matrix"] is True
    before, after = read_gguf(plain / FILE), read_gguf(weighed / FILE)
    same_kind = {name for name, tensor in before.tensors.items() if after.tensors[name].kind == tensor.kind}
    changed = {
        name
        for name in same_kind
        if not np.array_equal(before.tensor_bytes(before.tensors[name]), after.tensor_bytes(after.tensors[name]))
    }
    assert changed == {"blk.1.ffn_up.weight"}
