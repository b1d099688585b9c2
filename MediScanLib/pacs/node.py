"""The node: threads that plan, predict, send and tidy up, around one queue that survives all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from ..errors import MediScanError
from ..network.bundle import load_bundle
from .arrivals import ArrivalStore
from .connections import Connections
from .courier import Courier
from .database import Database
from .deliveries import DeliveryStore
from .folder import NodeFolder
from .housekeeping import Housekeeper
from .intake import Intake
from .items import ItemStore
from .planning import Planner
from .predicting import PredictingProcess
from .queue import Queue
from .sending import make_sender
from .settings import MEBIBYTE, PacsSettings
from .workshop import Workshop

_log = logging.getLogger("mediscan.pacs")

_AFTER_ERROR_S = 5.0
_LOOK_S = 0.5  # how long a thread sleeps that nobody wakes
_TIDY_S = 60.0


class Node:
    """Plans, predicts and sends. Images come in through `intake`, by a `Listener` or a `Poller`.

    Args:
        settings: All of them.

    Raises:
        PacsError: The folder is in use, or cannot be used; or a file with a secret cannot be read.
        BundleError: A model that a rule names is not there.
        ReportError: highdicom is not installed.
    """

    def __init__(self, settings: PacsSettings) -> None:
        from ..report.dicom.highdicom_objects import load

        load()
        self.settings = settings
        models = {rule.model: load_bundle(rule.model).sha256 for rule in settings.rules if not rule.leave_alone}
        senders = {
            key: make_sender(key, destination, settings.listen.ae_title)
            for key, destination in settings.destinations.items()
        }
        self.folder = NodeFolder(settings.folder, settings.limits.free_mb * MEBIBYTE)
        self.folder.own()
        try:
            self._database = Database(self.folder.database)
            self.queue = Queue(self.folder.root)
            self.arrivals = ArrivalStore(self._database, settings.limits.instances)
            items = ItemStore(self._database)
            self.arrivals.recover()
            items.recover()
        except BaseException:
            self.folder.disown()
            raise
        self.intake = Intake(self.folder, self.arrivals, settings.limits.instance_mb * MEBIBYTE)
        self.connections = Connections(self.arrivals)
        self._planner = Planner(settings, self.arrivals, items, models)
        self._workshop = Workshop(settings, self.folder, items)
        deliveries = DeliveryStore(self._database)
        self._couriers = [
            Courier(key, sender, settings.retry, self.folder, deliveries) for key, sender in senders.items()
        ]
        self._keeper = Housekeeper(self._database, self.folder, settings.keep)
        self._processes = [PredictingProcess(settings.predict) for _ in range(settings.predict.workers)]
        self._stopping = threading.Event()
        self._wakes: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        for name in sorted(self.queue.destinations() - set(self.settings.destinations)):
            _log.error("results wait for %s, which is no destination any more: name it again, or drop them.", name)
        self._run("plan", self._plan)
        for number, process in enumerate(self._processes):
            self._run(f"predict {number}", partial(self._predict, process))
        for courier in self._couriers:
            self._run(f"send {courier.destination}", courier.step)
        self._run("tidy", self._tidy, _TIDY_S)

    def wake(self) -> None:
        """Something came in."""
        self._wake("plan")

    def stop(self, wait: float = 20.0) -> None:
        """End. What is under way may finish for some seconds; what does not begins again at the next start.

        Args:
            wait: Seconds.
        """
        self._stopping.set()
        for name in self._wakes:
            self._wake(name)
        until = time.monotonic() + wait
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for process in self._processes:
            process.stop()
        for thread in self._threads:
            thread.join(5.0)
        for process in self._processes:
            process.close()
        self.queue.close()
        self._database.close()
        self.folder.disown()

    # Threads: each does one step after another, and sleeps when there is none

    def _run(self, name: str, step: Callable[[], bool], pause: float = _LOOK_S) -> None:
        wake = self._wakes[name] = threading.Event()

        def loop() -> None:
            while not self._stopping.is_set():
                try:
                    busy = step()
                except Exception as error:  # a thread that ends would stop the node without a word
                    _log.error("%s: %s", name, error if isinstance(error, MediScanError) else type(error).__name__)
                    _log.debug("%s", name, exc_info=error)
                    self._stopping.wait(_AFTER_ERROR_S)
                    continue
                if not busy:
                    wake.wait(pause)
                    wake.clear()

        thread = threading.Thread(target=loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _wake(self, start: str) -> None:
        for name, wake in self._wakes.items():
            if name.startswith(start):
                wake.set()

    def _plan(self) -> bool:
        if self._planner.plan():
            self._wake("predict")
        return False

    def _predict(self, process: PredictingProcess) -> bool:
        busy = self._workshop.step(process)
        if busy:
            self._wake("send")
        return busy

    def _tidy(self) -> bool:
        self._keeper.tidy()
        return False
