"""Predicts what is queued, one item after another."""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path

from ..errors import EngineError, MediScanError, WriteError
from .backoff import wait_s
from .folder import NodeFolder
from .items import Item, ItemStore
from .predicting import PredictingProcess
from .predicting_child import Task
from .problems import DiskFullError
from .settings import MEBIBYTE, PacsSettings

_log = logging.getLogger("mediscan.pacs")

_AGAIN = (EngineError, WriteError, DiskFullError)
"""What may go better next time. Everything else is a property of the images or of the model."""


class Workshop:
    """Makes results of items. For several threads, each with a process of its own.

    Args:
        settings: How predictions are made.
        folder: Where files lie.
        items: What is queued.
    """

    def __init__(self, settings: PacsSettings, folder: NodeFolder, items: ItemStore) -> None:
        self._settings, self._folder, self._items = settings, folder, items
        self._left: deque[Item] = deque()

    def step(self, process: PredictingProcess) -> bool:
        """Predict the next item.

        Returns:
            False where there is none now.
        """
        self._settle_left()
        item = self._items.claim()
        if item is None:
            return False
        try:
            results = process.predict(self._task(item))
            place = self._place(item).relative_to(self._folder.root)
            objects = [(uid, (place / name).as_posix()) for uid, name in results.objects]
            if not self._items.finish(item, objects):
                _log.info("item %s: more of its study came meanwhile, and it is predicted anew.", item.id)
                return True
        except Exception as error:
            known = error if isinstance(error, MediScanError) else EngineError(f"{type(error).__name__} in the node.")
            try:
                self._failed(item, known)
            except BaseException:  # not even that can be written down now
                self._left.append(item)
                raise
            return True
        _log.info(
            "item %s: predicted by rule %r, %d objects%s.",
            item.id,
            item.rule.name,
            len(objects),
            "; left to a human" if results.deferred else "",
        )
        for note in results.notes:
            _log.info("item %s: %s", item.id, note)
        return True

    def _settle_left(self) -> None:
        """What could not be written down, as of a full disk, begins again: nobody else would ever take it up."""
        while self._left:
            try:
                item = self._left.popleft()
            except IndexError:  # another thread has it
                return
            try:
                self._items.give_back(item)
            except BaseException:
                self._left.append(item)
                raise

    def _place(self, item: Item) -> Path:
        """Where results go: a child that outlives a node that was killed writes to another place than the next."""
        return self._folder.results / item.id / str(item.attempt)

    def _task(self, item: Item) -> Task:
        settings = self._settings.predict
        return Task(
            files=tuple(str(self._folder.root / file) for file in item.files),
            folder=str(self._place(item)),
            name=f"item {item.id}",
            model=item.rule.model,
            device=settings.device,
            inference=settings.inference.model_dump(mode="json"),
            results=item.rule.results,
            memory=settings.reading_mb * MEBIBYTE,
        )

    def _failed(self, item: Item, error: MediScanError) -> None:
        if error.code == "stopping":
            self._items.give_back(item)
            return
        retry = self._settings.retry
        again = isinstance(error, _AGAIN) and item.attempt < self._settings.predict.attempts
        again_at = time.time() + wait_s(item.attempt, retry.first_s, retry.most_s) if again else None
        self._items.fail(item, error.code, str(error), again_at)
        _log.error(
            "item %s: not predicted (attempt %d): %s %s",
            item.id,
            item.attempt,
            error,
            "It is tried again." if again else "It is a dead letter: see mediscan queue.",
        )
