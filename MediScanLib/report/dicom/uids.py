"""UIDs that repeat for the same input, model and result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from pydicom.uid import UID, generate_uid

from ...prediction.result import Prediction


class ResultUids:
    """UIDs of the objects that hold one result.

    What is sent twice then replaces itself in an archive and does not pile up there.

    Args:
        sources: SOP Instance UIDs of the images.
        prediction: What was said.
    """

    def __init__(self, sources: Iterable[str], prediction: Prediction) -> None:
        self._entropy = ["MediScan", *sorted(sources), prediction.provenance.model_sha256, content_digest(prediction)]

    def of(self, kind: str, *parts: str) -> UID:
        """The UID of one thing.

        Args:
            kind: Such as "sr" or "sr series".
            parts: What else tells it from others, such as a finding.
        """
        return generate_uid(entropy_srcs=["\0".join((*self._entropy, kind, *parts))])


def device_uid(model_sha256: str) -> UID:
    """The UID of a model as an observing device."""
    return generate_uid(entropy_srcs=[f"MediScan device\0{model_sha256}"])


def frame_of_reference_uid(series_uid: str) -> UID:
    """The frame of reference of a series that states none."""
    return generate_uid(entropy_srcs=[f"MediScan frame of reference\0{series_uid}"])


def content_digest(prediction: Prediction) -> str:
    """SHA-256 of what was said, without what differs from run to run: paths, times, machine and library versions.

    Numbers count to four digits, as the last ones depend on the machine.
    """
    content = prediction.model_dump(mode="json", exclude={"input", "provenance", "notice", "schema_version"})
    content["image"] = content["image"]["shape"]
    for heat_map in content["heat_maps"]:
        del heat_map["file"]
    content["model"] = [prediction.provenance.model, prediction.provenance.model_version]
    return hashlib.sha256(json.dumps(_rounded(content), sort_keys=True).encode()).hexdigest()


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
