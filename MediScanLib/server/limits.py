"""How much is let in: requests at once, bytes at once, requests a minute."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from .problems import BusyError

_MOST_CALLERS = 10_000


class Admission:
    """Counts requests for predictions from before their body is read until they are answered.

    Args:
        most: Requests at once.
        most_bytes: Bytes of their bodies at once; one request alone is always let in.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._lock = threading.Lock()
        self.held = 0
        self.held_bytes = 0

    @contextmanager
    def __call__(self, size: int, seconds_each: float) -> Iterator[None]:
        """Hold a place.

        Args:
            size: Bytes of the body.
            seconds_each: What one request takes at the moment.

        Raises:
            BusyError: There is none.
        """
        with self._lock:
            full = self.held >= self._most or (self.held > 0 and self.held_bytes + size > self._most_bytes)
            if full:
                # when about half of what is here will be done
                wait = min(60.0, self.held * seconds_each / 2)
                raise BusyError(f"{self.held} requests are being worked on. Come back in a moment.", wait)
            self.held += 1
            self.held_bytes += size
        try:
            yield
        finally:
            with self._lock:
                self.held -= 1
                self.held_bytes -= size


class RateLimit:
    """A bucket of a minute's requests for each caller, filled evenly.

    Args:
        per_minute: 0 for no limit.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, caller: str, cost: float = 1.0) -> None:
        """Take one from a caller's bucket.

        Raises:
            BusyError: It is empty.
        """
        if not self._per_second:
            return
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(caller, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            allowed = left >= cost
            self._buckets[caller] = (left - cost if allowed else left, now)
            while len(self._buckets) > _MOST_CALLERS:
                self._buckets.popitem(last=False)
        if not allowed:
            raise BusyError(
                f"More than {self._most:g} requests in a minute. Ask less often.", (cost - left) / self._per_second
            )


class RecentPixels:
    """Pixels that clients sent lately, so that another record on the same image need not bring them again.

    Args:
        most_bytes: Kept at most.
        age_s: Forgotten after that time.
    """

    def __init__(self, most_bytes: int = 512 * 1024**2, age_s: float = 600.0) -> None:
        self._most, self._age = most_bytes, age_s
        self._kept: OrderedDict[tuple[str, str], tuple[float, npt.NDArray[np.float32]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, caller: str, digest: str) -> npt.NDArray[np.float32] | None:
        """What a caller sent; nobody gets at what another one sent."""
        with self._lock:
            self._forget()
            found = self._kept.pop((caller, digest), None)
            if found is None:
                return None
            self._kept[caller, digest] = (time.monotonic(), found[1])
            return found[1]

    def put(self, caller: str, digest: str, pixels: npt.NDArray[np.float32]) -> None:
        """Keep what a caller sent."""
        if pixels.nbytes > self._most:
            return
        with self._lock:
            self._kept.pop((caller, digest), None)
            self._kept[caller, digest] = (time.monotonic(), pixels)
            self._forget()

    def _forget(self) -> None:
        oldest = time.monotonic() - self._age
        for key, (at, _) in list(self._kept.items()):
            if at < oldest:
                del self._kept[key]
        while sum(pixels.nbytes for _, pixels in self._kept.values()) > self._most:
            self._kept.popitem(last=False)
