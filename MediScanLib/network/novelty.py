"""How far an image lies from all images that a network was trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .presentation import PREFIX as PRESENTATION_PREFIX
from .presentation import Presentation

PREFIX = "novelty."
"""Of its tensors among those of a network."""

OUTSIDE = 4.0
"""How much more counts what lies outside the principal directions; chosen on val, docs/decisions/0006."""


class Novelty(nn.Module):
    """Distance to the k-th nearest training image, in the pooled features of the network.

    After Sun et al., "Out-of-distribution Detection with Deep Nearest Neighbors" (ICML 2022), but without their
    normalization, and with what lies outside the directions in which training images differ counted more (after Wang
    et al., "ViM", CVPR 2022): docs/decisions/0006. Images of very different kinds need no common center.

    Args:
        mean: (C,) of the training features.
        directions: (D, C), their principal directions, orthonormal.
        references: (N, D) training images along these.
        neighbors: k.
        outside: How much more counts what lies outside the directions; None for bundles that do not say it: as much.
        presentation: Tells how images are presented; None where that was not learned.
    """

    mean: Tensor
    directions: Tensor
    references: Tensor
    neighbors: Tensor
    outside: Tensor

    def __init__(
        self,
        mean: Tensor,
        directions: Tensor,
        references: Tensor,
        neighbors: int | Tensor,
        outside: float | Tensor | None = None,
        presentation: Presentation | None = None,
    ) -> None:
        super().__init__()
        self.presentation = presentation
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("references", references.half())  # a hundredth of a typical distance is enough
        self.register_buffer("neighbors", torch.as_tensor(neighbors))
        # what a bundle does not hold must not be asked of it when its tensors are loaded
        self.register_buffer(
            "outside", torch.as_tensor(1.0 if outside is None else outside), persistent=outside is not None
        )

    @classmethod
    def fit(cls, pooled: Tensor, dimensions: int = 128, neighbors: int = 1, outside: float = OUTSIDE) -> Novelty:
        """From pooled features (image, C) of training images.

        Args:
            pooled: Features.
            dimensions: D, at most.
            neighbors: k.
            outside: How much more counts what lies outside the directions.
        """
        pooled = pooled.float().cpu()
        mean = pooled.mean(0)
        _, _, directions = torch.linalg.svd(pooled - mean, full_matrices=False)
        directions = directions[:dimensions].clone()
        return cls(mean, directions, (pooled - mean) @ directions.T, neighbors, outside)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Novelty | None:
        """From the tensors of a whole network's state dict; None where it has none of them."""
        own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        if not own:
            return None
        presentation = Presentation.of_state(own)
        mine = {name: tensor for name, tensor in own.items() if not name.startswith(PRESENTATION_PREFIX)}
        return cls(**mine, presentation=presentation)

    def forward(self, pooled: Tensor) -> Tensor:
        """(image,) distance of pooled features (image, C)."""
        count = min(int(self.neighbors), len(self.references))
        return self.distances(pooled).kthvalue(count, dim=1).values

    def distances(self, pooled: Tensor) -> Tensor:
        """(image, reference) distance of pooled features (image, C) from each training image."""
        centered = pooled.float() - self.mean
        along = centered @ self.directions.T
        outside = (centered.square().sum(1) - along.square().sum(1)).clamp_min(0)
        # without matrix products, which round away what tells the nearest apart
        between = torch.cdist(along, self.references.float(), compute_mode="donot_use_mm_for_euclid_dist")
        return (between.square() + self.outside * outside[:, None]).sqrt()
