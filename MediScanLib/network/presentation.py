"""How an image is presented to a network: upright as in training, or upside down, turned or inverted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

PREFIX = "presentation."
"""Of its tensors among those of a `Novelty`."""

PRESENTATIONS = ("upside_down", "turned_left", "turned_right", "inverted")
"""What an image may be instead of upright, in the order of the outputs."""

TURNED = frozenset(PRESENTATIONS) - {"inverted"}
"""Those that differ from upright by how the image lies."""

PENALTY = 1e-2
"""On the squared weights; chosen on val, docs/decisions/0006."""


class Presentation(nn.Module):
    """Tells from pooled features how an image is presented, by multinomial logistic regression.

    It is fitted on upright training images and on the same images turned and inverted, so that it asks "upright or
    not" of the kinds of images that the network was trained on, and of no others.

    Args:
        weight: (4, C), log-odds of each of PRESENTATIONS against upright.
        bias: (4,).
        limit: (4,) log-odds from which on the presentation is doubted.
    """

    weight: Tensor
    bias: Tensor
    limit: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, limit: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("limit", limit)

    @classmethod
    def fit(
        cls, pooled: Tensor, free: Tensor | None = None, penalty: float = PENALTY, steps: int = 200
    ) -> Presentation:
        """From pooled features of training images, each in every presentation.

        Args:
            pooled: (5, image, C), upright first, then as in PRESENTATIONS.
            free: (image,) True where an image may lie any way, as of a limb: turned it counts as upright. None where
                no image may.
            penalty: On the squared weights of standardized features.
            steps: Of L-BFGS at most.

        Returns:
            With limits of 0: see `with_limit`.
        """
        kinds, count, channels = pooled.shape
        if kinds != 1 + len(PRESENTATIONS):
            raise ValueError(f"{kinds} presentations, {1 + len(PRESENTATIONS)} are needed")
        features = pooled.flatten(0, 1).float().cpu()
        truth = torch.arange(kinds)[:, None].repeat(1, count)
        if free is not None:
            turned = torch.tensor([name in TURNED for name in ("upright", *PRESENTATIONS)])
            truth[turned[:, None] & free] = 0
        truth = truth.flatten()
        mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
        features = (features - mean) / deviation
        weight = torch.zeros(kinds, channels, requires_grad=True)
        bias = torch.zeros(kinds, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = functional.cross_entropy(features @ weight.T + bias, truth) + penalty * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            solver.step(loss)
        with torch.no_grad():
            plain = weight / deviation
            shift = bias - plain @ mean
            return cls(plain[1:] - plain[0], shift[1:] - shift[0], torch.zeros(len(PRESENTATIONS)))

    @torch.no_grad()
    def with_limit(self, held_out: Tensor, accepted: float) -> Presentation:
        """With such limits that this share of upright images is doubted for no presentation.

        Args:
            held_out: (image, C) pooled features of upright images that it was not fitted on.
            accepted: Share.
        """
        odds = self.log_odds(held_out)
        # one limit for all: what counts is the likeliest presentation
        limit = torch.quantile(odds.amax(1), accepted).clamp_min(0)
        return Presentation(self.weight, self.bias, limit.expand(len(PRESENTATIONS)).clone())

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Presentation | None:
        """From the tensors of a `Novelty`; None where it has none of them."""
        own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        return cls(**own) if own else None

    def log_odds(self, pooled: Tensor) -> Tensor:
        """(image, presentation) against upright, of pooled features (image, C)."""
        return pooled.float() @ self.weight.T + self.bias

    def forward(self, pooled: Tensor) -> Tensor:
        """(image, presentation) log-odds beyond the limit, above 0 where doubted, of pooled features (image, C)."""
        return self.log_odds(pooled) - self.limit
