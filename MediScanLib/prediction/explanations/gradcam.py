"""Grad-CAM (Selvaraju et al., ICCV 2017), see `prediction.activation`, also of the difference of two findings."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..activation import channel_weights
from .asked import Asked, Found
from .grid import Grid


def gradcam(asked: Asked) -> Found:
    """Maps of all findings from one pass.

    A contrast is the map of y_k - y_j, whose weights are the difference of both findings' weights: the two maps are
    subtracted before what is negative is cut off.
    """
    features = asked.encoded.features.to(asked.network.disease.weight.dtype)
    count = len(features)
    weights = channel_weights(
        asked.network, features, asked.values.expand(count, -1), asked.observed.expand(count, -1)
    ).weights
    signed = torch.bmm(asked.directions @ weights, features.flatten(2))
    maps = functional.relu(signed).unflatten(2, features.shape[2:])
    asked.ticker.after(count)
    return Found(maps, Grid.of_encoder(asked.network.encoder))
