"""Finds the inputs of a batch: which files and folders below a path are one study image each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReadError
from .dicom_header import DICOMDIR_CLASS, looks_like_dicom, read_header
from .dicom_values import element_number, element_numbers, element_text, element_value
from .guards import DEFAULT_MEMORY_LIMIT, file_source, os_error, status
from .image import RADIOGRAPH_MODALITIES

_COMPANIONS = frozenset(
    (
        *(".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".log", ".xml", ".html", ".htm", ".yaml", ".yml"),
        *(".toml", ".ini", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".py", ".ipynb", ".sh", ".bat", ".exe", ".dll"),
    )
)
"""Endings of files that lie beside images and are none; only these are passed over in silence."""

_DETACHED = frozenset({".raw", ".zraw"})
"""Pixels of an .nhdr or .mhd header, which is the input."""

_INDEX_NAMES = frozenset({"DICOMDIR", "DIRFILE", "THUMBS.DB", "DESKTOP.INI"})


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """The inputs below a path, in a stable order, each of which `read_image` takes.

    A file is one input. A folder is decided for itself, without its subfolders: if all its files are single-frame
    DICOM slices of one series, at least two, with positions in space, the folder is one input (a volume); otherwise
    each of its files is an input. So a folder of many radiographs, or of slices out of several series, gives one input
    a file, and a CT series gives one volume. Subfolders follow after the files of their folder.

    Files that cannot be images by their ending (tables, texts, documents), hidden ones and DICOM indexes are
    passed over; everything else is listed, so that a damaged or foreign file is reported and not lost. Links to
    files are followed, links to folders are not, so that a loop cannot trap the walk.

    Raises:
        ReadError: not_found, permission_denied or symlink_loop for `path` itself.
    """
    start = Path(path)
    if not stat.S_ISDIR(status(start, path).st_mode):
        return [start]
    return list(_walk(start))


def _walk(start: Path) -> Iterator[Path]:
    unreadable: list[Path] = []

    def refuse(error: OSError) -> None:
        if error.filename is not None and Path(error.filename) == start:
            raise os_error(start, error)
        if error.filename is not None:
            unreadable.append(Path(error.filename))

    for where, folders, names in os.walk(start, onerror=refuse, followlinks=False):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        folder = Path(where)
        files = [folder / entry for entry in sorted(names) if _may_be_image(entry)]
        if _is_series(files):
            yield folder
        else:
            yield from files
    yield from unreadable  # each is reported when it is read, and not lost in silence


def _may_be_image(name: str) -> bool:
    ending = Path(name).suffix.lower()
    return not (name.startswith(".") or ending in _COMPANIONS or ending in _DETACHED or name.upper() in _INDEX_NAMES)


def _is_series(files: list[Path]) -> bool:
    """True where every file is a placed single-frame slice of the same series; stops at the first that is not."""
    series: set[str] = set()
    slices = 0
    for file in files:
        try:
            source = file_source(file)
            if not looks_like_dicom(source.head(140)):
                return False
            header = read_header(source, DEFAULT_MEMORY_LIMIT)
        except ReadError:
            return False
        dataset = header.dataset
        if element_value(dataset, "SOPClassUID") == DICOMDIR_CLASS:
            continue
        placed = element_numbers(dataset, "ImagePositionPatient", 3) is not None
        single = (element_number(dataset, "NumberOfFrames") or 1) == 1
        projection = element_text(dataset, "Modality") in RADIOGRAPH_MODALITIES
        series.add(str(element_value(dataset, "SeriesInstanceUID") or ""))
        if header.pixel_keyword is None or not placed or not single or projection or len(series) > 1 or "" in series:
            return False
        slices += 1
    return slices > 1
