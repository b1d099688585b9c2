"""Pictures of the report, as SVG, one small panel a task."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from .across import AcrossSources
from .answers import CLINICAL_ONLY, FUSED, IMAGE_ONLY, Answers
from .binary import calibration_bins
from .selective import Selective
from .severity import SeverityAgreement
from .within import TaskRows, task_rows

if TYPE_CHECKING:
    from .learning import LearningLog

COLORS = {FUSED: "#0072b2", IMAGE_ONLY: "#e69f00", CLINICAL_ONLY: "#888888"}
"""Of Okabe and Ito, told apart by color-blind readers too."""

_LINES = {FUSED: "-", IMAGE_ONLY: "--", CLINICAL_ONLY: ":"}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.hashsalt": "mediscan",  # the same figures give the same file
}
PANEL_INCHES = (3.3, 3.1)
COLUMNS = 3

Item = TypeVar("Item")


def roc_curves(answers: Answers) -> str:
    """ROC curves of every task by what the model was shown, and the operating point."""

    def draw(axes: Axes, rows: TaskRows) -> None:
        _draw_curves(RocCurveDisplay, axes, rows)
        decided = rows.decided()
        axes.plot(decided[~rows.truth].mean(), decided[rows.truth].mean(), "o", color=COLORS[FUSED], markersize=6)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower right")

    return panels(task_rows(answers), draw, _title)


def _draw_curves(display: type[RocCurveDisplay] | type[PrecisionRecallDisplay], axes: Axes, rows: TaskRows) -> None:
    """One curve for each of what the model was shown."""
    for shown, color in COLORS.items():
        display.from_predictions(
            rows.truth,
            rows.score(shown),
            ax=axes,
            name=shown,
            curve_kwargs={"color": color, "linestyle": _LINES[shown]},
        )


def precision_recall_curves(answers: Answers) -> str:
    """Precision against recall of every task, and the prevalence, which is the precision of guessing."""

    def draw(axes: Axes, rows: TaskRows) -> None:
        _draw_curves(PrecisionRecallDisplay, axes, rows)
        decided = rows.decided()
        if decided.any():
            axes.plot(decided[rows.truth].mean(), rows.truth[decided].mean(), "o", color=COLORS[FUSED], markersize=6)
        axes.axhline(rows.truth.mean(), color="0.8", linewidth=0.8, zorder=0)
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower left")

    return panels(task_rows(answers), draw, _title)


def reliability_diagrams(answers: Answers) -> str:
    """Observed share against probability in ten bins; the area of a dot is the number of studies in its bin."""

    def draw(axes: Axes, rows: TaskRows) -> None:
        predicted, observed, counts = calibration_bins(rows.truth, rows.score())
        full = counts > 0
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.plot(predicted[full], observed[full], color=COLORS[FUSED], linewidth=0.8)
        axes.scatter(predicted[full], observed[full], s=8 + 220 * counts[full] / counts.sum(), color=COLORS[FUSED])
        for x, y, count in zip(predicted[full], observed[full], counts[full], strict=True):
            below = y > 0.9
            axes.annotate(
                f"{count:.0f}",
                (x, y),
                xytext=(0, -9 if below else 9),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=6.5,
                color="0.35",
            )
        axes.set(xlabel=f"probability of {rows.task.positive}", ylabel="observed share")
        axes.set(xlim=(-0.05, 1.05), ylim=(-0.08, 1.08))

    return panels(task_rows(answers), draw, _title)


def confusion_matrices(answers: Answers) -> str:
    """Decisions at the operating point against the truth."""

    def draw(axes: Axes, rows: TaskRows) -> None:
        others = "other" if len(rows.task.negatives) > 1 else rows.task.negatives[0]
        ConfusionMatrixDisplay.from_predictions(
            rows.truth,
            rows.decided(),
            labels=[False, True],
            display_labels=[others, rows.task.positive],
            cmap="Blues",
            colorbar=False,
            ax=axes,
        )
        axes.grid(visible=False)
        axes.set(xlabel="called", ylabel="is")

    return panels(task_rows(answers), draw, _title)


def confusion_across(across: AcrossSources) -> str:
    """Likeliest finding by manifest label over all sources."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(5.2, 4.2), layout="constrained")
        axes = canvas.subplots()
        counts = np.array(across.confusion)
        axes.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(*counts.shape):
            dark = counts[i, j] > 0.5 * counts[i].sum()
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks(range(len(across.labels)), across.labels)
        axes.set_yticks(range(len(across.truth)), across.truth)
        axes.set(xlabel="likeliest finding", ylabel="label in the manifest")
        axes.grid(visible=False)
        return svg_text(canvas)


def risk_coverage_curves(curves: Sequence[Selective]) -> str:
    """Error among the studies kept, the most certain first; the cross is what the model defers by itself."""

    def draw(axes: Axes, curve: Selective) -> None:
        axes.plot(curve.coverage, curve.risk, color=COLORS[FUSED], drawstyle="steps-post")
        kept, error = curve.figures["coverage as deferred"].value, curve.figures["error as deferred"].value
        if math.isfinite(error):
            axes.plot(kept, error, "x", color="#d55e00", markersize=7, label="as deferred")
            axes.legend(loc="upper left")
        axes.set(xlabel="coverage", ylabel="error", xlim=(0, 1.03), ylim=(-0.02, max(0.3, 1.1 * curve.risk.max())))

    return panels(curves, draw, title=lambda curve: f"{curve.task}\n{curve.source}")


def severity_scatter(agreements: Sequence[SeverityAgreement]) -> str:
    """Points given against points of the reference."""

    def draw(axes: Axes, agreement: SeverityAgreement) -> None:
        axes.plot([0, 18], [0, 18], color="0.7", linewidth=0.8)
        axes.scatter(agreement.truth, agreement.values, s=16, alpha=0.7, color=COLORS[FUSED], linewidths=0)
        axes.set(xlabel=agreement.reference, ylabel=agreement.rater, xlim=(-0.7, 18.7), ylim=(-0.7, 18.7))

    return panels(
        agreements,
        draw,
        title=lambda item: f"{item.rater}, n={item.studies}\nr = {item.figures['Pearson r'].value:.2f}",
    )


def learning_curves(log: LearningLog) -> str:
    """Columns of the training log by epoch, one panel a group."""

    def draw(axes: Axes, group: tuple[str, Sequence[str]]) -> None:
        for name in group[1]:
            axes.plot(log.epochs, log.columns[name], marker=".", markersize=4, linewidth=1, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch")
        axes.legend()

    return panels(list(log.groups.items()), draw, title=lambda group: group[0])


def _title(rows: TaskRows) -> str:
    return f"{rows.task.name}\n{rows.task.source}, n={len(rows.rows)} ({int(rows.truth.sum())} positive)"


def panels(items: Sequence[Item], draw: Callable[[Axes, Item], None], title: Callable[[Item], str]) -> str:
    """One panel an item, three in a row, as SVG; "" where there is none."""
    if not items:
        return ""
    columns = min(COLUMNS, len(items))
    rows = math.ceil(len(items) / columns)
    with rc_context(STYLE):
        canvas = Canvas(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
        grid = canvas.subplots(rows, columns, squeeze=False).ravel()
        for axes, item in zip(grid, items, strict=False):
            draw(axes, item)
            axes.set_title(title(item))
        for axes in grid[len(items) :]:
            axes.remove()
        return svg_text(canvas)


def svg_text(canvas: Canvas) -> str:
    """A figure as SVG; the same figure gives the same text."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
