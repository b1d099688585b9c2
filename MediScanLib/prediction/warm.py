"""Models that stay in memory between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exchange import Request

if TYPE_CHECKING:
    from .predictor import Predictor

WARM_MODELS = 2
"""Models that stay in memory, so that two can be compared."""


class WarmModels:
    """Predictors by model, device and settings; the one that was not used for longest goes first."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], Predictor] = {}

    def get(self, request: Request) -> Predictor:
        """The predictor that a request asks for, loaded if need be.

        Raises:
            MediScanError: No such model or device, or a damaged model.
        """
        from .predictor import Predictor

        key = request.model, request.device, request.settings.model_dump_json()
        predictor = self._loaded.pop(key, None)
        while len(self._loaded) >= WARM_MODELS:  # the old memory goes before the new comes
            del self._loaded[next(iter(self._loaded))]
        predictor = predictor or Predictor.load(request.model, request.device, request.settings)
        self._loaded[key] = predictor
        return predictor

    def clear(self) -> None:
        """Let go of all."""
        self._loaded.clear()
