"""A request of an engine as one block of bytes, for a server: a JSON head, then the pixels.

What names a file or a patient stays with whoever asks: the source, the hashed identifiers and the warnings of the
image are not packed, and `completed` puts them into the answer. Nothing in a block is ever unpickled, and every size
in it is checked before memory is taken for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..config import InferenceConfig
from ..errors import MediScanError, UsageError
from ..study.fields import FIELDS
from ..study.image import IDENTITY_DIRECTION, MedicalImage
from ..study.record import ClinicalRecord
from .digest import pixels_digest
from .exchange import Request
from .result import Prediction

MEDIA_TYPE = "application/vnd.mediscan.study"
VERSION = 1
"""Of the block's form; a server tells which one it reads."""

MAGIC = b"MEDISCAN-STUDY\x00\x01"
MOST_HEAD_BYTES = 1024**2
_PREFIX = len(MAGIC) + 8
_PRIVATE = ("source", "identifiers", "warnings")
_STORED: Mapping[str, np.dtype[Any]] = {"f4": np.dtype("<f4"), "i2": np.dtype("<i2")}

Short = Field(default=None, max_length=64)


class _Facts(BaseModel):
    """The fields of a `MedicalImage` that travel."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)

    spacing: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = Field(default=IDENTITY_DIRECTION, min_length=9, max_length=9)
    modality: str | None = Short
    body_part: str | None = Short
    view: str | None = Short
    laterality: str | None = Short
    units: Literal["HU", "intensity"] = "intensity"
    window: tuple[float, float] | None = None
    slice_axis: Literal["position", "frame"] = "position"
    color: bool = False
    inverted: bool = False
    prefill: dict[str, float | str] = Field(default_factory=dict, max_length=len(FIELDS))
    reader: str = Field(default="array", max_length=200)


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shape: tuple[int, int, int]
    stored: Literal["f4", "i2"]
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    image: _Facts
    record: dict[str, Any] = Field(max_length=len(FIELDS) + 1)
    model: str = Field(min_length=1, max_length=200)
    slices: list[int] | None = Field(default=None, max_length=100_000)
    settings: InferenceConfig

    @field_validator("shape")
    @classmethod
    def _not_empty(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 < length < 1 << 31 for length in value):
            raise ValueError("every axis has at least one voxel")
        return value


@dataclass(frozen=True, eq=False)
class Packed:
    """A block that was opened: everything but the pixels is checked.

    Attributes:
        head: What it says of itself.
        pixels: As they are stored; None where whoever reads it should have them.
    """

    head: _Head
    pixels: memoryview | None

    @property
    def model(self) -> str:
        """Name of a bundle."""
        return self.head.model

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.head.shape)

    def request(self, kept: npt.NDArray[np.float32] | None = None) -> Request:
        """The request.

        Args:
            kept: Pixels with the digest that the head names, for a block that comes without.

        Raises:
            MediScanError: Pixels, geometry or record are not acceptable.
        """
        head = self.head
        if self.pixels is not None:
            stored = np.frombuffer(self.pixels, dtype=_STORED[head.stored]).reshape(head.shape)
            pixels = stored.astype(np.float32)  # a copy: the block goes
        elif kept is not None and kept.shape == head.shape:
            pixels = kept
        else:
            raise UsageError("The pixels of this image are not here. Send them.", code="pixels_needed")
        try:
            image = MedicalImage(pixels, **{name: getattr(head.image, name) for name in _Facts.model_fields})
        except ValueError as error:
            raise UsageError(f"The image is not acceptable: {error}.", code="image") from error
        if self.pixels is not None and pixels_digest(image.pixels) != head.digest:
            raise UsageError("The pixels were changed on their way. Send them again.", code="damaged")
        return Request(
            image=image,
            record=ClinicalRecord.model_validate(head.record),
            model=head.model,
            slices=head.slices,
            settings=head.settings,
        )


def pack(request: Request, *, with_pixels: bool = True) -> tuple[bytes, memoryview]:
    """A request as head and pixels, to be sent one after the other. The device is for the other side to choose.

    Args:
        request: What is asked.
        with_pixels: False where the other side has them already; the second part is then empty.
    """
    image = request.image
    kind, pixels = _narrowed(image.pixels)
    facts = {part.name: getattr(image, part.name) for part in fields(image) if part.name not in ("pixels", *_PRIVATE)}
    head = _Head(
        shape=image.shape,
        stored=kind,
        digest=pixels_digest(image.pixels),
        image=_Facts(**{**facts, "prefill": dict(image.prefill)}),
        record=request.record.model_dump(mode="json"),
        model=request.model,
        slices=None if request.slices is None else [int(i) for i in request.slices],
        settings=request.settings,
    )
    text = head.model_dump_json().encode("utf-8")
    start = MAGIC + struct.pack("<Q", len(text)) + text
    return start, memoryview(pixels.reshape(-1).view(np.uint8).data) if with_pixels else memoryview(b"")


def unpack(block: bytes | bytearray | memoryview, *, most_voxels: int | None = None) -> Packed:
    """Open what `pack` made. No memory is taken for pixels yet.

    Args:
        block: Head and pixels.
        most_voxels: A larger image is refused.

    Raises:
        MediScanError: It is something else, or larger than allowed.
    """
    view = memoryview(block)
    if len(view) < _PREFIX or bytes(view[: len(MAGIC)]) != MAGIC:
        raise UsageError(
            "This is no packed study, or one of another version of MediScan. Use the same version on both sides.",
            code="not_packed",
        )
    (length,) = struct.unpack("<Q", view[len(MAGIC) : _PREFIX])
    if length > min(MOST_HEAD_BYTES, len(view) - _PREFIX):
        raise UsageError("The head of the packed study is cut off or too long. Send it again.", code="damaged")
    try:
        head = _Head.model_validate_json(bytes(view[_PREFIX : _PREFIX + length]))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the head"
        if first["type"] == "extra_forbidden":  # as from a newer MediScan
            raise UsageError(
                f"The packed study has a field that is not known here: {where}. Use the same version of MediScan on "
                "both sides.",
                code="not_packed",
            ) from error
        raise UsageError(f"The packed study is not acceptable at {where}: {first['msg']}.", code="damaged") from error
    pixels = view[_PREFIX + length :]
    voxels = math.prod(head.shape)
    if most_voxels is not None and voxels > most_voxels:
        raise MediScanError(
            f"The image has {voxels} voxels; {most_voxels} are allowed here. Crop or resample it.", code="too_large"
        )
    if len(pixels) not in (0, voxels * _STORED[head.stored].itemsize):
        raise UsageError(
            f"The packed study has {len(pixels)} bytes of pixels, its head promises "
            f"{voxels * _STORED[head.stored].itemsize}. Send it again.",
            code="damaged",
        )
    return Packed(head, pixels if len(pixels) else None)


def completed(prediction: Prediction, image: MedicalImage) -> Prediction:
    """A server's answer with what did not travel: the source, the identifiers and the warnings of the image."""
    summary = prediction.image.model_copy(
        update={
            "identifiers": dict(image.identifiers),
            "warnings": [*image.warnings, *prediction.image.warnings],
        }
    )
    whole = prediction.model_copy(update={"input": image.source, "image": summary})
    return whole if prediction.maps is None else whole.with_maps(prediction.maps)


def settings_from(values: Mapping[str, Any]) -> InferenceConfig:
    """Inference settings from plain values.

    Raises:
        UsageError: One is not acceptable.
    """
    try:
        return InferenceConfig(**values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise UsageError(f"settings.{'.'.join(map(str, first['loc']))}: {first['msg']}.", code="settings") from error


def _narrowed(pixels: npt.NDArray[np.float32]) -> tuple[Literal["f4", "i2"], npt.NDArray]:
    """The pixels in half the bytes where each of them comes back to the bit, as Hounsfield units do."""
    low, high = float(pixels.min()), float(pixels.max())
    if low >= -32768 and high <= 32767:
        small = pixels.astype("<i2")
        if np.array_equal(small.astype(np.float32).view(np.uint32), pixels.view(np.uint32)):  # also -0.0
            return "i2", small
    return "f4", pixels.astype("<f4", copy=False)
