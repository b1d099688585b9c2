"""The process in which DICOM results are made; `python -m MediScanLib.server.results_child MEMORY_BYTES`.

It reads requests as JSON lines from standard input, `{"folder", "files", "limit"}`, and answers each with one line on
standard output: `{"objects": [names]}` once they lie in `folder/results`, or `{"error": {"code", "message"}}`. The
prediction lies in the folder as `exchange.write_answer` writes it, the DICOM files in `folder/files`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..prediction.exchange import read_answer
from .reader_child import answer_lines


def make(asked: dict[str, Any]) -> dict[str, object]:
    """Make the objects of a prediction.

    Raises:
        MediScanError: The files are not those of the prediction, or highdicom is not installed.
    """
    from ..report.dicom.writing import write_dicom_results

    folder = Path(asked["folder"])
    prediction = read_answer(folder)
    files = [folder / "files" / name for name in asked["files"]]
    written = write_dicom_results(
        prediction, prediction.maps, files, folder / "results", memory_limit=int(asked["limit"])
    )
    return {"objects": [path.name for path in written]}


if __name__ == "__main__":
    answer_lines(make)
