"""How a command finds out that it is one of several: from the environment that torchrun and accelerate give it.

    torchrun --nproc-per-node 2 --no-python sottovoce finetune ...
    accelerate launch --num_processes 2 --no_python sottovoce finetune ...

Knows that environment and the process group; what is done in it is decided in `presets`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.distributed.presets import decide_for, strategy_of
from sottovoce_compiler.finetune.distributed.world import Processes
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.strategy import Launch, Strategy
from sottovoce_compiler.sources.files import say

# An evaluation of one process may take long while the others wait for it.
_PATIENCE = timedelta(hours=2)


def processes_asked() -> int:
    """How many processes this command was started as: 1 where nobody started several.

    Raises InputError where the environment contradicts itself.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise InputError(f"WORLD_SIZE = {size!r:.40}; start several processes with torchrun or accelerate")
    if int(size) > 1 and (
        missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    ):
        raise InputError(f"WORLD_SIZE is {size} but {missing[0]} is not set; start it with torchrun or accelerate")
    return int(size)


@contextmanager
def launched() -> Iterator[Launch]:
    """The processes of this command, with what they talk through, which is closed at the end."""
    if processes_asked() == 1:
        yield Launch()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Launch(Processes(), _wrap)
    finally:
        distributed.destroy_process_group()


def _wrap(model: TrainingModel, settings: Settings) -> Strategy:
    size = distributed.get_world_size()
    decision = decide_for(model, settings, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    if distributed.get_rank() == 0:
        offloaded = ", in main memory" if decision.offload else ""
        say(f"{size} processes, {decision.preset}{offloaded}: {decision.reason}")
    return strategy_of(decision, model, settings)
