"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined
from PIL import Image

from ...network.card import Card
from ...notice import RESEARCH_USE_NOTICE
from . import plots
from .answers import INPUTS, Answers
from .binary import HEADLINE, NAMES
from .bootstrap import Figure
from .cases import Case
from .learning import LearningLog
from .page_template import TEMPLATE
from .subgroups import LEAST_OF_A_KIND, SCORED
from .summary import Summary

PICTURE_WIDTH = 960
JPEG_QUALITY = 82
HEADINGS = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1", "AUC-ROC": "AUC-ROC"}


def render_page(
    summary: Summary,
    answers: Answers,
    card: Card,
    pictures: Sequence[tuple[Case, Image.Image]],
    log: LearningLog | None = None,
) -> str:
    """The page. Texts from manifests and cards are escaped; pictures are inside.

    Args:
        summary: All figures.
        answers: What they were made from, for the curves.
        card: Card of the model.
        pictures: Cases with their pictures.
        log: Training log, None without learning curves.
    """
    return (
        page_environment()
        .from_string(TEMPLATE)
        .render(
            summary=summary,
            subject=summary.subject,
            card=card,
            notice=RESEARCH_USE_NOTICE,
            headline=HEADLINE,
            heading=HEADINGS,
            names=[name for name in NAMES if name != "recall"],  # it is the sensitivity
            shown=INPUTS,
            scored=SCORED,
            least=LEAST_OF_A_KIND,
            plots={
                "roc": plots.roc_curves(answers),
                "precision_recall": plots.precision_recall_curves(answers),
                "reliability": plots.reliability_diagrams(answers),
                "confusion": plots.confusion_matrices(answers),
                "across": plots.confusion_across(summary.across),
                "risk_coverage": plots.risk_coverage_curves(summary.selective),
                "severity": plots.severity_scatter(summary.severity),
                "learning": "" if log is None else plots.learning_curves(log),
            },
            pictures=[(case, _jpeg(picture)) for case, picture in pictures],
        )
    )


def page_environment() -> Environment:
    """Where templates are rendered: everything put into them is escaped, and figures know how they are written."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"value": _value, "interval": _interval, "b64": _base64}
    return environment


def _value(figure: Figure) -> str:
    return f"{figure.value:.3f}".replace("-", "−") if math.isfinite(figure.value) else "undefined"


def _interval(figure: Figure) -> str:
    if not math.isfinite(figure.low):
        return ""
    return f"{figure.low:.3f} to {figure.high:.3f}".replace("-", "−")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _jpeg(picture: Image.Image) -> str:
    height = round(picture.height * PICTURE_WIDTH / picture.width)
    stream = io.BytesIO()
    picture.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS).save(
        stream, format="JPEG", quality=JPEG_QUALITY
    )
    return base64.b64encode(stream.getvalue()).decode("ascii")
