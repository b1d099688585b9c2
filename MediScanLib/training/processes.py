"""The processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from ..errors import DeviceError, UsageError
from ..prediction.devices import resolve_device

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Its number over all machines.
        local_rank: Its number on this machine.
        count: How many there are.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank, in every process."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the group that torchrun describes in the environment: NCCL between GPUs, gloo between CPUs.

    Args:
        device: "auto", "cpu" or "cuda"; of several GPUs a process takes that of its local rank.

    Raises:
        UsageError: torchrun did not start this process.
        DeviceError: There is no GPU for this process.
    """
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise UsageError(
            f"--distributed: {', '.join(missing)} not in the environment. Start every process with torchrun, such as "
            "torchrun --standalone --nproc-per-node 2 -m MediScanLib.cli train --distributed ..."
        )
    processes = Processes(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        if processes.local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"--distributed: process {processes.local_rank} of this machine has no GPU of its own; there are "
                f"{torch.cuda.device_count()}. Start fewer processes."
            )
        chosen = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        chosen = torch.device("cpu")  # no collective operations exist on other devices
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield processes, chosen
    finally:
        distributed.destroy_process_group()
