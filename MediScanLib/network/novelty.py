"""How far an image lies from all images that a network was trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

PREFIX = "novelty."
"""Of its tensors among those of a network."""


class Novelty(nn.Module):
    """Distance to the k-th nearest training image, in the pooled features of the network.

    After Sun et al., "Out-of-distribution Detection with Deep Nearest Neighbors" (ICML 2022), but without their
    normalization, and with what lies outside the directions in which training images differ counted in full (after
    Wang et al., "ViM", CVPR 2022): docs/decisions/0006. Images of very different kinds need no common center.

    Args:
        mean: (C,) of the training features.
        directions: (D, C), their principal directions, orthonormal.
        references: (N, D) training images along these.
        neighbors: k.
    """

    mean: Tensor
    directions: Tensor
    references: Tensor
    neighbors: Tensor

    def __init__(self, mean: Tensor, directions: Tensor, references: Tensor, neighbors: int | Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("references", references.half())  # a hundredth of a typical distance is enough
        self.register_buffer("neighbors", torch.as_tensor(neighbors))

    @classmethod
    def fit(cls, pooled: Tensor, dimensions: int = 128, neighbors: int = 1) -> Novelty:
        """From pooled features (image, C) of training images.

        Args:
            pooled: Features.
            dimensions: D, at most.
            neighbors: k.
        """
        pooled = pooled.float().cpu()
        mean = pooled.mean(0)
        _, _, directions = torch.linalg.svd(pooled - mean, full_matrices=False)
        directions = directions[:dimensions].clone()
        return cls(mean, directions, (pooled - mean) @ directions.T, neighbors)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Novelty | None:
        """From the tensors of a whole network's state dict; None where it has none of them."""
        own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        return cls(**own) if own else None

    def forward(self, pooled: Tensor) -> Tensor:
        """(image,) distance of pooled features (image, C)."""
        centered = pooled.float() - self.mean
        along = centered @ self.directions.T
        outside = (centered.square().sum(1) - along.square().sum(1)).clamp_min(0)
        count = min(int(self.neighbors), len(self.references))
        nearest = torch.cdist(along, self.references.float()).kthvalue(count, dim=1).values
        return (nearest.square() + outside).sqrt()
