"""What happened in each epoch, as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..writing import atomic_write

Row = Mapping[str, float]


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """CSV with one line an epoch."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


def describe_epoch(row: Row) -> str:
    """One line for a terminal or a log."""
    location = f", location {row['train_location']:.4f}" if row["train_location"] else ""
    return (
        f"epoch {row['epoch']:.0f}: train {row['train_total']:.4f}{location}, val {row['val_loss']:.4f}, "
        f"AUC within source {row['val_within_source_auc']:.4f} "
        f"(image only {row['val_image_only_within_source_auc']:.4f}), {row['seconds']:.0f} s"
    )


def draw_curves(path: Path, rows: Sequence[Row], monitor: str, best_epoch: int) -> None:
    """PNG: losses of both splits on the left, the figure that chose the epoch and the learning rate on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["train_image"] for row in rows], marker=".", label="train, image alone")
    left.plot(epochs, [row["train_clinical"] for row in rows], marker=".", label="train, with clinical values")
    if any(row["train_location"] for row in rows):
        left.plot(epochs, [row["train_location"] for row in rows], marker=".", label="train, evidence outside marks")
    left.plot(epochs, [row["val_loss"] for row in rows], marker=".", label="val (sum of both, weighted)")
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    figure_of = "within_source_auc" if monitor == "last" else monitor
    names = {"within_source_auc": "mean AUC within source, val", "loss": "loss, val"}
    right.plot(epochs, [row[f"val_{figure_of}"] for row in rows], marker=".", color="C2", label=names[figure_of])
    right.set(xlabel="epoch", ylabel=names[figure_of])
    if figure_of == "within_source_auc":
        right.set_ylim(top=min(right.get_ylim()[1], 1.005))
    rate = right.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in rows], color="0.6", linestyle="--", label="learning rate")
    rate.set(ylabel="learning rate", ylim=(0, None))
    for axes in (left, right):
        axes.axvline(best_epoch, color="0.3", linewidth=0.8, label=f"kept: epoch {best_epoch}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 2, "fontsize": 8, "frameon": False}
    left.legend(**below)
    lines = [line for axes in (right, rate) for line in axes.get_lines()]
    right.legend(lines, [str(line.get_label()) for line in lines], **below)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with atomic_write(path) as stream:
        stream.write(buffer.getvalue())
