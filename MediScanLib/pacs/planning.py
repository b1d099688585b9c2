"""From studies that are complete to the queue."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .arrivals import ArrivalStore
from .items import ItemStore
from .plans import make_plans
from .settings import PacsSettings

_log = logging.getLogger("mediscan.pacs")


class Planner:
    """Queues what studies that are complete give to predict. For one thread.

    Args:
        settings: Rules and when a study is complete.
        arrivals: What came in.
        items: What is queued.
        models: SHA-256 of each model that the rules name.
    """

    def __init__(
        self, settings: PacsSettings, arrivals: ArrivalStore, items: ItemStore, models: Mapping[str, str]
    ) -> None:
        self._settings, self._arrivals, self._items, self._models = settings, arrivals, items, models

    def plan(self) -> int:
        """Look at all studies that became complete.

        Returns:
            How many items are new.
        """
        settings, total = self._settings, 0
        for study in self._arrivals.due(settings.study):
            instances = self._arrivals.instances(study.uid)
            found = make_plans(instances, settings.rules, self._models, settings.predict.inference)
            new, known = self._items.put(study, found)
            total += new
            _log.log(
                logging.WARNING if study.is_partial else logging.INFO,
                "study %s: %s with %d images, %d of them left alone by the rules; %d to predict, %d known already.",
                study.key,
                "its sender broke off, going on" if study.is_partial else "complete",
                len(instances),
                len(instances) - sum(len(plan.instances) for plan in found),
                new,
                known,
            )
        return total
