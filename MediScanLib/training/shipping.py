"""The bundle that comes with MediScan, from the manifest to its card.

`python -m MediScanLib.training.shipping --data MANIFEST --config RECIPE --run FOLDER --output FOLDER` trains by the
recipe, asks about test once, and adds the figures of a cross-validation that `mediscan evaluate --folds` measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import load_config
from ..errors import DataError
from ..network.bundle import DEFAULT_BUNDLE, Bundle, save_bundle
from ..network.card import Metric
from ..prediction.devices import resolve_device
from ..progress import CallbackProgress
from .answering import Split, answer_split
from .datasets import read_manifest
from .evaluating.answers import FUSED
from .evaluating.localization import MODEL, POINTING
from .finishing import CardText, figures
from .history import describe_epoch
from .loading import PreparedImages
from .recipe import TrainingRun, finished_bundle, train_bundle
from .regions import MarkFiles
from .trainer import LAST

TEXT = CardText(
    name=DEFAULT_BUNDLE,
    version="0.5.0",
    title="General five-finding model",
    description=(
        "Normal, pneumonia, COVID-19, fracture or cancer from a chest or limb radiograph, a breast ultrasound or "
        "a lung CT slice, with up to ten clinical values. For research on the software, on explanations and on "
        "validation, not for any clinical use."
    ),
    weights_licence=(
        "Research use only. Trained in part on images with non-commercial, no-derivatives or unstated licences; "
        "the code's licence does not cover the weights. Initial weights: efficientnet-lite0, ImageNet, Apache-2.0."
    ),
    cautions=(
        "Each disease was learned from its own data sets: comparing findings across body parts or sources mostly "
        "measures the source. Read the figures within one source.",
        "Probabilities are calibrated on a mixture of sources in which findings are more, or less, common than where "
        "you work. Read the operating points, or calibrate anew.",
        "Labels of nih are mined from reports; of its pneumonia images read again by radiologists, a fifth were "
        "normal. The view and the follow-up number alone tell pneumonia from normal with an AUC of 0.77.",
        "In nih the mean response of forty small filters alone tells pneumonia from normal with an AUC of 0.91. Heat "
        "maps of pneumonia and covid were therefore taught where readers marked training images, and point there in "
        "new ones (5-fold: 0.73 of boxed images). Those of fracture and cancer were not taught: nobody checked them.",
        "Fractures in bone_roboflow are not told from its normal images, of which there are few (5-fold AUC 0.57), "
        "and covid is told from other pneumonias only a little (cohen, 0.67).",
        "In bone_eeeh the size of the crop alone tells fractures with an AUC of 0.87, that of the file with 0.94; "
        "bone_roboflow has 41 normal images of 16 patients.",
        "CT slices of iqothnccd carry no case numbers, so that neighbors may stand in different splits: its figures "
        "are too good.",
        "Clinical values are sparse: age and sex are common, laboratory values rare, heart and respiratory rate "
        "absent. Fields that were absent are not used.",
    ),
)

CROSS_VALIDATION = "5-fold"


def ship(
    manifest: Path, config: Path, folder: Path, output: Path, cross_validation: Path | None, marks: MarkFiles
) -> Bundle:
    """Train, or go on, or take what is trained; measure test; write the bundle.

    Args:
        manifest: Manifest with train, val and test.
        config: Recipe (YAML).
        folder: Of the training run; may hold an interrupted or a finished one.
        output: Folder that will hold the bundle.
        cross_validation: metrics.json of `mediscan evaluate --folds`, None to leave its figures out.
        marks: Readers' boxes and masks to teach the heat maps with.

    Raises:
        DataError: The manifest has no test split, or the figures are of another recipe's kind.
    """
    studies = [study for study in read_manifest(manifest) if study.split == "test"]
    if not studies:
        raise DataError(f"{manifest}: no study is in split test, so that the card would have no figures.")
    further = [] if cross_validation is None else crossed_figures(cross_validation)
    cache, device = folder / "cache", resolve_device("auto")
    last = folder / LAST
    resume = last if last.is_file() else None
    run = TrainingRun(manifest, folder, load_config(config), TEXT.name, cache, resume, text=TEXT, marks=marks)
    trained = finished_bundle(run) or train_bundle(
        run,
        device,
        progress=CallbackProgress(lambda *_: None),
        on_epoch=lambda row: print(describe_epoch(row), flush=True),  # noqa: T201
    )
    assert trained is not None  # there is one process only
    card, network = trained.card, trained.load_network()
    assert card.calibration is not None  # `make_card` always fits one
    split = Split.of(studies, PreparedImages(studies, card.input, cache), dict(card.clinical))
    tested = figures(answer_split(network.to(device), split, card.input, device), card.calibration, "test")
    words = {key: value for key, value in dataclasses.asdict(TEXT).items() if key != "name"}
    card = card.model_copy(update={**words, "cautions": list(TEXT.cautions)})
    card = card.model_copy(update={"metrics": [*further, *tested, *card.metrics]})
    return save_bundle(network.cpu(), card, output, trained.load_cases(network))


def crossed_figures(path: Path) -> list[Metric]:
    """What a card says of a cross-validation, from its metrics.json.

    AUC-ROC and calibration error by task, the correlation of the severity, and how often maps point inside the marks.

    Raises:
        DataError: The file is no such evaluation.
    """
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (name, row["task"], row["source"], row["studies"], row["figures"][name])
            for name in ("AUC-ROC", "ECE")
            for row in found["within_source"]
        ]
        rows += [
            (
                "Pearson r",
                "severity against the readers' mean Brixia score",
                row["source"],
                row["studies"],
                row["figures"]["Pearson r"],
            )
            for row in found["severity"]
            if row["rater"] == FUSED
        ]
        rows += [
            (POINTING, f"map of {row['label']}", row["group"], row["images"], row["figures"][POINTING])
            for row in found["localization"]
            if row["rater"] == MODEL
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not metrics.json of `mediscan evaluate` ({error!r}).") from error
    return [
        Metric(
            name=name,
            task=task,
            source=source,
            split=CROSS_VALIDATION,
            studies=studies,
            **{key: _rounded(figure[key]) for key in ("value", "low", "high")},
        )
        for name, task, source, studies, figure in rows
    ]


def _rounded(value: float | None) -> float:
    return math.nan if value is None else round(value, 4)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest (CSV)")
    parser.add_argument("--config", type=Path, required=True, help="recipe (YAML)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--output", type=Path, required=True, help="folder that will hold the bundle")
    parser.add_argument("--boxes", type=Path, help="readers' boxes (CSV) to teach the heat maps with")
    parser.add_argument("--lesions", type=Path, help="readers' masks (CSV) to teach the heat maps with")
    parser.add_argument("--cross-validation", type=Path, help="metrics.json of mediscan evaluate --folds")
    given = parser.parse_args()
    marks = MarkFiles(given.boxes, given.lesions)
    bundle = ship(given.data, given.config, given.run, given.output, given.cross_validation, marks)
    for metric in bundle.card.metrics:
        interval = f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"
        print(f"{metric.split:6} {metric.source:14} {metric.task:48} {metric.name:22} {interval}")  # noqa: T201


if __name__ == "__main__":
    main()
