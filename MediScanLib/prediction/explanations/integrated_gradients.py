"""Integrated gradients (Sundararajan et al., ICML 2017): what each pixel adds on the way from a blurred image to it.

The contributions of all pixels sum to the difference of the two logits ("completeness"). The integral along the
straight path is a sum over the nodes of Gauss and Legendre, of which more are taken until that holds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .asked import Asked, Found, gradients_of
from .blurring import blurred, hidden
from .grid import Grid, borders, cells_along

STEPS = (24, 48, 96)
"""Nodes of the integral: the next number is tried where the last was not exact enough."""

TOLERANCE = 0.05
"""Completeness holds where the sum is as near as this to the logit difference, as a share of it or in logits."""

CELLS = {2: 20, 3: 12}
"""Cells along each axis of the network's input, by its dimensions, in which contributions are summed."""

SMOOTHING = 1.0
"""Deviation of the smoothing in cells."""


class Contributions(NamedTuple):
    """What the pixels of one image add to the scores.

    Attributes:
        pixels: (finding, *size), signed.
        sums: (finding,) of all pixels.
        differences: (finding,) scores of the image less those of the baseline, what the sums should be.
        steps: Nodes of the integral.
    """

    pixels: Tensor
    sums: Tensor
    differences: Tensor
    steps: int

    @property
    def errors(self) -> Tensor:
        """(finding,) how far the sums are off, in units of what is tolerated; at most 1 where completeness holds."""
        return (self.sums - self.differences).abs() / (TOLERANCE * self.differences.abs().clamp_min(1.0))


def integrated_gradients(asked: Asked) -> Found:
    """Contributions to each finding's logit, summed in cells and smoothed so that they can be seen; what is in favor.

    The sum comes before what is negative is cut off: neighbouring pixels have opposite signs wherever there is an
    edge, and cut off one by one they would show edges and not evidence.
    """
    size = asked.size
    cells = cells_along(size, CELLS[len(size)])
    found = [contributions(asked, image) for image in asked.tensor]
    maps = torch.stack([_shown(each.pixels, cells) for each in found])
    worst = max(found, key=lambda each: float(each.errors.max()))
    return Found(maps, Grid.even(size, cells), _completeness(asked, worst), float(worst.errors.max()))


def contributions(asked: Asked, image: Tensor) -> Contributions:
    """Of one image (1, *size), with as many nodes as completeness takes."""
    image = image[None]
    baseline = hidden(image)
    scores = asked.scores(torch.cat([image, baseline]))
    differences = scores[0] - scores[1]
    for steps in STEPS:
        pixels = _integral(asked, image, baseline, steps)
        found = Contributions(pixels, pixels.flatten(1).sum(1), differences, steps)
        if bool((found.errors <= 1).all()):
            break
    return found


def _integral(asked: Asked, image: Tensor, baseline: Tensor, steps: int) -> Tensor:
    """(finding, *size): the mean gradient along the path, times its length."""
    nodes, weights = (torch.from_numpy(part).to(image) for part in np.polynomial.legendre.leggauss(steps))
    nodes, weights = (nodes + 1) / 2, weights / 2
    mean = image.new_zeros(len(asked.question.findings), *image.shape[2:])
    for part in asked.batches(steps, gradients=True):
        along = nodes[part].reshape(-1, *[1] * (image.ndim - 1))
        with torch.enable_grad():
            leaf = (baseline + along * (image - baseline)).detach().requires_grad_()
            scores = asked.scores(leaf.clone())  # a layer that works in place may not do so on a leaf
        for sum_, gradient in zip(mean, gradients_of(scores, leaf), strict=True):
            sum_ += torch.tensordot(weights[part], gradient[:, 0], dims=1)
        if steps == STEPS[0]:
            asked.ticker.after(part.stop - part.start)
    return mean * (image - baseline)[0]


def _shown(pixels: Tensor, cells: tuple[int, ...]) -> Tensor:
    """(finding, *cells) of (finding, *size): what is in favor, in logits a cell."""
    in_cells = pixels
    for axis, count in enumerate(cells, start=1):
        edges = borders(in_cells.shape[axis], count)
        in_cells = torch.stack([in_cells.narrow(axis, a, b - a).sum(axis) for a, b in pairwise(edges)], dim=axis)
    return functional.relu(blurred(in_cells[:, None], [SMOOTHING] * len(cells))[:, 0])


def _completeness(asked: Asked, worst: Contributions) -> str:
    """The sum that is farthest off, in words."""
    at = int(worst.errors.argmax())
    label, total, wanted = asked.question.findings[at], float(worst.sums[at]), float(worst.differences[at])
    against = "" if asked.question.against is None else f" against {asked.question.against}"
    verdict = "complete" if float(worst.errors[at]) <= 1 else "NOT complete: read these maps with care"
    return (
        f"Contributions to {label}{against} sum to {total:.2f} of a logit difference of {wanted:.2f} "
        f"to the blurred image, from {worst.steps} steps: {verdict}."
    )
