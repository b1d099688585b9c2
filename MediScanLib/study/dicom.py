"""One DICOM file, single or multi-frame, as a `MedicalImage`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK

from ..errors import ReadError
from .dicom_geometry import Plane, frame_headers, frame_planes, pixel_aspect, stackable
from .dicom_header import DICOMDIR_CLASS, DicomObject, hashed_identifiers, prefill, read_header
from .dicom_layout import pixel_layout
from .dicom_pixels import stored_values
from .dicom_rendering import Rendering, render
from .dicom_values import element_code, element_text, element_value
from .guards import Source, reported
from .image import IDENTITY_DIRECTION, MedicalImage
from .stacking import stack


@dataclass(frozen=True, eq=False)
class Decoded:
    """The frames of one DICOM file with a place for each, before they are put together.

    Attributes:
        header: The object.
        rendering: Values.
        planes: One for each frame.
        reader: What decoded them.
        warnings: For the user.
    """

    header: DicomObject
    rendering: Rendering
    planes: list[Plane]
    reader: str
    warnings: tuple[str, ...]


def read_dicom(source: Source, memory_limit: int) -> MedicalImage:
    """Read one DICOM file.

    Args:
        source: File or bytes.
        memory_limit: Bytes that this may need.

    Raises:
        ReadError: Whatever is wrong with it.
    """
    decoded = decode(read_header(source, memory_limit), memory_limit)
    planes, rendering = decoded.planes, decoded.rendering
    if len(planes) == 1:
        return _single(decoded)
    if stackable(planes):
        volume = stack(planes, rendering.pixels, source.name, memory_limit)
        return image_of(
            decoded,
            pixels=volume.pixels,
            spacing=volume.spacing,
            origin=volume.origin,
            direction=volume.direction,
            warnings=volume.warnings,
        )
    spacing = planes[0].spacing
    loose = image_of(
        decoded,
        pixels=rendering.pixels,
        spacing=None if spacing is None else (*spacing, planes[0].thickness or 1.0),
        warnings=(
            f"Its {len(planes)} frames are not places in space (time points, segments or views): "
            "each stands for itself.",
        ),
    )
    return _square_pixels(replace(loose, slice_axis="frame"), decoded)


def decode(header: DicomObject, memory_limit: int) -> Decoded:
    """Decode and render all frames of an object.

    Raises:
        ReadError: Whatever is wrong with it.
    """
    name = header.name
    if element_value(header.dataset, "SOPClassUID") == DICOMDIR_CLASS:
        raise ReadError(
            name, "is a DICOMDIR, an index without pixels", "Give the folder that it stands in.", code="unsupported"
        )
    if header.pixel_keyword is None and "Rows" in header.dataset:
        raise ReadError(
            name, "describes an image but ends before its pixels", "Copy or export it again.", code="truncated"
        )
    if header.pixel_keyword is None:
        kind = element_code(header.dataset, "Modality")
        raise ReadError(
            name,
            f"is a DICOM object without an image{f' (modality {kind})' if kind else ''}",
            "Give an image of the study.",
            code="no_pixel_data",
        )
    with reported(name, "reading the DICOM header"):
        layout = pixel_layout(header.dataset, name)
        stored, reader = stored_values(header, layout, memory_limit)
        groups = frame_headers(header.dataset, layout.frames)
        rendering = render(header.dataset, groups, layout, stored, header.is_compressed, name)
        planes, notes = frame_planes(header.dataset, groups)
        notes = rendering.warnings + notes
        if element_text(header.dataset, "Modality") == "SEG":
            notes += ("This is a segmentation: its values are labels and not an image of the patient.",)
    return Decoded(header, rendering, planes, reader, notes)


def _single(decoded: Decoded) -> MedicalImage:
    plane = decoded.planes[0]
    spacing = None if plane.spacing is None else (*plane.spacing, plane.thickness or 1.0)
    placed = plane.position is not None
    image = image_of(
        decoded,
        pixels=decoded.rendering.pixels,
        spacing=spacing,
        origin=(float(plane.position[0]), float(plane.position[1]), float(plane.position[2]))
        if plane.position is not None
        else (0.0, 0.0, 0.0),
        direction=plane.direction if placed else IDENTITY_DIRECTION,
    )
    return _square_pixels(image, decoded)


def image_of(
    decoded: Decoded,
    *,
    pixels: npt.NDArray[np.float32],
    spacing: tuple[float, float, float] | None,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY_DIRECTION,
    with_instance: bool = True,
    warnings: tuple[str, ...] = (),
) -> MedicalImage:
    """A `MedicalImage` with the header facts of one object.

    Args:
        decoded: The object.
        pixels: (slice, row, column).
        spacing: See `MedicalImage`.
        origin: See `MedicalImage`.
        direction: See `MedicalImage`.
        with_instance: False where the pixels come from several instances.
        warnings: Added to those of the object.
    """
    header, rendering = decoded.header, decoded.rendering
    dataset = header.dataset
    side = element_text(dataset, "ImageLaterality") or element_text(dataset, "Laterality")
    return MedicalImage(
        pixels=pixels,
        spacing=spacing,
        origin=origin,
        direction=direction,
        modality=element_code(dataset, "Modality"),
        body_part=element_code(dataset, "BodyPartExamined"),
        view=element_code(dataset, "ViewPosition"),
        laterality=side if side in ("L", "R", "B") else None,
        units=rendering.units,
        window=rendering.window,
        color=rendering.color,
        inverted=rendering.inverted,
        identifiers=hashed_identifiers(header, with_instance=with_instance),
        prefill=prefill(header),
        reader=decoded.reader,
        source=header.name,
        warnings=(*decoded.warnings, *warnings),
    )


def _square_pixels(image: MedicalImage, decoded: Decoded) -> MedicalImage:
    """Stretch an image whose pixels are known not to be square, but not how large they are."""
    aspect = pixel_aspect(decoded.header.dataset)
    if image.spacing is not None or abs(aspect - 1) < 0.01:
        return image
    slices, rows, columns = image.shape
    height, width = (round(rows * aspect), columns) if aspect > 1 else (rows, round(columns / aspect))
    if height * width > 16 * rows * columns:
        return replace(image, warnings=(*image.warnings, f"The stated pixel aspect ratio {aspect:g} was ignored."))
    volume = SimpleITK.GetImageFromArray(np.asarray(image.pixels))
    stretched = SimpleITK.Resample(
        volume,
        (width, height, slices),
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        ((columns / width - 1) / 2, (rows / height - 1) / 2, 0.0),  # pixel edges stay where they are
        (columns / width, rows / height, 1.0),
        useNearestNeighborExtrapolator=True,
    )
    note = f"Its pixels are {aspect:g} times as high as wide: it was stretched from {rows} x {columns} pixels."
    return replace(image, pixels=SimpleITK.GetArrayFromImage(stretched), warnings=(*image.warnings, note))
