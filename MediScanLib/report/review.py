"""What one reader said about one prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import MediScanError, UsageError
from ..prediction.result import ImageSummary, Prediction

LONGEST_NOTE = 10_000
MOST_BOXES = 200

Point = tuple[float, float, float]


class ReviewError(MediScanError):
    """The file of reviews cannot be used; it is left as it was."""

    code = "reviews"
    CODES = ("damaged", "locked", "read_only", "full", "newer", "foreign")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Box(_Part):
    """A box of voxels that a reader drew.

    Attributes:
        first: (slice, row, column) of its first voxel, counted from 0 in the image that was predicted.
        last: Of its last voxel, which still belongs to it.
        first_mm: Place of the first voxel's center, LPS in mm; None where the image has no spacing.
        last_mm: Place of the last voxel's center.
        name: What the reader called it.
    """

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    first_mm: Point | None = None
    last_mm: Point | None = None
    name: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        if not all(0 <= low <= high < 1 << 31 for low, high in zip(self.first, self.last, strict=True)):
            raise ValueError(f"a box from {self.first} to {self.last} holds no voxel")
        if (self.first_mm is None) != (self.last_mm is None):
            raise ValueError("a box has both places in mm or neither")
        return self

    @classmethod
    def around(cls, points: Iterable[Sequence[float]], image: ImageSummary, *, name: str = "") -> Box:
        """The smallest box that holds points such as the corners of a region of interest, within the image.

        Args:
            points: LPS in mm, or what stands for it where the image has no spacing (1 a pixel).
            image: What was predicted.
            name: What the reader calls it.

        Raises:
            UsageError: There are no points, or the region lies outside the image.
        """
        places = np.asarray([tuple(point) for point in points], dtype=np.float64)
        if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all():
            raise UsageError("A region needs points of three finite coordinates.")
        affine = _affine(image)
        indices = np.linalg.solve(affine[:, :3], (places - affine[:, 3]).T).T[:, ::-1]
        # a voxel belongs to a region that covers its center; one that is thinner than a voxel keeps the voxel it is in
        low, high = indices.min(axis=0), indices.max(axis=0)
        first, last = np.ceil(low - 1e-6), np.floor(high + 1e-6)
        thin = first > last
        first[thin] = last[thin] = np.rint((low + high) / 2)[thin]
        top = np.asarray(image.shape) - 1
        if (last < 0).any() or (first > top).any():
            raise UsageError("The region lies outside the image. Draw it over the image.")
        begin, end = (
            tuple(int(value) for value in corner) for corner in (np.maximum(first, 0), np.minimum(last, top))
        )
        known = image.spacing is not None
        return cls(
            first=(begin[0], begin[1], begin[2]),
            last=(end[0], end[1], end[2]),
            first_mm=_place(affine, begin) if known else None,
            last_mm=_place(affine, end) if known else None,
            name=name,
        )


class Review(_Part):
    """What one reader said about one prediction.

    Attributes:
        schema_version: Of this record.
        reviewed_at: When, UTC.
        reader: Who, as the reader wants to be called; may be empty.
        input: What was predicted, as the prediction names it.
        identifiers: Hashed identifiers of the image; empty where the file had none.
        model: Bundle name.
        model_version: Bundle version.
        model_sha256: SHA-256 of the weights.
        finding: Finding that is judged.
        agree: Whether the reader says the same of this finding.
        corrected_label: What it is instead, one of the model's labels or another word; None where the reader agrees
            or does not tell.
        corrected_severity: 0..1, the fraction of the scale's maximum, as in `Severity.score`; None where the
            reader says nothing about it. The scale is `prediction["severity"]["scale"]`.
        note: Free text.
        region: Where the reader sees the finding.
        prediction: The whole prediction in its JSON form, as it was when it was judged.
    """

    schema_version: Literal["1.0"] = "1.0"
    reviewed_at: AwareDatetime
    reader: str = Field(default="", max_length=200)
    input: str
    identifiers: dict[str, str]
    model: str
    model_version: str
    model_sha256: str
    finding: str
    agree: bool
    corrected_label: str | None = Field(default=None, min_length=1, max_length=200)
    corrected_severity: float | None = Field(default=None, ge=0, le=1)
    note: str = Field(default="", max_length=LONGEST_NOTE)
    region: tuple[Box, ...] = Field(default=(), max_length=MOST_BOXES)
    prediction: dict[str, JsonValue]

    @field_validator("reviewed_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        try:
            return value.astimezone(timezone.utc)
        except OverflowError as error:
            raise ValueError("the time lies beyond the calendar") from error

    @model_validator(mode="after")
    def _consistent(self) -> Review:
        if self.agree and self.corrected_label not in (None, self.finding):
            raise ValueError(f"a reader who agrees with {self.finding} does not correct it to {self.corrected_label}")
        if not self.agree and self.corrected_label == self.finding:
            raise ValueError(f"a reader who disagrees with {self.finding} does not correct it to the same")
        return self

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        *,
        agree: bool,
        finding: str | None = None,
        corrected_label: str | None = None,
        corrected_severity: float | None = None,
        note: str = "",
        region: Sequence[Box] = (),
        reader: str = "",
        reviewed_at: datetime | None = None,
    ) -> Review:
        """The review of a prediction; see the attributes.

        Args:
            prediction: What is judged.
            agree: Whether the reader says the same.
            finding: One of its findings; the most probable one where None.
            corrected_label: What it is instead.
            corrected_severity: 0..1.
            note: Free text.
            region: Where the reader sees it.
            reader: Who.
            reviewed_at: Now where None.

        Raises:
            UsageError: A value is not acceptable.
        """
        finding = finding or prediction.top.label
        if finding not in prediction.probabilities:
            known = ", ".join(prediction.probabilities)
            raise UsageError(f"The prediction says nothing about {finding!r}. Choose one of: {known}.")
        model = prediction.provenance
        try:
            return cls(
                reviewed_at=reviewed_at or datetime.now(timezone.utc),
                reader=reader,
                input=prediction.input,
                identifiers=prediction.image.identifiers,
                model=model.model,
                model_version=model.model_version,
                model_sha256=model.model_sha256,
                finding=finding,
                agree=agree,
                corrected_label=corrected_label,
                corrected_severity=corrected_severity,
                note=note,
                region=tuple(region),
                prediction=prediction.to_dict(),
            )
        except ValidationError as error:
            raise UsageError(f"The review cannot be kept: {first_problem(error)}.") from error

    @property
    def study(self) -> str:
        """Names what was predicted: the hashed identifiers, or the input where the file had none."""
        return " ".join(f"{level}={self.identifiers[level]}" for level in sorted(self.identifiers)) or self.input

    def to_json(self) -> str:
        """JSON text, for a scene or a file."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Review:
        """Read what `to_json` wrote.

        Raises:
            ReviewError: It is no review.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ReviewError(f"The text is no review at {first_problem(error)}.", code="damaged") from error


def first_problem(error: ValidationError) -> str:
    """Where a record is not acceptable, and why."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the whole of it'}: {first['msg']}"


def _affine(image: ImageSummary) -> npt.NDArray[np.float64]:
    """(3, 4) from (column, row, slice, 1) to LPS mm."""
    direction = np.asarray(image.direction, dtype=np.float64).reshape(3, 3)
    return np.column_stack([direction * np.asarray(image.spacing or (1.0, 1.0, 1.0)), image.origin])


def _place(affine: npt.NDArray[np.float64], index: Sequence[int]) -> Point:
    x, y, z = affine[:, :3] @ np.asarray(index[::-1], dtype=np.float64) + affine[:, 3]
    return float(x), float(y), float(z)
