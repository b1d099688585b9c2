"""The study that one browser looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..prediction.result import Prediction
from ..study.image import MedicalImage


@dataclass(eq=False)
class Study:
    """One image with what was said of it.

    Attributes:
        image: What was uploaded.
        reference: Its volume node.
        stated: Clinical values of its header that can be used.
        prediction: What was said; None before the first run.
        asked: Texts of the form that it was said for.
        model: Which model said it.
    """

    image: MedicalImage
    reference: Any
    stated: dict[str, float | str]
    prediction: Prediction | None = None
    asked: dict[str, str] = field(default_factory=dict)
    model: str = ""

    @property
    def facts(self) -> list[str]:
        """What the image is, in a few words each."""
        image = self.image
        slices, rows, columns = image.shape
        size = f"{columns} × {rows} pixels" if slices == 1 else f"{columns} × {rows} pixels, {slices} slices"
        parts = [image.modality or "", image.body_part or "", image.view or "", size]
        if image.spacing is not None:
            across, down, _ = image.spacing
            parts.append(f"{across:.2f} × {down:.2f} mm a pixel")
        else:
            parts.append("no scale in the file: nothing can be measured")
        return [part for part in parts if part]
