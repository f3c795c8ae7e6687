import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.folder import open_weights

from .tiny_whisper import SPECIAL, TIMESTAMPS, Weights


def test_a_folder_gives_its_config_weights_tokens_and_digests(
    hf_folder: Path, tiny_config: dict[str, Any], tiny_weights: Weights
) -> None:
    checkpoint = resolve(str(hf_folder))
    assert checkpoint.config == tiny_config
    assert checkpoint.generation_config == {"is_multilingual": True}
    assert checkpoint.tensors.names() == sorted(tiny_weights)
    for name, expected in tiny_weights.items():
        assert checkpoint.tensors.shape(name) == expected.shape
        np.testing.assert_array_equal(checkpoint.tensors.load(name), expected)
    assert list(checkpoint.vocabulary) == [*(bytes([b]) for b in range(256)), *SPECIAL, *TIMESTAMPS]
    assert (checkpoint.name, checkpoint.licence, checkpoint.revision) == ("tiny-hf", "Apache-2.0", None)
    assert checkpoint.tokenizer_file == hf_folder / "tokenizer.json"
    read = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert set(checkpoint.sha256) == read
    assert checkpoint.spec == str(hf_folder)


def shard(folder: Path, weights: Weights, count: int = 3) -> dict[str, str]:
    from safetensors.numpy import save_file

    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    where: dict[str, str] = {}
    for index in range(count):
        file = f"model-{index + 1:05}-of-{count:05}.safetensors"
        part = {name: weights[name] for name in names[index::count]}
        save_file(part, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


def test_shards_are_read_through_their_index(hf_folder: Path, tiny_weights: Weights) -> None:
    shard(hf_folder, tiny_weights)
    checkpoint = resolve(str(hf_folder))
    assert checkpoint.tensors.names() == sorted(tiny_weights)
    for name, expected in tiny_weights.items():
        np.testing.assert_array_equal(checkpoint.tensors.load(name), expected)
    assert sum(name.startswith("model-0") for name in checkpoint.sha256) == 3


def test_a_missing_shard_is_named(hf_folder: Path, tiny_weights: Weights) -> None:
    shard(hf_folder, tiny_weights)
    (hf_folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(SourceError, match=r"names model-00002-of-00003\.safetensors, which is missing"):
        resolve(str(hf_folder))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "", 5, None])
def test_an_index_cannot_name_files_outside_its_folder(name: object, hf_folder: Path, tiny_weights: Weights) -> None:
    where = shard(hf_folder, tiny_weights)
    index = {"weight_map": where | {next(iter(where)): name}}
    (hf_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"expected a plain file name|which is missing"):
        resolve(str(hf_folder))


def test_an_index_that_misplaces_a_tensor_is_refused(hf_folder: Path, tiny_weights: Weights) -> None:
    where = shard(hf_folder, tiny_weights)
    index = {"weight_map": where | {"lm_head.weight": "model-00001-of-00003.safetensors"}}
    (hf_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"says that lm_head\.weight is in model-00001"):
        resolve(str(hf_folder))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_bfloat16_comes_as_the_same_numbers_in_float32(file: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensor = torch.randn(3, 5).bfloat16()
    if file.endswith("bin"):
        torch.save({"w": tensor}, tmp_path / file)
    else:
        save_file({"w": tensor}, tmp_path / file)
    tensors, _ = open_weights(tmp_path)
    assert tensors.load("w").dtype == np.float32
    np.testing.assert_array_equal(tensors.load("w"), tensor.float().numpy())


def test_pytorch_weights_are_read_when_there_are_no_safetensors(hf_folder: Path, tiny_weights: Weights) -> None:
    import torch

    (hf_folder / "model.safetensors").unlink()
    state = {name: torch.from_numpy(array).half() for name, array in tiny_weights.items()}
    torch.save(state, hf_folder / "pytorch_model.bin")
    tensors = resolve(str(hf_folder)).tensors
    assert tensors.names() == sorted(tiny_weights)
    for name, expected in tiny_weights.items():
        np.testing.assert_array_equal(tensors.load(name), expected.astype(np.float16))


class Malicious:
    """Runs when a careless reader unpickles it."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.unlink, (self.victim,)


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(hf_folder: Path, tmp_path: Path) -> None:
    import torch

    victim = tmp_path / "victim"
    victim.touch()
    (hf_folder / "model.safetensors").unlink()
    torch.save({"w": Malicious(victim)}, hf_folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"cannot be read safely.*convert it to model\.safetensors"):
        resolve(str(hf_folder))
    assert victim.exists()


@pytest.mark.parametrize("keep", [0, 5, 100, 5000])
def test_damaged_safetensors_are_named(keep: int, hf_folder: Path) -> None:
    file = hf_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"model\.safetensors is damaged"):
        resolve(str(hf_folder))


def test_loading_one_tensor_reads_one_tensor(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    big = np.zeros((1024, 4096), np.float32)  # 16 MiB
    save_file({"big": big, "small": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    del big
    tensors, _ = open_weights(tmp_path)
    tracemalloc.start()
    assert tensors.load("small").sum() == 4
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_an_unknown_tensor_is_named(hf_folder: Path) -> None:
    with pytest.raises(SourceError, match=r"no tensor 'lm_head\.weight' in model\.safetensors"):
        resolve(str(hf_folder)).tensors.shape("lm_head.weight")


def test_a_folder_without_a_tokenizer_says_what_was_looked_for(hf_folder: Path) -> None:
    (hf_folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"looked for tokenizer\.json and vocab\.json"):
        resolve(str(hf_folder))


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_named(content: str, hf_folder: Path) -> None:
    (hf_folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SourceError, match=r"config\.json"):
        resolve(str(hf_folder))
