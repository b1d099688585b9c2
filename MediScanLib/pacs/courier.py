"""Brings results to one destination, one delivery after another."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..errors import MediScanError
from .backoff import wait_s
from .deliveries import Delivery, DeliveryStore
from .folder import NodeFolder
from .problems import PacsError, PeerError
from .sending import Sender
from .settings import RetrySettings

_log = logging.getLogger("mediscan.pacs")

_MOST_SILENCE_S = 300.0
"""A destination that cannot be reached is called again at least so often."""


class Courier:
    """Sends to one destination. For one thread, so that nothing is under way there twice.

    Args:
        destination: Its name.
        sender: How it is reached.
        retry: How failed deliveries are tried again.
        folder: Where results lie.
        deliveries: What is to be sent.
    """

    def __init__(
        self, destination: str, sender: Sender, retry: RetrySettings, folder: NodeFolder, deliveries: DeliveryStore
    ) -> None:
        self.destination = destination
        self._sender, self._retry, self._folder, self._deliveries = sender, retry, folder, deliveries
        self._silences = 0
        self._next_call = 0.0  # time.monotonic

    def step(self) -> bool:
        """Send the next delivery.

        Returns:
            False where there is none now, or the destination was not reached lately.
        """
        if time.monotonic() < self._next_call:
            return False
        delivery = self._deliveries.next(self.destination)
        if delivery is None:
            return False
        try:
            self._deliver(delivery)
        except MediScanError as error:
            self._failed(delivery, error)
        else:
            self._silences = 0
        return True

    def _deliver(self, delivery: Delivery) -> None:
        paths = {one.uid: self._path(one.file) for one in delivery.objects}
        doubtful = [(one.uid, paths[one.uid]) for one in delivery.objects if one.is_uncertain]
        there: set[str] = set()
        if doubtful:  # these were being sent when something broke: ask before sending them again
            there = self._sender.present(doubtful)
            _log.info(
                "item %s: of %d objects that %s may have, it has %d.",
                delivery.item,
                len(doubtful),
                delivery.destination,
                len(there),
            )
        objects = [(uid, path) for uid, path in paths.items() if uid not in there]
        sent, error = there, None
        if objects:
            self._deliveries.begin(delivery)
            outcome = self._sender.send(objects)
            sent, error = there | outcome.sent, outcome.error
            if error is not None:
                self._deliveries.settle(delivery, sent, outcome.uncertain)
                raise error
        self._deliveries.done(delivery, sent)
        _log.info("item %s: its %d objects are in %s.", delivery.item, len(sent), delivery.destination)

    def _path(self, file: str | None) -> Path:
        path = None if file is None else self._folder.root / file
        if path is None or not path.is_file():
            raise PacsError(
                "a result is no longer in the folder of the node. Have its study sent again.", code="files_gone"
            )
        return path

    def _failed(self, delivery: Delivery, error: MediScanError) -> None:
        retry = self._retry
        silent = isinstance(error, PeerError) and error.unreachable
        again = silent or (error.code != "files_gone" and delivery.attempt < retry.attempts)
        again_at: float | None = None
        if silent:  # nothing else would reach it either, and it is nobody's fault: no attempt is used up
            self._silences += 1
            wait = wait_s(self._silences, retry.first_s, min(retry.most_s, _MOST_SILENCE_S))
            self._next_call, again_at = time.monotonic() + wait, time.time()
        elif again:
            again_at = time.time() + wait_s(delivery.attempt, retry.first_s, retry.most_s)
        self._deliveries.fail(delivery, error.code, str(error), again_at, counts=not silent)
        _log.error(
            "item %s: not sent to %s (attempt %d): %s %s",
            delivery.item,
            delivery.destination,
            delivery.attempt,
            error,
            "It is tried again." if again else "It is a dead letter: see mediscan queue.",
        )
