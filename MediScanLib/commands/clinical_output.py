"""`mediscan predict --dicom-output` and `--fhir-output`: what goes to archives, beside the other results of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import MediScanError, ReportError, WriteError

if TYPE_CHECKING:
    from ..prediction.batch import Outcome
    from ..report.dicom.deidentification import Deidentifier


class ClinicalOutput(ABC):
    """Writes something for each input. What goes wrong with one is told, counted, and stops nothing else.

    Args:
        folder: Where it goes.
        series: See `read_image`.

    Attributes:
        what: Such as "DICOM results".
        failed: Inputs without it so far.

    Raises:
        WriteError: `folder` cannot be made.
    """

    what: str

    def __init__(self, folder: Path, series: str | None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"{folder}: is no folder for {self.what} ({error.strerror}). Choose another place."
            ) from error
        self.series = series
        self.failed = 0
        self._said: set[str] = set()

    def write(self, path: Path, outcome: Outcome) -> None:
        """Write for one input.

        Raises:
            ClickException: Nothing can be written: the disk is full, or the place is gone.
        """
        try:
            notes = self._write(path, outcome)
        except WriteError as error:
            raise click.ClickException(str(error)) from error
        except MediScanError as error:
            self._fail(str(error))
            return
        except Exception as error:  # whatever one header does to a library, the others go on
            self._fail(
                f"{outcome.source}: unexpected {type(error).__name__}. Please report this and the kind of image."
            )
            return
        for note in notes:
            if note not in self._said:  # once a run
                self._said.add(note)
                click.echo(f"{self.what}: {note}", err=True)

    @abstractmethod
    def _write(self, path: Path, outcome: Outcome) -> Sequence[str]:
        """Write for one input and return what the user should know."""

    def _fail(self, message: str) -> None:
        self.failed += 1
        click.echo(f"No {self.what}: {message}", err=True)

    def _files(self, path: Path) -> list[Path]:
        from ..report.dicom.source import source_files

        return source_files(path, self.series if path.is_dir() else None)


class DicomOutput(ClinicalOutput):
    """Writes the DICOM objects of each input into a folder of its own.

    Args:
        inputs: All inputs of the run.
        folder: Where the folders go.
        series: See `read_image`.
        deidentify: Replace what identifies the patient; folders then have numbers for names.
        key_file: Where the key of the pseudonyms is; one that is forgotten after the run where None.

    Raises:
        ReportError: highdicom is not installed, or the key file holds no key.
        UsageError: A folder would stand where an input is.
        WriteError: `folder` or the key file cannot be made.
    """

    what = "DICOM results"

    def __init__(
        self, inputs: Sequence[Path], folder: Path, series: str | None, *, deidentify: bool, key_file: Path | None
    ) -> None:
        from ..report.dicom.deidentification import Deidentifier
        from ..report.dicom.highdicom_objects import load
        from ..report.names import result_folders

        load()
        super().__init__(folder, series)
        self._deidentifier: Deidentifier | None = None
        self._folders: Mapping[Path, Path]
        if deidentify:
            self._deidentifier = Deidentifier.from_file(key_file) if key_file else Deidentifier.fresh()
            self._folders = {path: folder / f"{number:05d}" for number, path in enumerate(inputs, start=1)}
        else:
            self._folders = result_folders(inputs, folder)

    def _write(self, path: Path, outcome: Outcome) -> Sequence[str]:
        from ..report.dicom import writing

        assert outcome.prediction is not None
        results = writing.make_dicom_results(
            outcome.prediction,
            outcome.prediction.maps,
            self._files(path),
            image=outcome.image,
            deidentifier=self._deidentifier,
        )
        writing.save_dicom_results(results, self._folders[path])
        return results.notes


class FhirOutput(ClinicalOutput):
    """Writes a FHIR Bundle for each input.

    Args:
        inputs: All inputs of the run.
        folder: Where the files go.
        series: See `read_image`.

    Raises:
        UsageError: A file would replace an input.
        WriteError: `folder` cannot be made.
    """

    what = "FHIR results"

    def __init__(self, inputs: Sequence[Path], folder: Path, series: str | None) -> None:
        from ..report.names import bundle_paths

        super().__init__(folder, series)
        self._paths = bundle_paths(inputs, folder)

    def _write(self, path: Path, outcome: Outcome) -> Sequence[str]:
        from ..report.dicom.source import load_sources
        from ..report.fhir import make_fhir_bundle, write_fhir_bundle

        assert outcome.prediction is not None
        notes = []
        try:
            sources = load_sources(self._files(path), outcome.prediction)
        except ReportError as error:
            if error.code not in ("not_dicom", "missing_uid"):
                raise
            sources = None
            notes = [f"{outcome.source}: names no imaging study and no patient, as the image states none."]
        write_fhir_bundle(make_fhir_bundle(outcome.prediction, sources), self._paths[path])
        return notes
