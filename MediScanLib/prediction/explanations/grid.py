"""A regular grid over the network's input, and its way back to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...network.encoders import Encoder
from ..heatmaps import AxisMap
from ..preprocessing import NetworkInput


@dataclass(frozen=True)
class Grid:
    """Cells along the axes of the network's input: cell i stands at pixel `offset + stride * i`.

    Attributes:
        strides: By axis, in pixels of the network's input.
        offsets: By axis.
    """

    strides: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def even(cls, size: Sequence[int], cells: Sequence[int]) -> Grid:
        """Cells of one size that cover the whole input."""
        strides = tuple(side / count for side, count in zip(size, cells, strict=True))
        return cls(strides, tuple((stride - 1) / 2 for stride in strides))

    @classmethod
    def of_encoder(cls, encoder: Encoder, finer: int = 1) -> Grid:
        """That of the encoder's feature map, or of one with `finer` times as many cells along each axis."""
        stride = encoder.stride / finer
        # cells of every stage of an encoder stand in the middle of their pixels, see `Encoder.offset`
        offset = encoder.offset if finer == 1 else (stride - 1) / 2
        return cls((stride,) * encoder.spatial_dims, (offset,) * encoder.spatial_dims)

    def axes(self, prepared: NetworkInput) -> tuple[AxisMap | None, AxisMap, AxisMap]:
        """Relation of image (slices, rows, columns) to cells; the slices stand apart (None) in 2D."""
        found = [
            AxisMap(axis.scale / stride, (axis.offset - offset) / stride)
            for axis, stride, offset in zip(
                (axis for axis in prepared.axes if axis is not None), self.strides, self.offsets, strict=True
            )
        ]
        return (None, found[0], found[1]) if len(found) == 2 else (found[0], found[1], found[2])


def cells_along(size: Sequence[int], most: int) -> tuple[int, ...]:
    """Cells by axis: `most` of them, or one a pixel where there are fewer pixels."""
    return tuple(min(side, most) for side in size)


def borders(side: int, cells: int) -> list[int]:
    """First pixel of each of the cells of one axis, and the end; they differ by a pixel where they must."""
    return [int(border) for border in np.round(np.arange(cells + 1) * (side / cells))]
