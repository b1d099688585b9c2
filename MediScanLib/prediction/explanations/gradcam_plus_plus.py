"""Grad-CAM++ (Chattopadhay et al., WACV 2018): channels count by where they speak for a finding, not by their mean.

Every cell of channel c weighs with alpha, so that a small lesion counts as much as a large one:

    w_c = sum over i of alpha_ci relu(g_ci),    alpha_ci = g_ci^2 / (2 g_ci^2 + g_ci^3 sum over a of A_ca)

with g the gradient of the logit. That is the paper's closed form for a score exp(y); the factor exp(y) that it leaves
in w_c, the same in all cells and channels, is left out here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..activation import cell_gradients
from .asked import Asked, Found
from .grid import Grid
from .stages import channel_statistics


def gradcam_plus_plus(asked: Asked) -> Found:
    """Maps of all findings from one pass, by one step back through the head.

    The activations are the encoder's own, which are not negative after a ReLU as the paper wants them, and not the
    standardized ones. Nearly so after a smoother function: there what is negative does not count in alpha.
    """
    mean, std = channel_statistics(asked.network)
    features = asked.encoded.features.to(asked.network.disease.weight.dtype)
    activations = features * std + mean
    count = len(features)
    gradients = cell_gradients(
        asked.network, features, asked.values.expand(count, -1), asked.observed.expand(count, -1)
    )
    maps = torch.stack(
        [
            torch.stack([_map((row @ own.flatten(1)).view_as(own[0]) / std, active) for row in asked.directions])
            for own, active in zip(gradients, activations, strict=True)
        ]
    )
    asked.ticker.after(count)
    return Found(maps, Grid.of_encoder(asked.network.encoder))


def _map(gradient: Tensor, activations: Tensor) -> Tensor:
    """(*cells) of one score, from (C, *cells) its gradient and the activations."""
    positive = functional.relu(gradient).flatten(1)
    activity = functional.relu(activations).flatten(1).sum(1, keepdim=True)
    # g^2 / (2 g^2 + g^3 sum) without the powers, which a small gradient would lose
    alpha = 1 / (2 + positive * activity)
    weights = (alpha * positive).sum(1)
    return functional.relu(torch.tensordot(weights, activations, dims=1))
