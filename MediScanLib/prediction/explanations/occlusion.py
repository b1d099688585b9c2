"""Occlusion (Zeiler and Fergus, ECCV 2014): hide one place after the other and see what the model then says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from .asked import Asked, Found
from .blurring import hidden
from .grid import Grid, borders, cells_along

CELLS = {2: 10, 3: 6}
"""Places along each axis of the network's input, by its dimensions."""

SCALE = 1.0
"""Drop of the log-odds that is drawn as 1.0. Most patches of a finding that is there cost it less."""

PATCH = 2
"""Side of a patch in places: neighbours overlap by half."""


def passes(size: Sequence[int]) -> int:
    """Images that go through the network for one sample."""
    count = 1
    for cells in cells_along(size, CELLS[len(size)]):
        count *= cells
    return count


def occlusion(asked: Asked) -> Found:
    """Drop of each finding's log-odds where a patch is replaced by a blurred copy of itself.

    The log-odds are those of the calibrated probability, of a slice by itself where there are several.
    """
    size = asked.size
    cells = cells_along(size, CELLS[len(size)])
    places = list(product(*(_reaches(side, count) for side, count in zip(size, cells, strict=True))))
    before = asked.log_odds(asked.head(asked.encoded.features))
    maps = []
    for image, odds in zip(asked.tensor, before, strict=True):
        without = hidden(image[None])[0]
        after = []
        for part in asked.batches(len(places)):
            after.append(asked.log_odds(asked.logits(_occluded(image, without, places[part]))))
            asked.ticker.after(part.stop - part.start)
        maps.append(functional.relu(odds - torch.cat(after)).T.unflatten(1, cells))
    grid = Grid.even(size, cells)
    patch = " x ".join(f"{PATCH * stride:.0f}" for stride in grid.strides)
    step = " x ".join(f"{stride:.0f}" for stride in grid.strides)
    note = f"Patches of {patch} pixels of the network's input, {step} apart, replaced by a blurred copy."
    return Found(torch.stack(maps).float(), grid, note)


def _reaches(side: int, cells: int) -> list[slice]:
    """What the patch around each place covers along one axis, inside the image: half a place more on either side."""
    halves = borders(side, 2 * cells)
    return [slice(halves[max(0, 2 * i - 1)], halves[min(2 * cells, 2 * i + 3)]) for i in range(cells)]


def _occluded(image: Tensor, without: Tensor, places: Sequence[tuple[slice, ...]]) -> Tensor:
    copies = image.repeat(len(places), *[1] * image.ndim)
    for copy, place in zip(copies, places, strict=True):
        where = (slice(None), *place)
        copy[where] = without[where]
    return copies
