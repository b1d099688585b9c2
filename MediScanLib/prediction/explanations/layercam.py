"""LayerCAM (Jiang et al., TIP 2021): finer maps from an earlier stage of the encoder.

Every cell of every channel weighs by itself, relu(g) A: the stage need not be pooled for its weights to have a
meaning, and so may be one whose cells still lie close together.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .asked import Asked, Found, gradients_of
from .grid import Grid
from .stages import features_from


def layercam(asked: Asked) -> Found:
    """Maps of all findings at the last stage before the encoder halves the image for the last time.

    The part of the encoder behind that stage runs once more, and backwards once a finding.
    """
    stage = asked.encoded.stage
    maps = []
    for part in asked.batches(len(asked.tensor), gradients=True):
        with torch.enable_grad():
            leaf = stage.activations[part].detach().clone().requires_grad_()
            # a copy again, for a layer that works in place may not do so on a leaf
            scores = asked.head(features_from(asked.network, stage, leaf.clone())) @ asked.directions.T
        active = leaf.detach()
        maps.append(
            torch.stack(
                [(functional.relu(gradient) * active).sum(1) for gradient in gradients_of(scores, leaf)], dim=1
            )
        )
        asked.ticker.after(part.stop - part.start)
    return Found(functional.relu(torch.cat(maps)), Grid.of_encoder(asked.network.encoder, stage.finer))
