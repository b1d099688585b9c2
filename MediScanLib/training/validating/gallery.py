"""Cases side by side: the image with the readers' marks, and the map of every method of every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import MediScanError
from ...prediction.localization import BoolArray
from ...study.image import MedicalImage
from ...study.reading import read_image
from ..evaluating.localization import OVERLAP, POINTING
from .agreement import Agreements
from .cases import Case
from .request import Request
from .results import Found, Results

DrawTile = Callable[[MedicalImage, int, "npt.NDArray[np.float32] | None", "BoolArray | None"], Image.Image]
"""Makes a small picture of (image, slice, heat from 0 to 1 in that slice or None, marks in that slice or None)."""


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture.

    Attributes:
        title: Method, or what else it shows.
        notes: Lines below it.
        picture: The picture.
    """

    title: str
    notes: Sequence[str]
    picture: Image.Image


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """One model on one case.

    Attributes:
        model: Model.
        said: What it said of the case.
        tiles: A picture a method.
    """

    model: str
    said: str
    tiles: Sequence[Tile]


@dataclass(frozen=True, eq=False)
class GalleryCase:
    """One case.

    Attributes:
        case: Case.
        finding: Finding whose maps are shown.
        agreement: Mean rank correlation over all pairs of maps; None where there is none.
        image: The image with the marks.
        rows: By model.
    """

    case: Case
    finding: str
    agreement: float | None
    image: Tile
    rows: Sequence[GalleryRow]


def choose_gallery(results: Results, agreed: Agreements, most: int) -> list[Case]:
    """Cases by rising agreement, those without one last; where there are too many, evenly spread over that order."""
    ordered = sorted(
        results.cases,
        key=lambda case: (agreed.by_case[case.key] is None, agreed.by_case[case.key] or 0.0, case.key),
    )
    if len(ordered) <= most:
        return ordered
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, most).round().astype(int))] if most else []


def make_gallery(results: Results, agreed: Agreements, request: Request, draw: DrawTile) -> list[GalleryCase]:
    """Pictures of the chosen cases; an image that can no longer be read is left out."""
    found = []
    for case in choose_gallery(results, agreed, request.gallery):
        items = [item for item in results.found if item.case is case]
        try:
            found.append(_gallery_case(case, items, results, agreed, draw))
        except MediScanError:
            continue
    return found


def _gallery_case(
    case: Case, items: Sequence[Found], results: Results, agreed: Agreements, draw: DrawTile
) -> GalleryCase:
    image = read_image(case.image)
    marked = None if case.region is None else case.region.marked(image.shape[1:])
    first = int(items[0].piece["slice"])
    notes = [] if items[0].area is None else [f"marked: {items[0].area:.1%} of the image".replace("%", " %")]
    return GalleryCase(
        case=case,
        finding=items[0].finding,
        agreement=agreed.by_case[case.key],
        image=Tile("image and marks" if marked is not None else "image", notes, draw(image, first, None, marked)),
        rows=[
            GalleryRow(
                model, _said(items, model), [_tile(i, image, marked, results, draw) for i in items if i.model == model]
            )
            for model in dict.fromkeys(item.model for item in items)
        ],
    )


def _tile(item: Found, image: MedicalImage, marked: BoolArray | None, results: Results, draw: DrawTile) -> Tile:
    at = int(item.piece["slice"])
    heat = (item.grid[at * item.grid.shape[0] // image.shape[0]] / np.float32(item.piece["scale"])).clip(0, 1)
    scores, notes = results.scores(item), []
    if item.grid.max() <= 0:
        notes.append("empty map")
    if scores:
        notes.append("points into the marks" if scores[POINTING] else "points elsewhere")
        if scores[OVERLAP] is not None:
            notes.append(f"IoU {scores[OVERLAP]:.2f}")
    if item.faithfulness:
        better = item.faithfulness["better than random"]
        notes.append("the model leans on it" if better else "no better than random places")
    if item.steadiness is not None:
        notes.append(f"steadiness {item.steadiness:.2f}")
    return Tile(item.method, notes, draw(image, at, heat, marked))


def _said(items: Sequence[Found], model: str) -> str:
    piece = next(item.piece for item in items if item.model == model)
    deferred = ", left to a human" if piece["deferred"] else ""
    return f"probability {piece['probability']:.2f} ({piece['decision']}{deferred})"
