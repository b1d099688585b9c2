"""Running out of memory, in words that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import DeviceError
from ..devices import is_out_of_memory


@contextmanager
def bounded(device: torch.device, at_once: int) -> Iterator[None]:
    """Turn an out-of-memory error inside into one that says what to do.

    Args:
        device: Where the network runs.
        at_once: Images that go through it together, at most.

    Raises:
        DeviceError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(error) and "allocate memory" not in str(error):
            raise
        fewer = "a smaller max_batch_size, " if at_once > 1 else ""
        elsewhere = "" if device.type == "cpu" else ' or the device "cpu"'
        raise DeviceError(
            f"{device} is out of memory with this explanation. Try {fewer}the method gradcam{elsewhere}."
        ) from error
