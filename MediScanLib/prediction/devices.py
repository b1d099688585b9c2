"""Which compute device to use, and what there is."""

from __future__ import annotations

import torch

from ..errors import DeviceError


def available_devices() -> list[str]:
    """Device names usable here, the fastest first; "cpu" is always the last."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def resolve_device(name: str = "auto") -> torch.device:
    """The device of that name.

    Args:
        name: "auto" (the fastest there is), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        DeviceError: There is no such device here; the message lists those there are.
    """
    devices = available_devices()
    if name == "auto":
        return torch.device(devices[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in devices:
        raise DeviceError(f"There is no device {name!r} here. Available: auto, {', '.join(devices)}.")
    return torch.device(wanted)


def is_out_of_memory(error: BaseException) -> bool:
    """True for an accelerator's out-of-memory error (CUDA has a class of its own, MPS only a message)."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )
