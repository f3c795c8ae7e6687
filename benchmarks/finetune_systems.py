"""What trains in `finetune.py`: ours, and transformers with PEFT, on the same weights, examples and optimizer.

Run as a script it is the fresh process in which one of them trains: it takes one JSON argument and prints one JSON
object. CPU seconds are user and system time of the process, all threads. Linux only (/proc).
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from footprint import forget_peak, status_kb

RANK, ALPHA, LEARNING_RATE = 16, 32, 1e-4
IGNORED = -100


Step = list[tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class Job:
    """One run: `steps` of examples, each its tokens and, of each token, itself where it is learned, else `IGNORED`. The
    first `uncounted` steps warm up."""

    system: str
    model: Path
    steps: list[Step]
    uncounted: int
    threads: int
    dtype: str = "bfloat16"

    def to_json(self) -> str:
        """The job as text."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "model": Path(fields["model"])})

    @property
    def counted_tokens(self) -> int:
        """Tokens of the steps that count; padding is none."""
        return sum(len(tokens) for step in self.steps[self.uncounted :] for tokens, _ in step)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run cost. Memory in MB (1e6 bytes) above what imported libraries alone hold; `losses` are the mean over
    each step's labelled tokens, nats."""

    cpu_s: float
    wall_s: float
    tokens: int
    loaded_mb: float
    peak_mb: float
    losses: list[float]

    @property
    def tokens_per_core_second(self) -> float:
        return self.tokens / self.cpu_s


# Examples of a step -> the sum of losses (with its graph) and how many tokens are labelled.
Forward = Callable[[Step], tuple[Any, int]]


def ours(job: Job) -> Callable[[], tuple[Forward, list[Any]]]:
    """Packed, over our operations."""
    import torch

    from sottovoce_compiler.families import language_model
    from sottovoce_compiler.finetune.batches import PackedTokens
    from sottovoce_compiler.finetune.model.adapted import Lora, attach_all
    from sottovoce_compiler.finetune.model.decoder import Decoder, Kept
    from sottovoce_compiler.sources import resolve
    from sottovoce_kernels.segments import Segments

    def load() -> tuple[Forward, list[Any]]:
        model = Decoder(language_model(resolve(str(job.model))), Kept(getattr(torch, job.dtype)))
        attach_all(model.linears(), Lora(RANK, ALPHA))
        model.train()

        def forward(step: Step) -> tuple[Any, int]:
            labels = [[*learned[1:], IGNORED] for _, learned in step]
            lengths = [len(tokens) for tokens, _ in step]
            batch = PackedTokens(
                torch.tensor([token for tokens, _ in step for token in tokens]),
                torch.tensor([label for one in labels for label in one]),
                torch.cat([torch.arange(length) for length in lengths]),
                Segments.of(lengths),
            )
            loss = model(batch)
            return loss.total, loss.tokens

        return forward, [value for value in model.parameters() if value.requires_grad]

    return load


def peft(job: Job) -> Callable[[], tuple[Forward, list[Any]]]:
    """Padded to the longest of the batch, as is usual with transformers and PEFT: SDPA, adapters by PEFT's defaults."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def load() -> tuple[Forward, list[Any]]:
        base: Any = AutoModelForCausalLM
        model = base.from_pretrained(job.model, dtype=getattr(torch, job.dtype), attn_implementation="sdpa")
        config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
        model = get_peft_model(model, config)
        model.train()

        def forward(step: Step) -> tuple[Any, int]:
            longest = max(len(tokens) for tokens, _ in step)
            ids, mask, labels = (torch.full((len(step), longest), fill) for fill in (0, 0, IGNORED))
            for row, (tokens, learned) in enumerate(step):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
                labels[row, : len(tokens)] = torch.tensor(learned)
            labelled = int((labels[:, 1:] != IGNORED).sum())
            out = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
            return out.loss * labelled, labelled

        return forward, [value for value in model.parameters() if value.requires_grad]

    return load


SYSTEMS = {"ours": ours, "transformers + peft": peft}


def run(job: Job) -> Run:
    """Do the job in this process, which should have done nothing before."""
    import torch

    torch.set_num_threads(job.threads)
    load = SYSTEMS[job.system](job)
    optimizer_type = torch.optim.AdamW
    forget_peak()
    before_kb = status_kb("VmRSS")
    forward, trained = load()
    loaded_kb = status_kb("VmRSS")
    optimizer = optimizer_type(trained, lr=LEARNING_RATE)
    losses = []
    began = wall = 0.0
    for number, step in enumerate(job.steps):
        if number == job.uncounted:
            began, wall = _cpu_seconds(), time.perf_counter()
        total, labelled = forward(step)
        loss = total / labelled
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    cpu, elapsed = _cpu_seconds() - began, time.perf_counter() - wall
    loaded, peak = ((kb - before_kb) * 1024 / 1e6 for kb in (loaded_kb, status_kb("VmHWM")))
    return Run(cpu, elapsed, job.counted_tokens, loaded, peak, losses)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job.from_json(Path(sys.argv[1]).read_text())))))
