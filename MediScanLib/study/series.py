"""A folder of DICOM files as one volume."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ReadError
from .dicom import Decoded, decode, image_of, read_dicom
from .dicom_geometry import Plane, plane_of, same_orientation
from .dicom_header import DicomObject, looks_like_dicom, read_header
from .dicom_layout import pixel_layout
from .dicom_values import element_number, element_text, element_value
from .guards import check_memory, file_source, os_error, reported
from .image import RADIOGRAPH_MODALITIES, MedicalImage
from .stacking import stack

_MOST_FILES = 20_000


@dataclass(frozen=True)
class Series:
    """The image files of one SeriesInstanceUID.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, may be empty.
        modality: DICOM modality, may be empty.
        headers: One for each file, in file order.
    """

    uid: str
    description: str
    modality: str
    headers: list[DicomObject]


def read_folder(folder: Path, name: str, series: str | None, memory_limit: int) -> MedicalImage:
    """Read the one series of a folder, or the one that is asked for.

    Args:
        folder: Searched with its subfolders; links to folders are not followed.
        name: As the user named it.
        series: SeriesInstanceUID, a prefix of it that fits only one, or the number from the list in the error.
        memory_limit: Bytes that this may need.

    Raises:
        ReadError: empty, several_series, not_found, geometry and all that a single file may raise.
    """
    found, damaged = find_series(folder, name, memory_limit)
    chosen = choose_series(found, series, name)
    if len(chosen.headers) == 1:
        image = read_dicom(chosen.headers[0].source, memory_limit)
    else:
        image = read_series(chosen, name, memory_limit)
    notes = image.warnings
    if damaged:
        notes += (f"{len(damaged)} files of the folder are damaged and were left out, {damaged[0]} among them.",)
    return replace(image, source=name, warnings=notes)


def find_series(folder: Path, name: str, memory_limit: int) -> tuple[list[Series], list[str]]:
    """All DICOM image series below a folder, and the names of DICOM files that could not be parsed.

    Raises:
        ReadError: empty where there is no DICOM image, too_large where there are far too many files.
    """
    groups: dict[str, list[DicomObject]] = {}
    damaged: list[str] = []
    others = 0
    for path in files_below(folder, name):
        try:
            source = file_source(path)
            if not looks_like_dicom(source.head(140)):
                others += 1
                continue
            header = read_header(source, memory_limit)
        except ReadError:
            damaged.append(path.name)
            continue
        if header.pixel_keyword is None and ("Rows" in header.dataset or "SOPClassUID" not in header.dataset):
            damaged.append(path.name)  # cut off before its pixels; reports and the like have a class and no rows
        elif header.pixel_keyword is not None:
            groups.setdefault(str(element_value(header.dataset, "SeriesInstanceUID") or ""), []).append(header)
    if not groups:
        what = f"{others} files of other kinds" if others else "nothing"
        what += f" and {len(damaged)} damaged files" if damaged else ""
        raise ReadError(
            name,
            f"is a folder without DICOM images ({what} in it)",
            "Give a folder with a DICOM series, or a single image file.",
            code="empty",
        )
    return [
        Series(
            uid,
            element_text(headers[0].dataset, "SeriesDescription") or "",
            element_text(headers[0].dataset, "Modality") or "",
            headers,
        )
        for uid, headers in groups.items()
    ], damaged


def files_below(folder: Path, name: str) -> list[Path]:
    """Regular files below a folder in a stable order; hidden ones and links to folders are passed over.

    Raises:
        ReadError: permission_denied, too_large.
    """

    def refuse(error: OSError) -> None:
        raise os_error(name, error)

    result: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=refuse, followlinks=False):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        result += [Path(where, entry) for entry in sorted(files) if not entry.startswith(".")]
        if len(result) > _MOST_FILES:
            raise ReadError(
                name, f"holds more than {_MOST_FILES} files", "Give the folder of one series.", code="too_large"
            )
    return result


def choose_series(found: list[Series], wanted: str | None, name: str) -> Series:
    """The only series, or the one that is asked for.

    Args:
        found: What `find_series` found.
        wanted: See `read_folder`.
        name: Folder, for errors.

    Raises:
        ReadError: several_series or not_found.
    """
    if wanted is None and len(found) == 1:
        return found[0]
    listing = "; ".join(
        f"{number}: {one.uid or 'no UID'} ({one.modality or 'no modality'}, {one.description or 'no description'}, "
        f"{len(one.headers)} {'file' if len(one.headers) == 1 else 'files'})"
        for number, one in enumerate(found, start=1)
    )
    if wanted is None:
        raise ReadError(
            name,
            f"holds {len(found)} series: {listing}",
            "Name one with series=, by UID, the start of its UID, or its number here.",
            code="several_series",
        )
    exact = [one for one in found if one.uid == wanted]
    if not exact and wanted.isdecimal() and 1 <= int(wanted) <= len(found):
        exact = [found[int(wanted) - 1]]
    fitting = exact or [one for one in found if wanted and one.uid.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ReadError(
            name, f"{wanted!r} fits {len(fitting)} of its series: {listing}", "Give more of it.", code="several_series"
        )
    raise ReadError(name, f"holds no series {wanted!r}: {listing}", "Choose one of these.", code="not_found")


def read_series(series: Series, name: str, memory_limit: int) -> MedicalImage:
    """Put the single-frame files of a series together to a volume.

    Raises:
        ReadError: geometry where they do not form one, and all that a single file may raise.
    """
    headers, notes = without_localizers(series.headers)
    if len(headers) == 1:
        image = read_dicom(headers[0].source, memory_limit)
        return replace(image, warnings=(*image.warnings, *notes))
    planes = _planes(headers, name)
    order = np.argsort([plane.distance for plane in planes], kind="stable")  # here, not as a copy of all pixels
    headers, planes = [headers[index] for index in order], [planes[index] for index in order]
    with reported(name, "reading the DICOM headers"):
        layouts = [pixel_layout(header.dataset, header.name) for header in headers]
    shape = (len(headers), layouts[0].rows, layouts[0].columns)
    check_memory(name, 2 * 4 * int(np.prod(shape, dtype=np.int64)) + layouts[0].peak_bytes, memory_limit)
    pixels = np.empty(shape, np.float32)
    middle: Decoded | None = None
    all_notes = Counter[str](notes)
    for index, header in enumerate(headers):
        decoded = decode(header, memory_limit)
        pixels[index] = decoded.rendering.pixels[0]
        all_notes.update(set(decoded.warnings))
        if middle is not None and _kind(decoded) != _kind(middle):
            raise ReadError(
                name,
                "mixes slices of different kinds (units or grey scale)",
                "Give a folder with one of them.",
                code="geometry",
            )
        if middle is None or index == len(headers) // 2:
            middle = decoded
    assert middle is not None
    volume = stack(planes, pixels, name, memory_limit)
    once = replace(middle, warnings=())
    return image_of(
        once,
        pixels=volume.pixels,
        spacing=volume.spacing,
        origin=volume.origin,
        direction=volume.direction,
        with_instance=False,
        warnings=(*all_notes, *volume.warnings),
    )


def _kind(decoded: Decoded) -> tuple[str, bool, bool]:
    return decoded.rendering.units, decoded.rendering.color, decoded.rendering.inverted


def without_localizers(headers: list[DicomObject]) -> tuple[list[DicomObject], tuple[str, ...]]:
    """The slices of a series without its overview images, and a note where there were some."""
    kept = [header for header in headers if "LOCALIZER" not in (element_text(header.dataset, "ImageType") or "")]
    dropped = len(headers) - len(kept)
    if not dropped or not kept:
        return headers, ()
    return kept, (f"{dropped} localizer images of the series were left out.",)


def _planes(headers: list[DicomObject], name: str) -> list[Plane]:
    """Places of all files, checked to be slices of one stack before any pixels are decoded."""

    def refuse(problem: str, remedy: str = "Give its files one by one.") -> ReadError:
        return ReadError(name, problem, remedy, code="geometry")

    modality = element_text(headers[0].dataset, "Modality")
    if modality in RADIOGRAPH_MODALITIES:
        raise refuse(f"holds {len(headers)} projection images ({modality}), which are no volume")
    if any((element_number(header.dataset, "NumberOfFrames") or 1) > 1 for header in headers):
        raise refuse("holds several multi-frame objects")
    planes = [plane_of(header.dataset, radiograph=False)[0] for header in headers]
    homeless = sum(plane.position is None or plane.spacing is None for plane in planes)
    if homeless:
        raise refuse(f"{homeless} of its {len(headers)} images do not say where they lie")
    sizes = {(element_number(header.dataset, "Rows"), element_number(header.dataset, "Columns")) for header in headers}
    if len(sizes) > 1:
        listed = " and ".join(f"{rows:g} x {columns:g}" for rows, columns in sorted(sizes) if rows and columns)
        raise refuse(f"its images differ in size ({listed})", "Give a folder with one size.")
    first = planes[0]
    if not all(same_orientation(plane, first) for plane in planes):
        raise refuse("its slices are not parallel", "Give a folder with one orientation.")
    if not all(np.allclose(plane.spacing or (), first.spacing or (), rtol=1e-3) for plane in planes):
        raise refuse("its slices differ in pixel spacing", "Give a folder with one spacing.")
    return planes
