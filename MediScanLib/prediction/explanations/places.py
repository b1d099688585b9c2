"""Places of a network's input that can be hidden one by one, and how hot a map is there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..heatmaps import AxisMap, HeatMaps
from ..preprocessing import NetworkInput
from .grid import borders, cells_along

CELLS = {2: 16, 3: 8}
"""Places along each axis of the network's input, by its dimensions."""


@dataclass(frozen=True, eq=False)
class Places:
    """Cells of one size that cover the network's input.

    Attributes:
        edges: By axis, the first pixel of each cell, and the end.
        inside: (*cells) False where the middle of the cell is padding beside the image.
    """

    edges: tuple[list[int], ...]
    inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, prepared: NetworkInput, shape: tuple[int, int, int]) -> Places:
        """Those of an image (slices, rows, columns)."""
        size = tuple(prepared.tensor.shape[2:])
        edges = tuple(
            borders(side, count) for side, count in zip(size, cells_along(size, CELLS[len(size)]), strict=True)
        )
        lengths = shape[-len(size) :]
        within = []
        for axis, own, length in zip(_axes(prepared), edges, lengths, strict=True):
            at = axis.image_index((np.array(own[:-1]) + np.array(own[1:]) - 1) / 2)
            within.append((at >= -0.5) & (at <= length - 0.5))
        inside = within[0]
        for part in within[1:]:
            inside = inside[..., None] & part
        return cls(edges, inside)

    def heat(self, maps: HeatMaps, finding: str, prepared: NetworkInput) -> npt.NDArray[np.float64]:
        """(*cells) mean of a finding's map in each of them; in 2D on the one slice that was prepared."""
        raw = maps.raw(finding).astype(np.float64)
        on_map: list[AxisMap] = [maps.rows, maps.columns]
        if isinstance(maps.slices, AxisMap):
            on_map.insert(0, maps.slices)
        else:
            raw = raw[maps.slices.index(prepared.slices[0])]
        for position, (axis, own, edges) in enumerate(zip(on_map, _axes(prepared), self.edges, strict=True)):
            pixels = axis.weights(own.image_index(np.arange(edges[-1])), raw.shape[position])
            means = np.stack([pixels[a:b].mean(axis=0) for a, b in pairwise(edges)])
            raw = np.moveaxis(np.tensordot(means, raw, axes=(1, position)), 0, position)
        return raw

    def pixels(self, cells: npt.NDArray[np.bool_]) -> Tensor:
        """(N, *size) bool of (N, *cells) bool."""
        for axis, edges in enumerate(self.edges, start=1):
            cells = np.repeat(cells, np.diff(edges), axis=axis)
        return torch.from_numpy(cells)


def _axes(prepared: NetworkInput) -> list[AxisMap]:
    return [axis for axis in prepared.axes if axis is not None]
