"""A tiny random chat model as a folder, and its compile without anything replaced but where it comes from.

Run as a script it stops at a stage, for a test that kills it there:
    python chat_compile_case.py SOURCE OUTPUT STAGE TEXT
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.compiler.causal_case import random_model, save

from sottovoce.engines.llama_cpp.library import load_library
from sottovoce.errors import MissingExtraError
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.request import Compiled, Progress, Request
from sottovoce_targets import load_target

CHATML = (
    "{%- for message in messages -%}"
    "{{ '<s>' + message['role'] + '\\n' + message['content'] + '</s>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<s>assistant\\n' }}{%- endif -%}"
)
TEXT = "The harbour was quiet. Nobody had told the gulls, who went on as they always had. " * 3


def needs_llama_cpp() -> None:
    try:
        load_library()
    except MissingExtraError as error:
        pytest.skip(f"measuring a GGUF bundle needs a binding of llama.cpp: {error}")


def chat_folder(folder: Path, template: str | None = CHATML, *, kind: str = "llama", **config: Any) -> Path:
    """A random model of rows that every type of GGUF divides, with a byte-level tokenizer and a template."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {
        **{"vocab_size": 288, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096},
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True},
    }
    save(random_model(AutoConfig.for_model(kind, **{**sizes, **config})), folder)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, "chat_template": template}))
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.7, "top_k": 0}))
    return folder


def request(source: Path, output: Path, limits: Mapping[str, float] | None = None, **changes: Any) -> Request:
    """For linux-x86-64, with limits that only what is broken exceeds."""
    loose = {"max_kl": 1.0, "max_perplexity_increase": 5.0, "min_top1": 0.0} if limits is None else limits
    return replace(Request(str(source), load_target("linux-x86-64"), output, loose), **changes)


def compile_chat_to(
    source: Path, output: Path, progress: Progress = lambda stage, done: None, **given: Any
) -> Compiled:
    return compile_model(request(source, output, **given), progress)


def short_text(folder: Path) -> Path:
    file = folder / "text.txt"
    file.write_text(TEXT)
    return file


def _stop_at(stage: str) -> Progress:
    def progress(now: str, done: float) -> None:
        if now == stage:
            print("there", flush=True)
            time.sleep(60)

    return progress


if __name__ == "__main__":
    compile_chat_to(Path(sys.argv[1]), Path(sys.argv[2]), _stop_at(sys.argv[3]), eval=Path(sys.argv[4]))
