"""How much of every finding came from the image, and how much from the clinical values.

Shapley values of two players in the log-odds of every finding, as in `attribution` for the single values: each player
gets the mean of what it adds when it comes first and when it comes second. Only the head is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..network.card import Calibration, Card
from ..network.fusion import FusionNetwork, GatedFusion
from .attribution import coalition_logits, log_odds, shapley
from .calibrated import calibrated_probabilities
from .result import ModalityShare

FloatArray = npt.NDArray[np.float64]


@torch.no_grad()
def modality_shares(
    network: FusionNetwork, seen: Tensor, values: Tensor, known: Tensor, card: Card, probabilities: FloatArray
) -> list[ModalityShare]:
    """Shares of image and record in one prediction, from four answers of the head.

    Args:
        network: In evaluation mode.
        seen: (sample, ...) from `attribution.seen_by_head`: the slices over which the probabilities are averaged, or
            the one image or volume.
        values: (field,) standardized.
        known: (field,) bool, those known to the network.
        card: Its card.
        probabilities: (finding,) of the prediction that is explained. It may differ from what is computed here in
            the last digits of single precision, which `neither` then takes.

    Returns:
        One share a finding, in the order of the card's labels; none where nothing can stand for a hidden image.
    """
    feature = hidden_feature(network, card)
    if feature is None:
        return []
    unseen = seen_of_feature(network, feature, seen)
    # a record that is wholly unknown is asked about once, so that it adds exactly nothing
    observed = torch.stack([torch.zeros_like(known), known] if bool(known.any()) else [known])
    shown, hidden = (_odds(network, part, values, observed, card.calibration) for part in (seen, unseen))
    image, record = shapley(np.stack([hidden[0], shown[0], hidden[-1], shown[-1]]))
    neither = log_odds(probabilities) - image - record
    return [
        ModalityShare(finding=label, neither=n, image=i, record=r)
        for label, n, i, r in zip(card.labels, neither.tolist(), image.tolist(), record.tolist(), strict=True)
    ]


def hidden_feature(network: FusionNetwork, card: Card) -> Tensor | None:
    """(C,) the standardized feature that stands in every cell of an image that is hidden.

    A network that was trained with hidden images gets what hid them: zeros. Others have never seen that; they get the
    mean feature of their training images, and None where that was not kept.
    """
    if knows_hidden_images(card):
        return torch.zeros_like(network.feature_mean)
    return None if network.novelty is None else network.novelty.mean


def knows_hidden_images(card: Card) -> bool:
    """Whether the network was trained with hidden images, as its recipe tells."""
    settings = card.recipe.get("settings")
    return isinstance(settings, Mapping) and bool(settings.get("image_dropout"))


def seen_of_feature(network: FusionNetwork, feature: Tensor, like: Tensor) -> Tensor:
    """What the head takes from a single sample whose every cell is `feature` (C,); `like` tells how many cells."""
    feature = feature.to(network.disease.weight)
    if isinstance(network.fusion, GatedFusion):
        return feature[None]
    token: Tensor = network.fusion.image_projection(feature)
    return token.expand(1, like.shape[1], -1)


def _odds(
    network: FusionNetwork, seen: Tensor, values: Tensor, observed: Tensor, calibration: Calibration | None
) -> FloatArray:
    """Log-odds (coalition, finding) of the mean probability over the samples."""
    logits = coalition_logits(network, seen, values, observed)
    each = calibrated_probabilities(logits.flatten(0, 1), calibration).unflatten(0, logits.shape[:2])
    return log_odds(each.mean(0).numpy())
