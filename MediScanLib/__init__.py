"""MediScan: reads a study, an image with what is known of the patient, and says what it sees, where and how sure.

The names below are loaded on first use, so that `import MediScanLib` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ClinicalRecord": ".study.record",
    "MedicalImage": ".study.image",
    "read_image": ".study.reading",
    "Prediction": ".prediction.result",
    "Predictor": ".prediction.predictor",
}

__all__ = ["ClinicalRecord", "MedicalImage", "Prediction", "Predictor", "__version__", "read_image"]

if TYPE_CHECKING:
    from .prediction.predictor import Predictor
    from .prediction.result import Prediction
    from .study.image import MedicalImage
    from .study.reading import read_image
    from .study.record import ClinicalRecord


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
