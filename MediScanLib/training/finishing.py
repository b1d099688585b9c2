"""From trained weights to a bundle's card: temperature, thresholds, heat-map scale, figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import ModelConfig
from ..network.card import (
    Calibration,
    Card,
    DataSource,
    FieldStatistics,
    Grade,
    InputSpec,
    Limit,
    Metric,
    SeverityScale,
)
from ..network.fusion import FusionNetwork, HeadOutput
from ..prediction.activation import class_activation_maps
from ..prediction.calibrated import calibrated_probabilities
from ..prediction.certainty import entropies
from ..progress import Progress, tracked
from ..study.record import FIELDS
from .answering import SplitOutput, evaluating, mean_within_source_auc
from .calibration import choose_thresholds, fit_calibration
from .certainty import fit_confidence, fit_conformal, fit_epistemic, needed_fields
from .datasets import BRIXIA_MAXIMUM, LABELS, Study
from .evaluation import severity_correlation, within_source_auc

TRAINING_CT_WINDOW = (150.0, 300.0)
"""(center, width) in HU that the 8-bit lung CT slices of the training data look like: fat black, bone white."""

SEVERITY_FINDINGS = ("pneumonia", "covid")
"""The Brixia score grades lung opacities, whatever their cause."""

AT_LEAST = {"sensitive": {"sensitivity": 0.9}, "specific": {"specificity": 0.9}}
"""What operating points reach on val, beside the balanced one."""

GRADES = (("none", 0.0), ("mild", 0.06), ("moderate", 0.33), ("severe", 0.67))


@dataclass(frozen=True)
class CardText:
    """What a card says in words.

    Attributes:
        name: Bundle name.
        version: Version of the bundle.
        title: One line.
        description: What it is for and what not.
        weights_licence: Licence of the weights.
        cautions: What a user of the figures must know.
    """

    name: str
    version: str
    title: str
    description: str
    weights_licence: str
    cautions: Sequence[str] = ()


def input_spec(studies: Sequence[Study], network: FusionNetwork, size: int) -> InputSpec:
    """Square or cubic input of a network that is trained on these studies."""
    return InputSpec(
        size=(size,) * network.encoder.spatial_dims,
        windows={"CT": TRAINING_CT_WINDOW},
        mean=network.encoder.input_mean,
        std=network.encoder.input_std,
        modalities=sorted({study.modality for study in studies if study.modality}),
        body_parts=sorted({study.body_part for study in studies if study.body_part}),
    )


def make_card(
    text: CardText,
    *,
    model: ModelConfig,
    spec: InputSpec,
    clinical: dict[str, FieldStatistics],
    train_studies: Sequence[Study],
    outputs: Mapping[str, SplitOutput],
    heat_map_scales: dict[str, float],
    novelty: Limit | None = None,
    recipe: dict[str, Any] | None = None,
) -> Card:
    """Calibrate and choose thresholds on val, measure on every given split, and write it all down.

    Args:
        text: Words.
        model: Architecture.
        spec: Image input.
        clinical: Statistics of the training split.
        train_studies: What it was trained on.
        outputs: By split, "val" among them.
        heat_map_scales: From `usual_peaks`.
        novelty: From `learn_novelty`.
        recipe: How it was trained.
    """
    val = outputs["val"]
    allowed = torch.tensor([study.allowed for study in val.studies])
    fitted_on = f"val, {len(val.studies)} studies"
    calibration = fit_calibration(val.fused.logits, allowed, fitted_on)
    probabilities = probabilities_of(val.fused, calibration)
    thresholds = choose_thresholds(val.studies, probabilities, "val")
    return Card(
        name=text.name,
        version=text.version,
        title=text.title,
        description=text.description,
        labels=list(LABELS),
        network=model,
        input=spec,
        clinical=clinical,
        calibration=calibration,
        thresholds=thresholds,
        operating_points={
            name: choose_thresholds(val.studies, probabilities, "val", **wanted) for name, wanted in AT_LEAST.items()
        },
        conformal=fit_conformal(val.studies, probabilities, fitted_on),
        confidence=fit_confidence(probabilities, [thresholds[label].value for label in LABELS], fitted_on),
        epistemic=_epistemic_limit(val, calibration, fitted_on),
        needed_fields=_needed_fields(val, clinical),
        severity=_severity_scale(train_studies),
        heat_map_scales=heat_map_scales,
        novelty=novelty,
        data=data_sources(train_studies),
        weights_licence=text.weights_licence,
        metrics=[metric for split, output in outputs.items() for metric in figures(output, calibration, split)],
        cautions=list(text.cautions),
        recipe=recipe or {},
    )


def _epistemic_limit(val: SplitOutput, calibration: Calibration, fitted_on: str) -> Limit | None:
    if val.drawn.shape[1] < 2:
        return None
    drawn = calibrated_probabilities(val.drawn.flatten(0, 1), calibration).unflatten(0, val.drawn.shape[:2])
    return fit_epistemic(entropies(drawn.numpy()).epistemic, fitted_on)


def _needed_fields(val: SplitOutput, clinical: Mapping[str, FieldStatistics]) -> list[str]:
    fused, alone = (
        mean_within_source_auc(val.studies, torch.softmax(output.logits.double(), dim=1).numpy())
        for output in (val.fused, val.image_only)
    )
    return needed_fields(fused - alone, {name: field.known_fraction for name, field in clinical.items()})


def probabilities_of(output: HeadOutput, calibration: Calibration) -> npt.NDArray[np.float64]:
    """Calibrated probabilities (study, label)."""
    return calibrated_probabilities(output.logits, calibration).numpy()


def usual_peaks(
    network: FusionNetwork, images: Iterable[Tensor], count: int, device: torch.device, progress: Progress
) -> dict[str, float]:
    """By label, the 90th percentile of the hottest place of its map over the studies in which it is the likeliest.

    Findings differ by how much of the evidence one place can hold; without a scale of its own, a diffuse one would
    always look cold. A label that is never the likeliest takes the percentile over all studies.

    Args:
        network: Trained network.
        images: Network inputs (1, *spatial), those of val.
        count: How many.
        device: Where the network is.
        progress: Hears of every image.
    """
    peaks: dict[str, list[float]] = {label: [] for label in LABELS}
    nothing = torch.zeros(1, len(FIELDS), device=device)
    with evaluating(network), torch.no_grad():
        for image in tracked(images, "heat-map scale", count, progress):
            features = network.features(image[None].to(device))
            result = class_activation_maps(network, features, nothing, nothing.bool())
            top = int(result.logits.argmax())
            peaks[LABELS[top]].append(float(result.maps[0, top].max()))
    every = [peak for own in peaks.values() for peak in own]
    return {label: max(float(np.percentile(own or every, 90)), 1e-6) for label, own in peaks.items()}


def data_sources(studies: Sequence[Study]) -> list[DataSource]:
    """Sources with their licences and numbers of studies."""
    sources = []
    for source in sorted({study.source for study in studies}):
        members = [study for study in studies if study.source == source]
        licences = sorted({study.licence or "not stated" for study in members})
        sources.append(DataSource(name=source, licence="; ".join(licences), studies=len(members)))
    return sources


def figures(output: SplitOutput, calibration: Calibration, split: str) -> list[Metric]:
    """What a card says of a split: AUC by task with and without clinical values, and the severity's correlation."""
    severity = torch.sigmoid(output.fused.severity).double().numpy()
    return [
        *within_source_auc(output.studies, probabilities_of(output.fused, calibration), split),
        *within_source_auc(output.studies, probabilities_of(output.image_only, calibration), split, " (image only)"),
        *severity_correlation(output.studies, severity, split),
    ]


def _severity_scale(studies: Sequence[Study]) -> SeverityScale | None:
    """The scale, for the findings it is meant for; None where no study was scored."""
    if all(study.severity is None for study in studies):
        return None
    return SeverityScale(
        name="Brixia 0-18",
        maximum=BRIXIA_MAXIMUM,
        grades=[Grade(name=name, start=start) for name, start in GRADES],
        findings=list(SEVERITY_FINDINGS),
    )
