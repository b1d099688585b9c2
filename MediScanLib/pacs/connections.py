"""Which studies are still coming in over open connections."""

from __future__ import annotations

import threading
from collections import defaultdict
from weakref import WeakSet

from .arrivals import ArrivalStore


class Connections:
    """Tells the store of arrivals when the last connection that brought some of a study has ended.

    Args:
        arrivals: What came in.
    """

    def __init__(self, arrivals: ArrivalStore) -> None:
        self._arrivals = arrivals
        self._lock = threading.Lock()
        self._studies: dict[object, set[str]] = {}
        self._open: dict[str, set[object]] = defaultdict(set)
        self._ended: WeakSet[object] = WeakSet()
        self._broken: set[str] = set()

    def brought(self, connection: object, study: str) -> None:
        """An image of a study came over a connection; it may have ended while the image was filed."""
        with self._lock:
            if connection in self._ended:
                if not self._open.get(study):
                    self._arrivals.closed(study, broken=True)
                return
            known = self._studies.setdefault(connection, set())
            if study in known:
                return
            known.add(study)
            self._open[study].add(connection)
            self._arrivals.opened(study)

    def ended(self, connection: object, *, broken: bool) -> None:
        """A connection has ended; ending it again changes nothing.

        Args:
            connection: Which.
            broken: Without being released.
        """
        with self._lock:
            self._ended.add(connection)
            closed = {}
            for study in self._studies.pop(connection, set()):
                if broken:
                    self._broken.add(study)
                self._open[study].discard(connection)
                if not self._open[study]:
                    del self._open[study]
                    closed[study] = study in self._broken
                    self._broken.discard(study)
            for study, was_broken in closed.items():  # last, as a full disk may end it
                self._arrivals.closed(study, broken=was_broken)
