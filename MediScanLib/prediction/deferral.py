"""The reasons for which a prediction is left to a human, in one place, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..network.card import Card
from ..study.image import MedicalImage
from .certainty import contradicts, reached
from .plausibility import Doubt
from .preprocessing import is_axial
from .result import DeferralReason, Finding, PredictionSet, Uncertainty

UNSTATED_CONFIDENCE = 0.5
"""Lowest probability of the likeliest finding that is accepted where a model states none."""

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


@dataclass(frozen=True)
class Signs:
    """What speaks for or against a prediction, beside the findings.

    Attributes:
        contrast: False where the image is blank.
        doubts: What speaks against the image itself.
        novelty: Distance from the training images as a multiple of the largest accepted one; None where unknown.
        sets: Findings that cannot be excluded, by rising coverage.
        uncertainty: How the head's answers scatter; None where not drawn.
        missing: Clinical values that are unknown.
    """

    contrast: bool
    doubts: Sequence[Doubt] = ()
    novelty: float | None = None
    sets: Sequence[PredictionSet] = ()
    uncertainty: Uncertainty | None = None
    missing: Sequence[str] = ()


def deferral_reasons(
    image: MedicalImage,
    card: Card,
    findings: list[Finding],
    signs: Signs,
    confidence_threshold: float | None,
) -> list[DeferralReason]:
    """Why a human should decide, the gravest first; empty where nothing speaks against the prediction.

    Args:
        image: What was looked at.
        card: Card of the model.
        findings: Its findings.
        signs: What else is known.
        confidence_threshold: Highest probability below which nothing is claimed; None for the limit of the card.
    """
    reasons = [
        *_input_reasons(image, card, signs.contrast),
        *((doubt.code, doubt.message) for doubt in signs.doubts),
        *_novelty_reasons(signs.novelty),
        *_score_reasons(findings, card, signs, confidence_threshold),
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


def _score_reasons(
    findings: list[Finding], card: Card, signs: Signs, confidence_threshold: float | None
) -> Iterator[tuple[str, str]]:
    contradiction = contradicts(reached(findings), card.labels)
    if contradiction:
        yield "contradiction", contradiction
    several = next((one for one in signs.sets if len(one.labels) > 1), None)
    if several is not None and several is signs.sets[0]:
        yield (
            "several_findings",
            f"Even at {several.coverage:.0%} coverage none of these can be excluded: {', '.join(several.labels)}.",
        )
    top = max(findings, key=lambda finding: finding.probability)
    least, accepted = _confidence_limit(card, confidence_threshold)
    if top.probability < least:
        also = f" At {several.coverage:.0%} coverage it may be {' or '.join(several.labels)}." if several else ""
        yield (
            "low_confidence",
            f"The most likely finding, {top.label}, has a probability of {top.probability:.1%}, below "
            f"{least:.1%}{accepted}.{also}",
        )
    scatter = signs.uncertainty
    if scatter is not None and scatter.relative is not None and scatter.relative > 1:
        yield (
            "disagreement",
            f"The model contradicts itself when parts of its features are left out: its answers scatter "
            f"{scatter.relative:.2f} times as far as in the least certain study that is accepted.",
        )
    needed = [field for field in card.needed_fields if field in signs.missing]
    if needed:
        yield "missing_fields", f"The model does worse where these values are unknown: {', '.join(needed)}."
    if top.decision == "unsure":
        yield "close_call", f"The most likely finding, {top.label}, is too near to its threshold to decide."


def _confidence_limit(card: Card, wanted: float | None) -> tuple[float, str]:
    """The lowest probability that is accepted, and what it stands for."""
    if wanted is not None:
        return wanted, ""
    if card.confidence is None:
        return UNSTATED_CONFIDENCE, ""
    return card.confidence.threshold, f", which {card.confidence.accepted:.0%} of held-out studies reach"


def _modality_kind(modality: str) -> str:
    return "radiograph" if modality in _RADIOGRAPHS else modality
