"""Results as files: what the report room writes, handed to the browser."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from ..errors import UsageError
from ..prediction.result import Prediction
from ..report.files import ResultFile
from ..report.picture import draw_prediction
from ..study.image import MedicalImage

KINDS = {
    "json": ("application/json", "mediscan-result.json"),
    "csv": ("text/csv", "mediscan-result.csv"),
    "html": ("text/html", "mediscan-report.html"),
    "png": ("image/png", "mediscan-picture.png"),
}
"""Media type and name of what is written; the name tells nothing of the patient."""


def export(
    kind: str, image: MedicalImage | None, prediction: Prediction | None, finding: str
) -> tuple[bytes, str, str]:
    """One file.

    Args:
        kind: One of `KINDS`.
        image: What was looked at.
        prediction: What was said.
        finding: Whose heat map the picture shows.

    Returns:
        Content, media type and file name.

    Raises:
        UsageError: There is no result.
    """
    if image is None or prediction is None:
        raise UsageError("There is no result to write. Run the model first.")
    media_type, name = KINDS[kind]
    if kind == "png":
        return _png(image, prediction, finding), media_type, name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if kind == "html":
            from ..report.html import write_html

            write_html(prediction, path, _pictures(image, prediction))
        else:
            with ResultFile(path, [part.label for part in prediction.findings]) as results:
                results.append(prediction.to_dict())
        return path.read_bytes(), media_type, name


def _pictures(image: MedicalImage, prediction: Prediction) -> dict[str, Path | bytes]:
    """The most probable finding, and those that are not absent."""
    if prediction.maps is None:
        return {}
    return {
        finding.label: _png(image, prediction, finding.label)
        for finding in prediction.findings
        if finding.label in prediction.maps.labels
        and (finding.decision != "absent" or finding.label == prediction.top.label)
    }


def _png(image: MedicalImage, prediction: Prediction, finding: str) -> bytes:
    stream = io.BytesIO()
    draw_prediction(image, prediction, finding or None).save(stream, format="PNG", compress_level=2)
    return stream.getvalue()
