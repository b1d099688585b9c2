"""Heat maps of all findings, kept raw and coarse, and carried to the image's own grid on demand.

A map on a large radiograph or a volume for every finding would cost gigabytes; the network's own grid holds the
same information. `HeatMaps.on_image` interpolates linearly through the exact inverse of the preprocessing.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AxisMap:
    """Affine relation of one image axis to one map axis: map index = scale * image index + offset."""

    scale: float
    offset: float

    def weights(self, image_index: npt.NDArray[np.float64], length: int) -> FloatArray:
        """Linear interpolation weights (len(image_index), length); beyond the border the border value holds."""
        at = np.clip(self.scale * image_index + self.offset, 0, length - 1)
        hat = 1.0 - np.abs(at[:, None] - np.arange(length))
        return np.maximum(hat, 0.0).astype(np.float32)

    def image_index(self, map_index: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The way back."""
        index: npt.NDArray[np.float64] = (map_index - self.offset) / self.scale
        return index

    def candidates(self, length: int, size: int) -> npt.NDArray[np.int64]:
        """Image indices on both sides of the map's nodes, and the image's two ends: the maximum is at one of them."""
        nodes = self.image_index(np.arange(length))
        both = np.concatenate([np.floor(nodes), np.ceil(nodes), [0, size - 1]])
        return np.unique(np.clip(both, 0, size - 1)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Raw class activation maps on the network's grid with the way back to the image.

    Attributes:
        labels: Findings in the order of the first axis of `values`.
        values: (finding, slice, row, column) float32, >= 0, never normalised.
        shape: (slices, rows, columns) of the image.
        rows: Relation of image rows to map rows.
        columns: Relation of image columns to map columns.
        slices: Relation of image slices to map slices (3D network), or the image slices that the map slices stand
            for (2D network, slice by slice).
        scales: Raw value that is drawn as 1.0, a finding. They come with the model, so that a weak map looks weak.
    """

    labels: tuple[str, ...]
    values: FloatArray
    shape: tuple[int, int, int]
    rows: AxisMap
    columns: AxisMap
    slices: AxisMap | tuple[int, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[0] != len(self.labels):
            raise ValueError(f"values must be ({len(self.labels)}, slice, row, column), got {self.values.shape}")
        if len(self.scales) != len(self.labels) or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"scales must be {len(self.labels)} positive numbers, got {self.scales}")

    def to_json(self) -> str:
        """JSON text; `values` as base64 of little-endian float32."""
        content = {
            "labels": self.labels,
            "grid": self.values.shape,
            "values": base64.b64encode(self.values.astype("<f4").tobytes()).decode("ascii"),
            "shape": self.shape,
            "rows": asdict(self.rows),
            "columns": asdict(self.columns),
            "slices": asdict(self.slices) if isinstance(self.slices, AxisMap) else self.slices,
            "scales": self.scales,
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> HeatMaps:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            content = json.loads(text)
            values = np.frombuffer(base64.b64decode(content["values"], validate=True), dtype="<f4")
            slices = content["slices"]
            return cls(
                labels=tuple(content["labels"]),
                values=values.reshape(content["grid"]),
                shape=tuple(content["shape"]),
                rows=AxisMap(**content["rows"]),
                columns=AxisMap(**content["columns"]),
                slices=AxisMap(**slices) if isinstance(slices, dict) else tuple(slices),
                scales=tuple(content["scales"]),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"these are no heat maps ({error!r})") from error

    def scale(self, label: str, *, common: bool = False) -> float:
        """Raw value of one finding that is drawn as 1.0.

        Args:
            label: Finding.
            common: The largest scale of all findings instead, so that their maps can be compared with each other.
        """
        return max(self.scales) if common else self.scales[self.labels.index(label)]

    def raw(self, label: str) -> FloatArray:
        """(slice, row, column) of one finding on the network's grid.

        Raises:
            KeyError: `label` is not one of `labels`.
        """
        if label not in self.labels:
            raise KeyError(f"no heat map of {label!r}; there are {', '.join(self.labels)}")
        return self.values[self.labels.index(label)]

    def on_image(self, label: str, slice_index: int | None = None) -> FloatArray:
        """One finding's raw map on the image's grid, (slices, rows, columns) float32.

        Args:
            label: Finding.
            slice_index: One image slice only; the result then has one slice.

        Slices that were not looked at are zero.
        """
        wanted = np.arange(self.shape[0]) if slice_index is None else np.asarray([slice_index])
        return self._sample(label, wanted, np.arange(self.shape[1]), np.arange(self.shape[2]))

    def normalized(self, label: str, slice_index: int | None = None, *, common: bool = False) -> FloatArray:
        """As `on_image`, divided by `scale(label, common=common)` and cut at 1: what an overlay shows."""
        values = self.on_image(label, slice_index)
        values /= np.float32(self.scale(label, common=common))
        return np.minimum(values, np.float32(1.0), out=values)

    def planes(self, label: str) -> FloatArray:
        """One finding's raw map in each slice of the image, still coarse in the plane: (slices, map rows, columns).

        Slices that were not looked at are zero.
        """
        raw = self.raw(label)
        if isinstance(self.slices, AxisMap):
            through = self.slices.weights(np.arange(self.shape[0], dtype=np.float64), raw.shape[0])
            return np.tensordot(through, raw, axes=1)
        planes = np.zeros((self.shape[0], *raw.shape[1:]), dtype=np.float32)
        planes[list(self.slices)] = raw
        return planes

    def peak(self, label: str) -> tuple[float, tuple[int, int, int]]:
        """Largest value inside the image and its (slice, row, column), without making the full map."""
        length = self.values.shape[1:]
        rows = self.rows.candidates(length[1], self.shape[1])
        columns = self.columns.candidates(length[2], self.shape[2])
        slices = (
            self.slices.candidates(length[0], self.shape[0])
            if isinstance(self.slices, AxisMap)
            else np.asarray(self.slices)
        )
        sampled = self._sample(label, slices, rows, columns)
        i, j, k = np.unravel_index(int(sampled.argmax()), sampled.shape)
        return float(sampled[i, j, k]), (int(slices[i]), int(rows[j]), int(columns[k]))

    def _sample(self, label: str, slices: npt.NDArray, rows: npt.NDArray, columns: npt.NDArray) -> FloatArray:
        raw = self.raw(label)
        across = self.columns.weights(columns.astype(np.float64), raw.shape[2])
        down = self.rows.weights(rows.astype(np.float64), raw.shape[1])
        in_plane = np.matmul(np.matmul(down, raw), across.T)
        if isinstance(self.slices, AxisMap):
            through = self.slices.weights(slices.astype(np.float64), raw.shape[0])
            return np.ascontiguousarray(np.tensordot(through, in_plane, axes=1), dtype=np.float32)
        result = np.zeros((len(slices), len(rows), len(columns)), dtype=np.float32)
        where = {image_slice: i for i, image_slice in enumerate(self.slices)}
        for position, image_slice in enumerate(slices):
            if int(image_slice) in where:
                result[position] = in_plane[where[int(image_slice)]]
        return result
