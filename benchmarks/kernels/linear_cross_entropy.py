"""linear_cross_entropy with a frozen head, beside whole logits as transformers has them, and other losses in chunks.

python benchmarks/kernels/linear_cross_entropy.py [--device cpu]
python benchmarks/kernels/linear_cross_entropy.py --memory        peak memory instead, each system in its own process
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from harness import Case, forward_backward, main
from torch.nn import functional

from sottovoce_kernels.linear_cross_entropy import linear_cross_entropy

# Tokens, vocabulary, width: SmolLM2-135M; Llama 3.2 1B; Gemma 3 270M; Whisper large-v3.
SHAPES = {
    "cuda": ((8192, 49_152, 576), (8192, 128_256, 2048), (4096, 262_144, 640), (4096, 51_866, 1280)),
    "cpu": ((2048, 49_152, 576), (512, 51_865, 512), (512, 262_144, 640)),
}
TORCH_CHUNK = 256  # rows, for torch's own loss in chunks: the fastest of 64, 128 and 256 on a CPU

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ours(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By ours."""
    return linear_cross_entropy(hidden, weight, labels)


def whole(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As transformers does: logits whole, then in float32."""
    return functional.cross_entropy(functional.linear(hidden, weight).float(), labels, reduction="sum")


def in_torch(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By torch's own loss in chunks, where this torch has it."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=TORCH_CHUNK)
    return functional.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)


def liger(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By Liger's, where it is installed and on a GPU."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, labels)


def systems_on(device: torch.device) -> dict[str, Loss]:
    """What can be compared there, ours first."""
    found: dict[str, Loss] = {"ours": ours, "whole logits": whole}
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        found["torch, in chunks"] = in_torch
    if device.type == "cuda" and find_spec("liger_kernel"):
        found["Liger"] = liger
    return found


def inputs(
    tokens: int, vocabulary: int, width: int, device: torch.device, labelled: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, a head, and labels of a part of the tokens."""
    hidden = torch.randn(tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(vocabulary, width, device=device) * 0.05).bfloat16()
    labels = torch.randint(vocabulary, (tokens,), device=device)
    return hidden, weight, labels.where(torch.rand(tokens, device=device) < labelled, -100)


def cases(device: torch.device) -> Iterator[Case]:
    """Two products; hidden and its gradient, and the head, read or written once."""
    for tokens, vocabulary, width in SHAPES[device.type]:
        for labelled in (1.0, 0.3):
            given = inputs(tokens, vocabulary, width, device, labelled)
            systems = {name: forward_backward(loss, *given) for name, loss in systems_on(device).items()}
            name = f"{tokens} x {width}, vocabulary {vocabulary}, labels {labelled:.0%}"
            moved = 2 * (2 * tokens * width + vocabulary * width)
            yield Case(name, systems, moved, int(4 * tokens * labelled) * vocabulary * width, torch.bfloat16)


def memory(shape: tuple[int, int, int] = SHAPES["cpu"][0]) -> int:
    """Prints the peak of resident memory above the inputs, of each system on a CPU."""
    print("| system | peak above inputs |\n|---|---|")
    for name in systems_on(torch.device("cpu")):
        code = f"import linear_cross_entropy as b; b.peak({name!r}, {shape!r})"
        done = subprocess.run([sys.executable, "-c", code], cwd=sys.path[0], check=True, capture_output=True, text=True)
        print(f"| {name} | {int(done.stdout) / 1e6:.0f} MB |")
    return 0


def peak(name: str, shape: tuple[int, int, int]) -> None:
    """In its own process: one step after one of a few rows, which loads what a step needs. The mark of the highest
    resident size is set back once the inputs are there, or what making them took would hide what a step takes."""
    torch.set_num_threads(2)
    loss, given = systems_on(torch.device("cpu"))[name], inputs(*shape, torch.device("cpu"))
    forward_backward(loss, given[0][:16].detach().requires_grad_(), given[1][:1000], given[2][:16] % 1000)()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    forward_backward(loss, *given)()
    print(_status("VmHWM") - before)


def _status(key: str) -> int:
    """Bytes that Linux counts for this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    sys.exit(memory() if sys.argv[1:] == ["--memory"] else main("linear_cross_entropy", cases))
