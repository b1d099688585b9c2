"""The reasons for which a prediction is left to a human, in one place, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator

from ..network.card import Card
from ..study.image import MedicalImage
from .preprocessing import is_axial
from .result import DeferralReason, Finding

_EXTREMITY = frozenset(
    {
        "ANKLE",
        "ARM",
        "CALCANEUS",
        "CLAVICLE",
        "ELBOW",
        "EXTREMITY",
        "FEMUR",
        "FINGER",
        "FOOT",
        "FOREARM",
        "HAND",
        "HUMERUS",
        "KNEE",
        "LEG",
        "LOWEREXTREMITY",
        "LOWERLEG",
        "PATELLA",
        "SCAPULA",
        "SHOULDER",
        "THIGH",
        "THUMB",
        "TIBIA",
        "TOE",
        "UPPEREXTREMITY",
        "WRIST",
    }
)
_CHEST = frozenset({"CHEST", "THORAX", "LUNG", "LUNGS", "PORTCHEST"})
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "XR"})


def deferral_reasons(
    image: MedicalImage,
    card: Card,
    findings: list[Finding],
    *,
    contrast: bool,
    novelty: float | None,
    confidence_threshold: float,
) -> list[DeferralReason]:
    """Why a human should decide, the gravest first; empty where nothing speaks against the prediction.

    Args:
        image: What was looked at.
        card: Card of the model.
        findings: Its findings.
        contrast: False where the image is blank.
        novelty: Distance from the training images as a multiple of the largest accepted one; None where unknown.
        confidence_threshold: Highest probability below which nothing is claimed.
    """
    reasons = [
        *_input_reasons(image, card, contrast),
        *_novelty_reasons(novelty),
        *_score_reasons(findings, confidence_threshold),
    ]
    return [DeferralReason(code=code, message=message) for code, message in reasons]


def body_region(body_part: str | None) -> str | None:
    """The region that a DICOM Body Part Examined belongs to, as the training data names regions."""
    if body_part is None:
        return None
    name = "".join(body_part.upper().split()).replace("_", "")
    if name in _CHEST:
        return "CHEST"
    return "EXTREMITY" if name in _EXTREMITY else name


def _input_reasons(image: MedicalImage, card: Card, contrast: bool) -> Iterator[tuple[str, str]]:
    if not contrast:
        yield "blank_image", "The image is blank or nearly so; there is nothing to read."
    known = {_modality_kind(modality) for modality in card.input.modalities}
    if image.modality and known and _modality_kind(image.modality) not in known:
        yield (
            "unfamiliar_modality",
            f"The model never saw modality {image.modality}; it was trained on {', '.join(card.input.modalities)}.",
        )
    if image.is_volume and image.modality is None and known:
        yield "unknown_modality", "The file does not say what kind of volume it is, and its values do not tell."
    if image.is_volume and image.modality == "CT" and card.network.spatial_dims == 2 and not is_axial(image):
        yield "not_axial", "The slices are not axial, and the model learned CT from axial slices."
    region = body_region(image.body_part)
    if region is None and image.modality == "CT" and card.input.body_parts:
        yield (
            "unknown_body_part",
            f"The file does not say which body part the CT shows; the model knows {', '.join(card.input.body_parts)}.",
        )
    if region and card.input.body_parts and region not in card.input.body_parts:
        yield (
            "unfamiliar_body_part",
            f"The model never saw body part {image.body_part}; it was trained on {', '.join(card.input.body_parts)}.",
        )


def _novelty_reasons(novelty: float | None) -> Iterator[tuple[str, str]]:
    if novelty is not None and novelty > 1:
        yield (
            "unlike_training",
            f"The image is unlike those that the model was trained on: {novelty:.2f} times as far from them as the "
            "farthest that are accepted.",
        )


def _score_reasons(findings: list[Finding], confidence_threshold: float) -> Iterator[tuple[str, str]]:
    top = max(findings, key=lambda finding: finding.probability)
    if top.probability < confidence_threshold:
        yield (
            "low_confidence",
            f"The most likely finding, {top.label}, has a probability of {top.probability:.1%}, "
            f"below {confidence_threshold:.0%}.",
        )
    unsure = [finding.label for finding in findings if finding.decision == "unsure"]
    if unsure:
        yield "close_call", f"Too near to its threshold to decide: {', '.join(unsure)}."


def _modality_kind(modality: str) -> str:
    return "radiograph" if modality in _RADIOGRAPHS else modality
