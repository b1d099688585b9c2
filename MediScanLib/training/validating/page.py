"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from ...notice import RESEARCH_USE_NOTICE
from ..evaluating.bootstrap import Figure
from ..evaluating.page import page_environment
from ..evaluating.randomization import STAGES
from .agreement import Agreement
from .explaining import PERTURBATIONS
from .gallery import GalleryCase
from .grids import CHANCE_OVERLAP, MOST_CELLS
from .page_template import TEMPLATE
from .plots import stress_curves
from .quality import COMPARED
from .stress import AS_IS, BLACK, HIDDEN, OPPOSITE, SWAPPED
from .stress_figures import AUC, DEFERRED
from .summary import Summary

JPEG_QUALITY = 82

Matrix = tuple[str, str, list[str], dict[tuple[str, str], Agreement]]


def render_page(summary: Summary, gallery: Sequence[GalleryCase]) -> str:
    """The page. Texts from manifests and cards are escaped; pictures are inside.

    Args:
        summary: All figures.
        gallery: Cases with their pictures.
    """
    environment = page_environment()
    environment.filters |= {"jpeg": _jpeg, "shade": _shade}
    models = [model.name for model in summary.subject.models]
    measured = {name for row in summary.differences for name in row.figures}
    return environment.from_string(TEMPLATE).render(
        summary=summary,
        subject=summary.subject,
        notice=RESEARCH_USE_NOTICE,
        several=len(models) > 1,
        marked=any(row.area is not None for row in summary.methods),
        everything_shuffled=_everything_shuffled(summary),
        perturbations=PERTURBATIONS,
        compared=[name for name in COMPARED if name in measured],
        matrices=_matrices(summary.agreement),
        cells=" × ".join(str(cells) for cells in MOST_CELLS[1:]),
        chance=CHANCE_OVERLAP,
        stress_plots=[
            (name, {"auc": stress_curves(own, AUC), "deferred": stress_curves(own, DEFERRED)})
            for name in models
            if (own := [point for point in summary.stress if point.model == name])
        ],
        plain_conditions=(AS_IS, HIDDEN, BLACK, OPPOSITE, SWAPPED),
        gallery=gallery,
        case_count=sum(summary.subject.cases.values()),
        has_agreement=any(item.agreement is not None for item in gallery),
    )


def _everything_shuffled(summary: Summary) -> dict[tuple[str, str], Figure]:
    return {
        (row.model, row.method): row.similarity
        for row in summary.shuffled
        if row.stage == STAGES[-1] and row.similarity is not None
    }


def _matrices(table: Sequence[Agreement]) -> list[Matrix]:
    found = []
    for kind, within in dict.fromkeys((row.kind, row.within) for row in table):
        own = [row for row in table if (row.kind, row.within) == (kind, within)]
        names = list(dict.fromkeys(name for row in own for name in (row.first, row.second)))
        pairs = {(row.first, row.second): row for row in own}
        found.append((kind, within, names, pairs | {(row.second, row.first): row for row in own}))
    return found


def _shade(value: float) -> str:
    """A background from white (0 and below) to blue (1), light enough for black text."""
    share = min(max(value, 0.0), 1.0)
    return f"rgb({255 - round(90 * share)},{255 - round(50 * share)},{255 - round(12 * share)})"


def _jpeg(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, format="JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
