"""What a place looks like with the details taken away: neither black nor white, which would be evidence themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIGMA = 1 / 16
"""Deviation of the blur as a share of each side of the network's input."""


def hidden(tensor: Tensor) -> Tensor:
    """A copy of images (B, 1, *spatial) that shows where it is bright and dark at large, and no finding."""
    return blurred(tensor, [SIGMA * side for side in tensor.shape[2:]])


def blurred(tensor: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian blur of (B, C, *spatial), by axis, in pixels. Beyond the border lies nothing, which weighs nothing."""
    for axis, sigma in enumerate(sigmas, start=2):
        at = torch.arange(tensor.shape[axis], dtype=tensor.dtype, device=tensor.device)
        weights = torch.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
        weights /= weights.sum(1, keepdim=True)
        tensor = (tensor.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return tensor.contiguous()
