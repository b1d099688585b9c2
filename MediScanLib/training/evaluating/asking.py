"""Ask a predictor about studies: with everything, without clinical values, and without an image.

All three go the way that every user goes, through `Predictor`, so that what is measured is what is shipped.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DataError, MediScanError
from ...network.card import Card
from ...prediction.modalities import knows_hidden_images
from ...prediction.predictor import Predictor
from ...prediction.preprocessing import prepare_slices, prepare_volume
from ...prediction.result import Prediction
from ...progress import Progress, SilentProgress, tracked
from ...study.image import MedicalImage
from ...study.reading import read_image
from ...study.record import ClinicalRecord
from ..datasets import Study
from .answers import CLINICAL_ONLY, FUSED, IMAGE_ONLY, Answers

MEAN_FEATURE_STUDIES = 160
"""Training studies, spread evenly over the split, whose mean feature stands for an image that is not there."""


class _NoImage(nn.Module):
    """An encoder's layers that give the same feature in every cell whatever the image."""

    def __init__(self, feature: Tensor, stride: int) -> None:
        super().__init__()
        self.register_buffer("feature", feature)
        self._stride = stride

    def forward(self, image: Tensor) -> Tensor:
        cells = [max(1, size // self._stride) for size in image.shape[2:]]
        feature: Tensor = self.get_buffer("feature").reshape(1, -1, *[1] * len(cells))
        return feature.expand(len(image), -1, *cells)


class _Remembering(nn.Module):
    """An encoder's layers that do not look twice at the same image in a row: the ablation asks again at once."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self._seen: tuple[Tensor, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor:
        if self._seen is None or not torch.equal(self._seen[0], image):
            self._seen = image, self.layers(image)
        return self._seen[1]


def without_image(predictor: Predictor, feature: Tensor) -> Predictor:
    """The same model with the image hidden: its encoder answers `feature` (C,) everywhere.

    The head stays the trained one. What it answers is the clinical values seen from the average image, and not what a
    model trained on clinical values alone would reach.
    """
    return _with_layers(predictor, _NoImage(feature, predictor.network.encoder.stride))


def _with_layers(predictor: Predictor, layers: nn.Module) -> Predictor:
    """A predictor whose encoder has other layers; heads are shared with the original, which stays as it was."""
    encoder = copy.copy(predictor.network.encoder)
    encoder._modules = {"layers": layers}
    network = copy.copy(predictor.network)
    network._modules = {**network._modules, "encoder": encoder}
    return Predictor(predictor.bundle, network, predictor.device, predictor.settings)


def hidden_feature(predictor: Predictor, train: Sequence[Study], progress: Progress | None = None) -> Tensor:
    """(C,) what the encoder shall say in place of an image.

    A network that was trained with hidden images gets what hid them: features that are zero once standardized. Others
    have never seen that; they get the mean feature of their training images.

    Raises:
        DataError: As for `mean_feature`.
    """
    if knows_hidden_images(predictor.bundle.card):
        return predictor.network.feature_mean.clone()
    return mean_feature(predictor, train, progress)


@torch.inference_mode()
def mean_feature(predictor: Predictor, studies: Sequence[Study], progress: Progress | None = None) -> Tensor:
    """(C,) mean over cells and studies of the encoder's features, from at most MEAN_FEATURE_STUDIES of `studies`.

    Raises:
        DataError: There are no studies.
    """
    if not studies:
        raise DataError("The manifest has no study in split train: the average image for the ablation is unknown.")
    chosen = [
        studies[i] for i in np.unique(np.linspace(0, len(studies) - 1, MEAN_FEATURE_STUDIES).round().astype(int))
    ]
    card, total = predictor.bundle.card, torch.zeros(predictor.network.encoder.out_channels, dtype=torch.float64)
    for study in tracked(chosen, "average image", len(chosen), progress or SilentProgress()):
        tensor = _network_input(read_study(study), card)
        features = predictor.network.encoder(tensor.to(predictor.device))
        total += features.flatten(2).mean(2).mean(0).double().cpu()
    return (total / len(chosen)).float()


def ask(
    predictor: Predictor,
    hidden: Predictor,
    studies: Sequence[Study],
    columns: Sequence[Mapping[str, str]],
    progress: Progress | None = None,
) -> Answers:
    """Answers to every study by what was shown.

    Args:
        predictor: Model.
        hidden: The same without image, from `without_image`.
        studies: Studies.
        columns: Further columns of the manifest, one mapping a study.
        progress: Hears of every study and may cancel.

    Raises:
        DataError: An image that cannot be read or predicted; the message names the row.
        CancelledError: `progress` asked to stop.
    """
    plain = _with_layers(_for_scores(predictor), _Remembering(predictor.network.encoder.layers))
    hidden = _for_scores(hidden)
    predictions: dict[str, list[Prediction]] = {FUSED: [], IMAGE_ONLY: [], CLINICAL_ONLY: []}
    for study in tracked(studies, "studies", len(studies), progress or SilentProgress()):
        image = read_study(study)
        try:
            fused = plain(image, study.record)
            # a header may hold age and sex: the image alone must not bring them along
            bare = dataclasses.replace(image, prefill={})
            alone = plain(bare, ClinicalRecord()) if fused.clinical.used else fused
            clinical = hidden(image, study.record)
        except (MediScanError, ValueError) as error:
            raise DataError(f"row {study.row}, {study.image}: {error}") from error
        for shown, prediction in ((FUSED, fused), (IMAGE_ONLY, alone), (CLINICAL_ONLY, clinical)):
            predictions[shown].append(prediction)
    labels = tuple(predictor.bundle.card.labels)
    deciding = predictions[FUSED]
    return Answers(
        studies=tuple(studies),
        columns=tuple(columns),
        labels=labels,
        probabilities={
            shown: np.array([[p.probabilities[label] for label in labels] for p in found])
            for shown, found in predictions.items()
        },
        severity={
            shown: np.array([p.severity.score for p in found], dtype=np.float64)
            for shown, found in predictions.items()
            if predictor.bundle.card.severity is not None
        },
        thresholds=np.array([[finding.threshold for finding in p.findings] for p in deciding]),
        deferred=np.array([p.certainty.deferred for p in deciding], dtype=np.bool_),
        reasons=tuple(" ".join(reason.code for reason in p.certainty.reasons) for p in deciding),
        sets={
            level.coverage: np.array([[label in p.certainty.sets[i].labels for label in labels] for p in deciding])
            for i, level in enumerate(predictor.bundle.card.conformal)
        },
    )


def read_study(study: Study) -> MedicalImage:
    """The image of a study.

    Raises:
        DataError: It cannot be read; the message names the row.
    """
    try:
        return read_image(study.image)
    except MediScanError as error:
        raise DataError(f"row {study.row}: {error}") from error


def _for_scores(predictor: Predictor) -> Predictor:
    """The same model without maps, that states a severity whatever it takes the study for: readers scored them all."""
    card = predictor.bundle.card
    if card.severity is not None:
        severity = card.severity.model_copy(update={"findings": list(card.labels)})
        card = card.model_copy(update={"severity": severity})
    settings = predictor.settings.model_copy(update={"explainability": False, "severity_scoring": True})
    bundle = dataclasses.replace(predictor.bundle, card=card)
    return Predictor(bundle, predictor.network, predictor.device, settings)


def _network_input(image: MedicalImage, card: Card) -> Tensor:
    if card.network.spatial_dims == 3:
        return prepare_volume(image, card.input).tensor
    return prepare_slices(image, card.input, (image.shape[0] // 2,)).tensor
