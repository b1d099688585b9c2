"""What the header of a DICOM study says, without decoding its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReadError
from ...study.dicom_header import hashed_identifiers, looks_like_dicom, prefill, read_header
from ...study.dicom_values import element_code, element_number
from ...study.guards import DEFAULT_MEMORY_LIMIT, file_source
from ...study.series import find_series


@dataclass(frozen=True)
class HeaderFacts:
    """Facts of one header.

    Attributes:
        patient: Hashed patient identifier, "" where there is none.
        modality: DICOM modality code or "".
        body_part: Body Part Examined or "".
        view: View Position or "".
        rows: Height in pixels or None.
        columns: Width in pixels or None.
        clinical: age_years and sex where the header states them.
    """

    patient: str
    modality: str
    body_part: str
    view: str
    rows: float | None
    columns: float | None
    clinical: Mapping[str, float | str]


def header_facts(path: Path) -> HeaderFacts | None:
    """Facts from a DICOM file or a folder with one series; None for an image of another format.

    Raises:
        ReadError: Not readable, or a folder with several series.
    """
    if path.is_dir():
        found, _ = find_series(path, str(path), DEFAULT_MEMORY_LIMIT)
        if len(found) > 1:
            raise ReadError(path, f"holds {len(found)} series", "Give each its own folder.", code="several_series")
        header = found[0].headers[0]
    else:
        source = file_source(path)
        if not looks_like_dicom(source.head(140)):
            return None
        header = read_header(source, DEFAULT_MEMORY_LIMIT)
    dataset = header.dataset
    return HeaderFacts(
        patient=hashed_identifiers(header, with_instance=False).get("patient", ""),
        modality=element_code(dataset, "Modality") or "",
        body_part=element_code(dataset, "BodyPartExamined") or "",
        view=element_code(dataset, "ViewPosition") or "",
        rows=element_number(dataset, "Rows"),
        columns=element_number(dataset, "Columns"),
        clinical=prefill(header),
    )
