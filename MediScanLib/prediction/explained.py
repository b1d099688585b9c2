"""A prediction with the explanation that its settings ask for, in place of the maps that come for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..progress import Progress
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from .assembly import heat_map_summary
from .explanations import METHODS, explain, faithfulness
from .predictor import Predictor
from .result import Prediction


def wants_explanation(predictor: Predictor) -> bool:
    """Whether the settings ask for more than the maps that come with every prediction."""
    settings = predictor.settings
    wanted = settings.explanation != METHODS[0] or settings.explanation_against is not None or settings.faithfulness
    return settings.explainability and wanted


def explained(
    predictor: Predictor,
    prediction: Prediction,
    image: MedicalImage,
    record: ClinicalRecord,
    slices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """The prediction with the maps of `InferenceConfig.explanation`, and whether those of its likeliest finding hold.

    Args:
        predictor: Model.
        prediction: Of the same study, with the plain maps.
        image: Image or volume.
        record: What is known of the patient.
        slices: As for the prediction.
        progress: Hears how far it is and may cancel.

    Raises:
        UsageError: There is no such finding to tell the others from.
        CancelledError: `progress` asked to stop.
    """
    settings = predictor.settings
    asked = [label for label in predictor.bundle.card.labels if label != settings.explanation_against]
    found = explain(
        predictor,
        image,
        record,
        method=settings.explanation,
        findings=asked,
        against=settings.explanation_against,
        slices=slices,
        progress=progress,
    )
    provenance = prediction.provenance.model_copy(
        update={
            "seconds": {**prediction.provenance.seconds, "explanation": round(found.seconds, 4)},
            "notes": [
                *prediction.provenance.notes,
                f"Heat maps by {found.method}, {found.relative_cost:.2f} times a bare pass through the network; 1 is "
                f"{found.scale_meaning}.",
                *found.notes,
            ],
        }
    )
    top = prediction.top.label
    verdicts = []
    if settings.faithfulness and top in found.maps.labels:
        verdicts.append(faithfulness(predictor, image, record, found, top, progress=progress))
    return prediction.model_copy(
        update={
            "heat_maps": [
                heat_map_summary(image, found.maps, label).model_copy(
                    update={
                        "method": found.method,
                        "against": found.against,
                        "scale_meaning": found.scale_meaning,
                    }
                )
                for label in found.maps.labels
            ],
            "faithfulness": verdicts,
            "provenance": provenance,
        }
    ).with_maps(found.maps)
