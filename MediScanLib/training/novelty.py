"""What a network knows of its training images as such, so that it can tell others from them."""

from __future__ import annotations

import torch

from ..network.card import InputSpec, Limit
from ..network.fusion import FusionNetwork
from ..network.novelty import Novelty
from ..progress import Progress
from .answering import Split, evaluating, pooled_features
from .presentation import learn_presentation

REFERENCES = 2000
"""Training images that are kept, as a few numbers each, at most."""

ACCEPTED = 0.98
"""Share of val that must not be called unlike the training images."""


def learn_novelty(
    network: FusionNetwork, train: Split, val: Split, spec: InputSpec, device: torch.device, progress: Progress
) -> Limit:
    """Give a network its reference images from train, and choose on val from where on an image is unlike them.

    What it learns of how images are presented comes with it, see `learn_presentation`.
    """
    with evaluating(network):
        known, held_out = (
            pooled_features(network.features, split, spec, device, progress, most=REFERENCES) for split in (train, val)
        )
    novelty = Novelty.fit(known)
    distances = novelty(held_out)
    novelty.presentation = learn_presentation(network, train, val, spec, device, progress)
    network.novelty = novelty.to(device)
    threshold = float(torch.quantile(distances, ACCEPTED))
    return Limit(threshold=max(threshold, 1e-6), accepted=ACCEPTED, fitted_on=f"val, {len(held_out)} studies")
