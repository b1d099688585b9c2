"""What goes in and out as JSON; also what the OpenAPI page shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..prediction.result import Prediction
from ..report.review import LONGEST_NOTE, MOST_BOXES, Box


class Part(BaseModel):
    """Nothing unknown, nothing that is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="Stable name for programs.")
    detail: str = Field(description="What was wrong with what, and what to do.")


class Health(Part):
    """Whether the process lives."""

    status: Literal["ok"]


class Readiness(Part):
    """Whether predictions can be asked for."""

    status: Literal["ready"]


class Limits(Part):
    """What is let in."""

    max_body_bytes: int
    max_files: int
    max_voxels: int
    max_batch_size: int
    requests_per_minute: int
    request_time_s: float
    keep_s: float


class Model(Part):
    """A model that is offered."""

    name: str
    version: str
    title: str
    description: str
    sha256: str
    labels: list[str]
    spatial_dims: int
    modalities: list[str]
    body_parts: list[str]
    weights_licence: str


class Info(Part):
    """What the server is."""

    name: Literal["mediscan"] = "mediscan"
    version: str
    api: int
    study_versions: list[int] = Field(description="Forms of packed studies that are read.")
    prediction_version: str
    notice: str
    role: str = Field(description="Of the token that was shown.")
    device: str
    models: list[Model]
    limits: Limits


class WhatIf(Part):
    """Another record for an image that was predicted."""

    clinical: dict[str, Any] = Field(
        description="As in `predict`; it takes the place of the first record.",
        examples=[{"age_years": 63, "crp_mg_per_l": 120}],
    )


class JobState(Part):
    """A job as it stands."""

    id: str
    kind: Literal["series", "batch"]
    model: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: str = Field(description="What is being done.")
    studies: int
    studies_done: int
    slices_done: int = Field(description="Of the study that is under way.")
    slices_total: int
    created: AwareDatetime
    started: AwareDatetime | None
    ended: AwareDatetime | None
    expires: AwareDatetime
    cancelling: bool
    error: Problem | None


class JobList(Part):
    """The newest jobs."""

    jobs: list[JobState]


class Outcome(BaseModel):
    """What became of one study of a job."""

    id: str | None = Field(description="For maps and what-if; none where it failed.")
    input: str
    prediction: Prediction | None
    error: Problem | None


class JobResult(BaseModel):
    """What became of a job."""

    job: JobState
    results: list[Outcome]


class ReviewIn(Part):
    """What a reader says about a prediction that the server keeps."""

    prediction: str = Field(description="Id of the prediction.", max_length=64)
    agree: bool
    finding: str | None = Field(default=None, max_length=200)
    corrected_label: str | None = Field(default=None, min_length=1, max_length=200)
    corrected_severity: float | None = Field(default=None, ge=0, le=1)
    note: str = Field(default="", max_length=LONGEST_NOTE)
    region: tuple[Box, ...] = Field(default=(), max_length=MOST_BOXES)
    reader: str = Field(default="", max_length=200)


class ReviewAdded(Part):
    """A review was kept."""

    number: int


class ReviewList(BaseModel):
    """Reviews in the order in which they were made."""

    reviews: list[dict[str, Any]]


class Predicted(Prediction):
    """The prediction, as everywhere in MediScan, and on demand the raw heat maps."""

    raw_maps: dict[str, Any] | None = None
