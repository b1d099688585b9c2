"""A prediction's DICOM objects, made and written."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from ...errors import ReportError, UsageError
from ...prediction.heatmaps import HeatMaps
from ...prediction.result import Prediction
from ...study.guards import DEFAULT_MEMORY_LIMIT, reported
from ...study.image import MedicalImage
from ...study.reading import read_image
from ...study.series import Series, read_series
from ...writing import atomic_write
from .deidentification import Deidentifier, burned_in_warning
from .heat import shown_labels
from .highdicom_objects import load
from .parametric_map import make_parametric_map
from .secondary_capture import make_secondary_capture
from .segmentation import make_segmentation
from .source import SourceImages, load_sources, quietly
from .structured_report import make_structured_report
from .uids import ResultUids

KINDS: tuple[str, ...] = ("sr", "seg", "pm", "sc")
"""Structured report, fractional segmentation, parametric map, secondary capture."""


@dataclass(frozen=True, eq=False)
class DicomResults:
    """Objects that hold one result.

    Attributes:
        objects: By file name without its ending, such as "sr" or "pm-pneumonia".
        notes: Sentences on what was left out and why.
    """

    objects: dict[str, Dataset]
    notes: tuple[str, ...] = ()


def write_dicom_results(
    prediction: Prediction,
    heat_maps: HeatMaps | None,
    source_files: Sequence[Path],
    folder: Path,
    *,
    kinds: Collection[str] = KINDS,
    image: MedicalImage | None = None,
    when: datetime | None = None,
    deidentifier: Deidentifier | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> list[Path]:
    """Make the DICOM objects of a prediction and write them into a folder.

    Args:
        prediction: What was said.
        heat_maps: Its heat maps; those that ride along with it where None. Without any there is only a report.
        source_files: The DICOM files that were predicted; `source.source_files` lists them for a folder.
        folder: Made where it is missing.
        kinds: Some of `KINDS`. What cannot be made of these images is left out.
        image: What was looked at, for the pictures; read again from the files where None.
        when: Time of creation, now where None.
        deidentifier: Replaces what identifies the patient, and adds copies of the images under the same pseudonyms.
        memory_limit: Bytes that one object may need.

    Returns:
        The files written.

    Raises:
        ReportError: The sources are no DICOM, lack UIDs, are not those of the prediction, or highdicom is missing.
        ReadError: The sources cannot be read.
        WriteError: A file cannot be written; then none is left behind.
    """
    results = make_dicom_results(
        prediction,
        heat_maps,
        source_files,
        kinds=kinds,
        image=image,
        when=when,
        deidentifier=deidentifier,
        memory_limit=memory_limit,
    )
    return save_dicom_results(results, folder)


def make_dicom_results(
    prediction: Prediction,
    heat_maps: HeatMaps | None,
    source_files: Sequence[Path],
    *,
    kinds: Collection[str] = KINDS,
    image: MedicalImage | None = None,
    when: datetime | None = None,
    deidentifier: Deidentifier | None = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> DicomResults:
    """The objects of `write_dicom_results`, and what was left out."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise UsageError(f"{unknown or 'nothing'}: DICOM results are of the kinds {', '.join(KINDS)}.")
    load()
    when = when or datetime.now()
    with quietly():
        sources = load_sources(source_files, prediction, memory_limit=memory_limit)
        if deidentifier is None:
            return _Maker(prediction, heat_maps or prediction.maps, sources, when, memory_limit).make(kinds, image)
        image = image or read_sources(sources, memory_limit)
        maker = _Maker(
            _without_identity(prediction),
            heat_maps or prediction.maps,
            deidentifier.sources(sources),
            None,
            memory_limit,
        )
        results = maker.make(kinds, image)
        copies = {
            f"images/{number:05d}": deidentifier.copy(header, taken, memory_limit)
            for number, (header, taken) in enumerate(zip(sources.headers, sources.datasets, strict=True), start=1)
        }
        warning = burned_in_warning(sources)
        return DicomResults({**results.objects, **copies}, (*results.notes, *((warning,) if warning else ())))


def _without_identity(prediction: Prediction) -> Prediction:
    """Without the file's name, warnings that may quote names of files, and the clinical values."""
    clinical = prediction.clinical.model_copy(update={"used": {}, "prefilled": []})
    image = prediction.image.model_copy(update={"warnings": [], "identifiers": {}})
    return prediction.model_copy(update={"input": "de-identified", "clinical": clinical, "image": image})


def read_sources(sources: SourceImages, memory_limit: int) -> MedicalImage:
    """The image that the sources make.

    Raises:
        ReadError: They cannot be read.
    """
    headers = sources.headers
    if len(headers) == 1 and headers[0].source.path is not None:
        return read_image(headers[0].source.path, memory_limit_bytes=memory_limit)
    with reported(sources.name, "reading the images"):
        return read_series(Series("", "", "", list(headers)), sources.name, memory_limit)


def save_dicom_results(results: DicomResults, folder: Path) -> list[Path]:
    """Write all objects or none.

    Raises:
        WriteError: A file cannot be written; those of this call that were not there before are gone again.
    """
    written: list[Path] = []
    fresh: list[Path] = []
    try:
        for name, dataset in results.objects.items():
            path = folder / f"{name}.dcm"
            if not path.exists():
                fresh.append(path)
            with atomic_write(path) as stream:
                dataset.save_as(stream, enforce_file_format=True)
            written.append(path)
    except BaseException:
        for path in fresh:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    return written


class _Maker:
    """Makes the objects of one result."""

    def __init__(
        self,
        prediction: Prediction,
        maps: HeatMaps | None,
        sources: SourceImages,
        when: datetime | None,
        memory_limit: int,
    ) -> None:
        if maps is not None and maps.shape != prediction.image.shape:
            raise ReportError(f"{prediction.input}: the heat maps are those of another image.", code="source_mismatch")
        self._prediction = prediction if maps is None else prediction.model_copy().with_maps(maps)
        self._maps = maps
        self._sources = sources
        self._when = when
        self._memory_limit = memory_limit
        self._uids = ResultUids(sources.instance_uids, prediction)
        self._notes: list[str] = []

    def make(self, kinds: Collection[str], image: MedicalImage | None) -> DicomResults:
        made: dict[str, Dataset] = {}
        segmentation: Dataset | None = None
        if self._maps is None and set(kinds) != {"sr"}:
            self._notes.append("There are no heat maps, so that only the structured report was made.")
        labels = shown_labels(self._prediction, self._maps) if self._maps is not None else []
        if "seg" in kinds and labels:
            segmentation = self._segmentation(labels)
            if segmentation is not None:
                made["seg"] = segmentation
        if "pm" in kinds and labels:
            made.update(self._parametric_maps(labels))
        if "sc" in kinds and labels:
            made.update(self._pictures(labels, image))
        if "sr" in kinds:
            others = [dataset for name, dataset in made.items() if name != "seg"]
            report = make_structured_report(
                self._prediction,
                self._sources,
                self._uids,
                segmentation=segmentation,
                others=others,
                when=self._when,
            )
            made = {"sr": report, **made}
        return DicomResults(made, tuple(self._notes))

    def _segmentation(self, labels: Sequence[str]) -> Dataset | None:
        if not self._sources.placed and len(self._sources.places) > 1:
            self._notes.append(
                "No segmentation: its frames have no places in the patient, which DICOM demands of several."
            )
            return None
        assert self._maps is not None
        return make_segmentation(
            self._prediction,
            self._maps,
            labels,
            self._sources,
            self._uids,
            when=self._when,
            memory_limit=self._memory_limit,
        )

    def _parametric_maps(self, labels: Sequence[str]) -> dict[str, Dataset]:
        if not self._sources.placed or self._prediction.image.spacing is None:
            self._notes.append(
                "No parametric map: the image has no place in the patient; the segmentation holds the heat map."
            )
            return {}
        assert self._maps is not None
        return {
            f"pm-{_file_part(label)}": make_parametric_map(
                self._prediction,
                self._maps,
                label,
                number,
                self._sources,
                self._uids,
                when=self._when,
                memory_limit=self._memory_limit,
            )
            for number, label in enumerate(labels, start=1)
        }

    def _pictures(self, labels: Sequence[str], image: MedicalImage | None) -> dict[str, Dataset]:
        image = image or read_sources(self._sources, self._memory_limit)
        return {
            f"sc-{_file_part(label)}": make_secondary_capture(
                self._prediction, image, label, number, self._sources, self._uids, when=self._when
            )
            for number, label in enumerate(labels, start=1)
        }


def _file_part(label: str) -> str:
    return re.sub(r"[^\w-]+", "-", label).strip("-")[:60] or "finding"
