"""What an explanation costs, in time and as a multiple of the prediction itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up what was spent on what.

    Args:
        device: Where the network runs; work that was only handed to it is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time inside as spent on something."""
        begun = self._now()
        try:
            yield
        finally:
            self._spent[what] = self._spent.get(what, 0.0) + self._now() - begun

    def spent(self, *what: str) -> float:
        """Seconds spent on all of these."""
        return sum(self._spent.get(each, 0.0) for each in what)

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self._started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()
