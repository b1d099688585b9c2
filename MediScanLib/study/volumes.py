"""NIfTI, NRRD and MetaImage through SimpleITK, after their headers were checked against the bytes that are there."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK

from ..errors import ReadError
from .guards import BoundedInflater, Source, check_memory, file_source, finite_float32
from .hounsfield import AIR_HU, assumed_hounsfield
from .image import MedicalImage
from .luminance import luminance
from .volume_headers import GZIP_BITS, Kind, Promise, read_promise, times

_PIECE = 1 << 22  # a multiple of every pixel size but colour, which is never floating


def read_volume(source: Source, kind: Kind, memory_limit: int) -> MedicalImage:
    """Read a volume.

    Args:
        source: File or bytes.
        kind: What `sniff_volume` said.
        memory_limit: Bytes that this may need.

    Raises:
        ReadError: truncated, corrupt, empty, too_large, unsupported, geometry or not_finite.
    """
    name = source.name
    promise = read_promise(source, kind)
    check_memory(name, promise.bytes + 2 * 4 * math.prod(promise.sizes), memory_limit)
    detached = _detached(source, promise)
    notes = _check_bytes(detached or source, promise, kind)
    with _readable(source, kind, promise, detached) as path:
        image = _read(path, source, kind, notes)
    return image if promise.has_spacing else replace(image, spacing=None)


def _detached(source: Source, promise: Promise) -> Source | None:
    """The file with the pixels where they are detached: a plain name in the header's own folder and nothing else."""
    if promise.data is None:
        return None
    if source.path is None:
        raise ReadError(
            source.name, "keeps its pixels in another file", "Send one file that holds both.", code="unsupported"
        )
    plain = promise.data.removeprefix("./")
    folder = source.path.parent.resolve()
    inside = plain not in ("", ".", "..") and not re.search(r"[/\\:%\s]|^LIST", plain)
    target = folder / plain
    if not inside or target.resolve().parent != folder:
        raise ReadError(
            source.name,
            "asks for pixels outside of its own folder, or in several files",
            "Put the data file beside it, or save it as one file.",
            code="unsupported",
        )
    try:
        return file_source(target, f"{source.name} -> {plain}")
    except ReadError as error:
        raise ReadError(source.name, f"its data file {error.problem}", "Copy both files.", code=error.code) from None


def _check_bytes(holder: Source, promise: Promise, kind: Kind) -> tuple[str, ...]:
    """Compare the promised pixels with the bytes that are there; notes about values that are no numbers.

    Compressed pixels are decompressed piece by piece for this and not kept.
    """
    there = strange = 0
    with holder.open() as stream:
        start = 0 if promise.data is not None else promise.offset
        if promise.encoding == "raw" and promise.floating is None:
            there = max(0, holder.size - start)
        elif promise.encoding in ("ascii", "text", "txt"):  # at least one digit and one blank for each pixel
            there = promise.bytes if holder.size - start >= 2 * math.prod(promise.sizes) - 1 else 0
        elif promise.encoding in ("raw", "gzip", "zlib"):
            pieces: BoundedInflater | BinaryIO = stream
            if promise.encoding != "raw":
                if kind != "NIfTI":  # NIfTI is compressed with its header
                    stream.seek(start)
                pieces = BoundedInflater(stream, holder.name, GZIP_BITS if promise.encoding == "gzip" else 15)
            if kind == "NIfTI":
                pieces.read(start)
            while there < promise.bytes and (piece := pieces.read(min(promise.bytes - there, _PIECE))):
                there += len(piece)
                if promise.floating is not None:
                    values = np.frombuffer(piece[: len(piece) // promise.element * promise.element], promise.floating)
                    strange += int(values.size - np.isfinite(values).sum())
        else:
            raise ReadError(
                holder.name, f"is encoded as {promise.encoding!r}", "Save it as raw or gzip.", code="unsupported"
            )
    if there < promise.bytes:
        raise ReadError(
            holder.name,
            f"its header promises {times(promise.sizes)} pixels ({promise.bytes} bytes), {there} bytes are there",
            "Copy or export it again.",
            code="truncated",
        )
    if strange == math.prod(promise.sizes):
        raise ReadError(holder.name, "holds nothing but NaN or infinity", "Export the image again.", code="not_finite")
    return (f"{strange} pixels were NaN or infinite and were replaced by 0.",) if strange else ()


@contextmanager
def _readable(source: Source, kind: Kind, promise: Promise, detached: Source | None) -> Iterator[Path]:
    """A path with an ending that SimpleITK knows: the file itself, or a link or copy in a temporary folder."""
    ending = {"NIfTI": ".nii", "NRRD": ".nrrd" if detached is None else ".nhdr", "MetaImage": ".mha"}[kind]
    if kind == "NIfTI" and promise.encoding == "gzip":
        ending += ".gz"
    if kind == "MetaImage" and detached is not None:
        ending = ".mhd"
    if source.path is not None and (detached is not None or source.path.name.endswith(ending)):
        yield source.path
        return
    with tempfile.TemporaryDirectory(prefix="mediscan-") as folder:
        path = Path(folder) / f"volume{ending}"
        with source.open() as stream, path.open("wb") as copy:
            while piece := stream.read(1 << 22):
                copy.write(piece)
        yield path


def _read(path: Path, source: Source, kind: Kind, found: tuple[str, ...]) -> MedicalImage:
    name = source.name
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO({"NIfTI": "NiftiImageIO", "NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}[kind])
    reader.SetFileName(str(path))
    notes = list(found)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        size = list(reader.GetSize())
        if len(size) > 3 and math.prod(size[3:]) > 1:
            notes.append(f"It holds {math.prod(size[3:])} volumes; the first was read.")
        if len(size) > 3:
            reader.SetExtractSize(size[:3] + [0] * (len(size) - 3))
        image = reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise ReadError(
                name,
                "its axes are not perpendicular (sheared)",
                "Resample it to a regular grid.",
                code="geometry",
            ) from None
        raise ReadError(name, f"is a damaged {kind} file", "Export it again.", code="corrupt") from None
    except MemoryError:
        raise ReadError(name, "needs more memory than there is", "Crop or resample it.", code="too_large") from None
    array = SimpleITK.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    color = channels in (3, 4)
    if channels > 1:
        if not color or array.dtype != np.uint8:
            raise ReadError(name, f"has {channels} values a pixel", "Save one of them.", code="unsupported")
        array = luminance(array)
    flat = image.GetDimension() == 2
    pixels, more = finite_float32(array[np.newaxis] if flat else array, name)
    direction = np.eye(3)
    dimension = image.GetDimension()
    direction[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
    if not np.allclose(direction @ direction.T, np.eye(3), atol=1e-3):
        raise ReadError(
            name, "its axes are not perpendicular (sheared)", "Resample it to a regular grid.", code="geometry"
        )
    spacing, origin = (*image.GetSpacing(), 1.0)[:3], (*image.GetOrigin(), 0.0)[:3]
    if not all(math.isfinite(value) for value in (*spacing, *origin)) or min(spacing) <= 0:
        raise ReadError(name, "its spacing or origin is not a number", "Export it again.", code="geometry")
    assumed = None if color else assumed_hounsfield(pixels)
    return MedicalImage(
        pixels=np.maximum(pixels, np.float32(AIR_HU)) if assumed else pixels,
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=(origin[0], origin[1], origin[2]),
        direction=tuple(float(value) for value in direction.ravel()),
        modality="CT" if assumed else None,
        units="HU" if assumed else "intensity",
        color=color,
        reader=f"SimpleITK {SimpleITK.__version__} ({kind})",
        source=name,
        warnings=(*notes, *more, *filter(None, [assumed])),
    )
