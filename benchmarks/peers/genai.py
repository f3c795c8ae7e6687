"""onnxruntime-genai's own loop, `Generator.generate_next_token`, over a folder that its model builder made.

`make_folder` runs that builder on a source; it needs onnx-ir and torch, the loop does not.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from peers.chat import Answered, Made, Question, Sampling, steps

# What the builder is told, by the name in tables. Its int4 has 4 bits everywhere; the mix has 8 where ours has.
BUILDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "int4": ("int4", ()),
    "int4, our mix": ("int4", ("algo_config=rtn", "matmul_mixed_precision=last_matmul:int8,mixed_layers:int8")),
    "int8": ("int8", ()),
}


class GenAi:
    """Its threads are set over what the folder's configuration says; an end is never chosen."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._config = genai.Config(str(folder))
        session = {"session_options": {"intra_op_num_threads": threads}}
        self._config.overlay(json.dumps({"model": {"decoder": session}}))
        self._model: Any = None

    def load(self) -> None:
        self._model = genai.Model(self._config)

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        length = len(question.tokens) + tokens
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling is not None:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "random_seed": sampling.seed}
            chosen |= {"top_k": sampling.top_k, "top_p": sampling.top_p}
        params = genai.GeneratorParams(self._model)
        params.set_search_options(max_length=length + 1, min_length=length + 1, **chosen)
        generator = genai.Generator(self._model, params)
        prompt = np.array(question.tokens, np.int32)
        began = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        generator.get_next_tokens()
        first = time.perf_counter()
        clock = [first]
        for _ in range(tokens - 1):
            generator.generate_next_token()
            generator.get_next_tokens()
            clock.append(time.perf_counter())
        return Answered(first - began, clock[-1] - first, tokens, tokens, steps(clock))

    def describe(self) -> Mapping[str, str]:
        return {"onnxruntime-genai": genai.__version__}

    def close(self) -> None:
        self._model = None


def build(made: Made) -> GenAi:
    """The system for one folder. LookupError without one."""
    if made.genai is None:
        raise LookupError("no onnxruntime-genai folder: give --genai SOURCE:NAME=FOLDER")
    return GenAi(made.genai, made.threads)


def make_folder(spec: str, name: str, work: Path) -> Path:
    """The builder's folder for the source `spec` in the build called `name` (of BUILDS); made once, kept in `work`."""
    precision, options = BUILDS[name]
    stem = "".join(c if c.isalnum() else "-" for c in f"{Path(spec).stem} {name}")
    folder = work / f"genai-{stem}"
    if not folder.exists():
        source = _hugging_face(spec, work / f"hf-{Path(spec).stem}")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(part)]
        command += ["-p", precision, "-e", "cpu", "-c", str(work / "genai-cache")]
        command += ["--extra_options", *options] if options else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"onnxruntime-genai's builder failed: {done.stderr.strip().splitlines()[-1:]}")
        part.rename(folder)
    return folder


def _hugging_face(spec: str, folder: Path) -> Path:
    """The source as a Hugging Face folder in float32."""
    from sottovoce_compiler.report.causal_source import CausalSource
    from sottovoce_compiler.sources import resolve

    if not folder.exists():
        checkpoint = resolve(spec)
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        CausalSource(checkpoint).load().save_pretrained(part)
        if checkpoint.tokenizer_file is not None:
            shutil.copyfile(checkpoint.tokenizer_file, part / "tokenizer.json")
            tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **checkpoint.tokenizer_config}
            (part / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        part.rename(folder)
    return folder
