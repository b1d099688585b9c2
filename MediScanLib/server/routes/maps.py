"""Heat maps as files."""

from __future__ import annotations

import asyncio
import io
from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from ...errors import UsageError
from ...prediction.heatmaps import HeatMaps
from ...report.picture import draw_prediction
from ...study.image import MedicalImage
from ..auth import HouseOf, Reader
from ..house import House
from ..problems import MissingError
from .predict import Id

router = APIRouter(tags=["predictions"])


class MapFormat(str, Enum):
    """How a map is written."""

    PNG = "png"
    NRRD = "nrrd"


@router.get(
    "/predictions/{identity}/maps/{finding}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "application/x-nrrd": {}}}},
)
async def heat_map(
    identity: Id,
    finding: Annotated[str, Path(max_length=200)],
    house: HouseOf,
    _: Reader,
    format: Annotated[MapFormat, Query(description="png: image and overlay; nrrd: raw values.")] = MapFormat.PNG,
) -> Response:
    """A heat map: as a picture beside its image, or its raw values on the image's own grid and geometry."""
    return await asyncio.to_thread(_file, house, identity, finding, format)


def _file(house: House, identity: str, finding: str, form: MapFormat) -> Response:
    prediction = house.studies.prediction(identity)
    if prediction.maps is None:
        raise UsageError("This prediction was made without heat maps.", code="no_maps")
    if finding not in prediction.maps.labels:
        known = ", ".join(prediction.maps.labels)
        raise MissingError(f"There is no heat map of {finding[:100]!r}. There are: {known}.")
    image = house.studies.request(identity).image
    if form is MapFormat.NRRD:
        data = nrrd(prediction.maps, finding, image)
        name = f"{finding}.nrrd"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'} if name.isascii() else {}
        return Response(data, media_type="application/x-nrrd", headers=headers)
    stream = io.BytesIO()
    draw_prediction(image, prediction, finding).save(stream, format="PNG", compress_level=2)
    return Response(stream.getvalue(), media_type="image/png")


def nrrd(maps: HeatMaps, label: str, image: MedicalImage) -> bytes:
    """A raw map as NRRD (https://teem.sourceforge.net/nrrd/format.html) on the geometry of its image, LPS.

    Args:
        maps: Heat maps.
        label: Finding.
        image: What they belong to.
    """
    values = maps.on_image(label)
    slices, rows, columns = values.shape
    steps = (image.direction_matrix * (image.spacing or (1.0, 1.0, 1.0))).T  # a row an axis: columns, rows, slices

    def vector(numbers: object) -> str:
        return "(" + ",".join(repr(float(number)) for number in numbers) + ")"  # type: ignore[attr-defined]

    lines = [
        "NRRD0004",
        "type: float",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {columns} {rows} {slices}",
        f"space directions: {' '.join(vector(step) for step in steps)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {vector(image.origin)}",
        f"MediScan_finding:={label}",
        f"MediScan_scale:={maps.scale(label)!r}",
    ]
    return "\n".join(lines).encode("utf-8") + b"\n\n" + values.astype("<f4", copy=False).tobytes()
