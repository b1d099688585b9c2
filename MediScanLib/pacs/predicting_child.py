"""The process in which a node reads, predicts and makes results; `python -m MediScanLib.pacs.predicting_child`.

It reads requests as JSON lines from standard input, see `Task`, and answers each with one line on standard output:
`{"objects": [[SOP Instance UID, file name], ...], "notes": [...]}` once the results lie in the folder, or
`{"error": {"code", "message"}}`. Neither side unpickles anything. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import InferenceConfig
from ..errors import EngineError, MediScanError
from ..prediction.exchange import Request, describe_error
from ..prediction.warm import WarmModels
from ..study.dicom_header import read_header
from ..study.guards import file_source, reported
from ..study.image import MedicalImage
from ..study.reading import read_image
from ..study.series import Series, read_series


@dataclass(frozen=True)
class Task:
    """One image or volume to predict.

    Attributes:
        files: Paths of its DICOM files.
        folder: Where results go; what lies there is removed first.
        name: Stands in errors; names no patient.
        model: Name or folder of a bundle.
        device: See `resolve_device`.
        inference: `InferenceConfig` as plain values.
        results: Kinds of DICOM objects.
        memory: Bytes that reading, and making one object, may take.
    """

    files: tuple[str, ...]
    folder: str
    name: str
    model: str
    device: str
    inference: dict[str, Any]
    results: tuple[str, ...]
    memory: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def read_files(files: Sequence[Path], name: str, memory: int) -> MedicalImage:
    """The image that is one DICOM file, or the volume whose slices lie in several.

    Raises:
        ReadError: See `read_image`.
    """
    if len(files) == 1:
        return read_image(files[0], memory_limit_bytes=memory, name=name)
    with reported(name, "reading the images"):
        headers = [read_header(file_source(path, name), memory) for path in files]
        return read_series(Series("", "", "", headers), name, memory)


def perform(task: Task, models: WarmModels) -> dict[str, Any]:
    """Predict and write the results.

    Raises:
        MediScanError: The files, the model or the device are not acceptable, or the results cannot be written.
    """
    from ..report.dicom.writing import make_dicom_results, save_dicom_results

    files, folder = [Path(file) for file in task.files], Path(task.folder)
    image = read_files(files, task.name, task.memory)
    predictor = models.get(Request(image, model=task.model, device=task.device, settings=_settings(task)))
    prediction = predictor(image).model_copy(update={"input": task.name})
    made = make_dicom_results(
        prediction, prediction.maps, files, kinds=task.results, image=image, memory_limit=task.memory
    )
    shutil.rmtree(folder, ignore_errors=True)
    paths = save_dicom_results(made, folder)
    uids = [str(dataset.SOPInstanceUID) for dataset in made.objects.values()]
    return {
        "objects": [[uid, path.name] for uid, path in zip(uids, paths, strict=True)],
        "notes": list(made.notes),
        "deferred": prediction.certainty.deferred,
    }


def _settings(task: Task) -> InferenceConfig:
    return InferenceConfig.model_validate(task.inference)


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):  # libraries print; nothing of it may get into the answers or the node's log
        os.dup2(silence, descriptor)
    models = WarmModels()
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            task = Task(**{**asked, "files": tuple(asked["files"]), "results": tuple(asked["results"])})
            answer = perform(task, models)
        except Exception as error:  # whatever a file does is an answer
            known = isinstance(error, MediScanError | MemoryError)
            # what a library says may quote the header, and its answer is logged
            answer = {
                "error": describe_error(error if known else EngineError(f"{type(error).__name__} in a library."))
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
