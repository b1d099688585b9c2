"""The models side by side, each with a name that no other has."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ...prediction.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Model:
    """A model under a name.

    Attributes:
        name: Unique among the models of a run.
        predictor: Model on its device.
        scores: The same without heat maps, for questions that need none.
    """

    name: str
    predictor: Predictor
    scores: Predictor

    @property
    def labels(self) -> tuple[str, ...]:
        """Findings that it knows."""
        return tuple(self.predictor.bundle.card.labels)

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on: weights, card and settings."""
        bundle = self.predictor.bundle
        card = hashlib.sha256(bundle.card.model_dump_json().encode()).hexdigest()
        settings = self.predictor.settings.model_dump(mode="json", exclude={"max_batch_size"})
        return {"name": self.name, "weights": bundle.sha256, "card": card, "settings": settings}

    def was_trained_on(self, manifest_sha256: str) -> bool | None:
        """Whether the card names this manifest as the one that it was trained on; None where it names none."""
        named = self.predictor.bundle.card.recipe.get("manifest_sha256")
        return None if named is None else named == manifest_sha256


def name_models(predictors: Sequence[Predictor]) -> list[Model]:
    """Name and version, and where two have the same, the beginning of the hash of their weights.

    Raises:
        UsageError: No model, or the same model twice.
    """
    if not predictors:
        raise UsageError("No model was chosen.")
    plain = [f"{p.bundle.card.name} {p.bundle.card.version}".strip() for p in predictors]
    often = Counter(plain)
    names = [
        f"{name} ({p.bundle.sha256[:8]})" if often[name] > 1 else name
        for name, p in zip(plain, predictors, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"The model {name} is given twice. Name each model once.")
    return [Model(name, _with(p, maps=True), _with(p, maps=False)) for name, p in zip(names, predictors, strict=True)]


def _with(predictor: Predictor, *, maps: bool) -> Predictor:
    settings = predictor.settings.model_copy(update={"explainability": maps})
    return Predictor(predictor.bundle, predictor.network, predictor.device, settings)
