"""What two processes on one machine hand to each other: a folder with a request, and later its answer.

Arrays travel as `.npy` files without pickles and everything else as JSON, so that nothing that is read is executed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import InferenceConfig
from ..errors import EngineError, MediScanError, ServerError
from ..network.bundle import DEFAULT_BUNDLE
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from .heatmaps import HeatMaps
from .result import Prediction

_PIXELS, _REQUEST, _ANSWER = "pixels.npy", "request.json", "answer.json"


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of an engine.

    Attributes:
        image: Image or volume.
        record: What is known of the patient.
        model: Name of a bundle, or its folder.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        slices: Slices to look at, all where None; for a 2D network only.
        settings: Batch size, confidence threshold and which parts are wanted.
    """

    image: MedicalImage
    record: ClinicalRecord = field(default_factory=ClinicalRecord)
    model: str = DEFAULT_BUNDLE
    device: str = "auto"
    slices: Sequence[int] | None = None
    settings: InferenceConfig = field(default_factory=InferenceConfig)


def write_request(request: Request, folder: Path, *, with_pixels: bool = True) -> None:
    """Put a request into an empty folder that nobody else can read.

    Args:
        request: What is asked.
        folder: Where to.
        with_pixels: False where whoever reads it has them already.
    """
    image = request.image
    if with_pixels:
        np.save(folder / _PIXELS, image.pixels, allow_pickle=False)
    facts = {part.name: getattr(image, part.name) for part in fields(image) if part.name != "pixels"}
    facts |= {"identifiers": dict(image.identifiers), "prefill": dict(image.prefill)}
    content = {
        "image": facts,
        "record": request.record.model_dump(mode="json"),
        "model": request.model,
        "device": request.device,
        "slices": None if request.slices is None else [int(i) for i in request.slices],
        "settings": request.settings.model_dump(mode="json"),
    }
    (folder / _REQUEST).write_text(json.dumps(content), encoding="utf-8")


def has_pixels(folder: Path) -> bool:
    """Whether a request brings its pixels along."""
    return (folder / _PIXELS).exists()


def read_request(folder: Path, pixels: npt.NDArray[np.float32] | None = None) -> Request:
    """Read what `write_request` wrote.

    Args:
        folder: Where from.
        pixels: Those of the request before, for one that comes without.

    Raises:
        EngineError: There are no pixels, neither here nor there.
    """
    if has_pixels(folder):
        pixels = np.load(folder / _PIXELS, allow_pickle=False)
    if pixels is None:
        raise EngineError("The image did not reach the process that makes predictions. Try again.")
    content = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content["image"].items()
    }
    return Request(
        image=MedicalImage(pixels, **facts),
        record=ClinicalRecord(**content["record"]),
        model=content["model"],
        device=content["device"],
        slices=content["slices"],
        settings=InferenceConfig(**content["settings"]),
    )


def write_answer(prediction: Prediction, folder: Path) -> None:
    """Put a prediction with its heat maps beside the request."""
    maps = prediction.maps.to_json() if prediction.maps is not None else None
    (folder / _ANSWER).write_text(json.dumps({"prediction": prediction.to_dict(), "maps": maps}), encoding="utf-8")


def read_answer(folder: Path) -> Prediction:
    """Read what `write_answer` wrote."""
    content = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
    prediction = Prediction.model_validate(content["prediction"])
    return prediction if content["maps"] is None else prediction.with_maps(HeatMaps.from_json(content["maps"]))


def describe_error(error: BaseException) -> dict[str, str]:
    """An error as plain values; see `error_from`."""
    if isinstance(error, MediScanError):
        return {"code": error.code, "message": str(error)}
    if isinstance(error, MemoryError):
        return {"code": "engine", "message": f"The memory does not suffice for this image ({error})."}
    return {"code": "engine", "message": f"{type(error).__name__}: {error}"}


def error_from(description: dict[str, Any]) -> MediScanError:
    """The error that was described, of the same class where its code names one."""
    code, message = str(description.get("code")), str(description.get("message"))
    kinds = {kind.code: kind for kind in _kinds(MediScanError)}
    kind = ServerError if code in ServerError.CODES else kinds.get(code, MediScanError)
    error = kind.__new__(kind)  # some classes compose their message, which is whole already
    MediScanError.__init__(error, message, code=code)
    return error


def _kinds(parent: type[MediScanError]) -> list[type[MediScanError]]:
    children = parent.__subclasses__()
    return children + [kind for child in children for kind in _kinds(child)]
