"""Writes the results of an image to files."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import UsageError

ENDINGS = {"json": ".json", "csv": ".csv", "html": ".html", "views": "-views.png", "dicom": "-dicom"}
DATABASE = "database"
"""Beside "dicom": add the objects to Slicer's DICOM database."""
LONGEST_NAME = 80


def exportResults(volumeNode: Any, folder: Path, formats: Sequence[str]) -> list[Path]:
    """See `MediScanLogic.export`."""
    from MediScanLib.scene.results import stored_prediction
    from MediScanLib.scene.stored_maps import stored_maps
    from MediScanLib.scene.volumes import image_from_volume

    prediction = stored_prediction(slicer.mrmlScene, volumeNode) if volumeNode else None
    if prediction is None:
        raise UsageError(_("There is no result to write. Look at the image first."))
    maps = stored_maps(slicer.mrmlScene, volumeNode)
    if maps is not None:
        prediction = prediction.with_maps(maps)
    files = _freePaths(folder, volumeNode.GetName(), [kind for kind in formats if kind in ENDINGS])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("json", "csv"):
            if kind in files:
                _writeTable(prediction, files[kind])
        if "html" in files:
            from MediScanLib.report.html import write_html
            from MediScanLib.report.picture import draw_prediction

            pictures: dict[str, bytes] = {}
            if maps is not None:
                image = image_from_volume(volumeNode)
                for label in _worthShowing(prediction):
                    pictures[label] = _png(draw_prediction(image, prediction, label))
            write_html(prediction, files["html"], pictures)
        if "views" in files:
            _captureViews(files["views"])
        if "dicom" in files:
            _writeDicom(volumeNode, prediction, files["dicom"], addToDatabase=DATABASE in formats)
    except OSError as error:
        raise UsageError(
            _("{folder}: cannot be written ({reason}). Choose another folder.").format(
                folder=folder, reason=error.strerror or error
            )
        ) from error
    return [file for file in files.values() if file.exists()]


def _writeDicom(volumeNode: Any, prediction: Any, folder: Path, addToDatabase: bool) -> None:
    """Write DICOM objects into the study that the image was loaded from."""
    from MediScanLib.scene.header import source_files
    from MediScanLib.scene.packages import install_dicom
    from MediScanLib.scene.volumes import image_from_volume

    sources = source_files(volumeNode)
    if not sources:
        raise UsageError(
            _(
                "DICOM results belong to a study, and {name} was not loaded from Slicer's DICOM database. Load it "
                "with the DICOM module, or leave out DICOM."
            ).format(name=volumeNode.GetName())
        )
    install_dicom()
    from MediScanLib.report.dicom.writing import write_dicom_results

    write_dicom_results(prediction, prediction.maps, sources, folder, image=image_from_volume(volumeNode))
    if addToDatabase:
        from DICOMLib import DICOMUtils

        if not DICOMUtils.importDicom(str(folder), copyFiles=True):
            raise UsageError(
                _("{folder}: written, but Slicer's DICOM database did not take it.").format(folder=folder)
            )


def _freePaths(folder: Path, name: str, formats: Sequence[str]) -> dict[str, Path]:
    """Files that are not there yet, named after the image: what was written before is kept."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._")[:LONGEST_NAME] or "image"
    number = 1
    while True:
        counted = stem if number == 1 else f"{stem}-{number}"
        files = {kind: folder / f"{counted}{ENDINGS[kind]}" for kind in formats}
        if not any(file.exists() for file in files.values()):
            return files
        number += 1


def _writeTable(prediction: Any, file: Path) -> None:
    from MediScanLib.report.files import ResultFile

    with ResultFile(file, [finding.label for finding in prediction.findings]) as results:
        results.append(prediction.to_dict())


def _worthShowing(prediction: Any) -> list[str]:
    """The most probable finding, and those that are not absent."""
    return [
        finding.label
        for finding in prediction.findings
        if finding.decision != "absent" or finding.label == prediction.top.label
    ]


def _captureViews(file: Path) -> None:
    """Save a picture of all views; nothing happens without a window, which has none."""
    if slicer.util.mainWindow() is None or slicer.app.layoutManager() is None:
        return
    import ScreenCapture

    ScreenCapture.ScreenCaptureLogic().captureImageFromView(None, str(file))


def _png(picture: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
