"""A bundle in minutes on a CPU: a frozen ImageNet encoder, and a trained fusion with its two heads.

`python -m MediScanLib.training.frozen --data MANIFEST --output FOLDER` reads the manifest, passes every image through
the encoder once, trains everything behind the encoder on the stored features, calibrates and chooses thresholds on
val, measures on test once, and writes the bundle.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import Config, load_config
from ..errors import DataError
from ..network.bundle import DEFAULT_BUNDLE, save_bundle
from ..network.card import Card, FieldStatistics, InputSpec
from ..network.fusion import FusionNetwork, HeadOutput
from ..prediction.preprocessing import prepare_slices
from ..progress import tracked
from ..study.reading import read_image
from .answering import SplitOutput
from .clinical import clinical_statistics, standardized_records
from .datasets import Study, read_manifest
from .finishing import CardText, input_spec, make_card, usual_peak
from .objective import Targets, TwoPassObjective
from .presence import Mask, PresenceBalancer, Values
from .sampling import balanced_weights

VERSION = "0.1.0"

CAUTIONS = (
    "Each disease was learned from its own data sets: comparing findings across body parts or sources mostly measures "
    "the source. Read the figures within one source.",
    "Labels of nih are mined from reports; of its pneumonia images read again by radiologists, a fifth were normal.",
    "CT slices of iqothnccd carry no case numbers, so that neighbors may stand in different splits: its figures are "
    "too good.",
    "Clinical values are sparse: age and sex are common, laboratory values rare, heart and respiratory rate absent. "
    "Fields that were absent are not used.",
    "The encoder was trained on photographs (ImageNet) and not adapted: heat maps are coarse.",
)

TEXT = CardText(
    name=DEFAULT_BUNDLE,
    version=VERSION,
    title="General five-finding model",
    description=(
        "Normal, pneumonia, COVID-19, fracture or cancer from a chest or limb radiograph, a breast ultrasound or "
        "a lung CT slice, with up to ten clinical values. A first baseline: frozen ImageNet features under a "
        "trained fusion. For research on the software and on explanations, not for any clinical use."
    ),
    weights_licence=(
        "Research use only. Trained in part on images with non-commercial, no-derivatives or unstated licences; "
        "the code's licence does not cover the weights. Initial weights: efficientnet-lite0, ImageNet, Apache-2.0."
    ),
    cautions=CAUTIONS,
)


@dataclass(frozen=True)
class Encoded:
    """Studies after the encoder.

    Attributes:
        studies: Studies.
        pooled: (study, view, channel): the image and its mirror image.
        values: (study, field), standardized.
        known: (study, field).
        targets: Targets.
    """

    studies: Sequence[Study]
    pooled: Tensor
    values: Values
    known: Mask
    targets: Targets


def encode_studies(
    studies: Sequence[Study],
    network: FusionNetwork,
    spec: InputSpec,
    clinical: dict[str, FieldStatistics],
    cache: Path,
) -> Encoded:
    """Everything that training needs of the studies; pooled features are kept in `cache` by image and input."""
    values, known = standardized_records(studies, clinical)
    pooled = _pooled_features(studies, network, spec, cache)
    return Encoded(studies, pooled, values, known, Targets.of(studies))


def train_head(network: FusionNetwork, train: Encoded, val: Encoded, config: Config, seed: int = 0) -> None:
    """Train all but the encoder; keeps the epoch with the lowest loss on val."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    settings = config.training
    weights = balanced_weights(train.studies)
    objective = TwoPassObjective(network, settings)
    balancer = PresenceBalancer(train.studies, train.values, train.known)
    head = [parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(head, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best_loss, best_state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    count = len(train.pooled)
    steps = max(1, settings.epochs * (count // settings.batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps, pct_start=settings.warmup_epochs / settings.epochs
    )
    for _ in range(settings.epochs):
        network.train()
        values, known = (torch.from_numpy(array) for array in balancer.draw(rng))
        order = torch.multinomial(weights, count, replacement=True)
        for batch in order[: count // settings.batch_size * settings.batch_size].split(settings.batch_size):
            features = train.pooled[batch, torch.randint(0, 2, (len(batch),))][..., None, None]
            parts = objective.of_features(features, values[batch], known[batch], train.targets.of_rows(batch))
            optimizer.zero_grad()
            parts.total.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        output = answer(network, val)
        score = objective.validation_loss(output.image_only, output.fused, val.targets)
        if score < best_loss:
            best_loss, best_state, waited = score, copy.deepcopy(network.state_dict()), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    network.load_state_dict(best_state)
    network.eval()


@torch.inference_mode()
def answer(network: FusionNetwork, encoded: Encoded) -> SplitOutput:
    """What the heads say of every study."""
    features = encoded.pooled[:, 0, :, None, None]
    values, known = torch.from_numpy(encoded.values), torch.from_numpy(encoded.known)
    fused: HeadOutput = network.head(features, values, known)
    alone: HeadOutput = network.head(features, torch.zeros_like(values), torch.zeros_like(known))
    return SplitOutput(encoded.studies, fused, alone)


def build_bundle(manifest: Path, output: Path, cache: Path) -> Card:
    """The whole recipe; returns the card of the bundle that it wrote to `output`."""
    studies = read_manifest(manifest)
    config = load_config()
    by_split = {split: [s for s in studies if s.split == split] for split in ("train", "val", "test")}
    for split, members in by_split.items():
        if not members:
            raise DataError(f"{manifest}: no study is in split {split}.")
    torch.manual_seed(0)
    network = FusionNetwork.build(config.model).eval()
    spec = input_spec(by_split["train"], network, config.training.input_size)
    clinical = clinical_statistics(by_split["train"])
    train, val, test = (encode_studies(by_split[split], network, spec, clinical, cache) for split in by_split)
    train_head(network, train, val, config)
    scale = usual_peak(network, _inputs(val.studies, spec), len(val.studies), torch.device("cpu"), _Bar())
    card = make_card(
        TEXT,
        model=config.model,
        spec=spec,
        clinical=clinical,
        train_studies=train.studies,
        outputs={"val": answer(network, val), "test": answer(network, test)},
        heat_map_scale=scale,
    )
    return save_bundle(network, card, output).card


def _inputs(studies: Sequence[Study], spec: InputSpec) -> Iterator[Tensor]:
    return (prepare_slices(read_image(study.image), spec, (0,)).tensor[0] for study in studies)


def _pooled_features(studies: Sequence[Study], network: FusionNetwork, spec: InputSpec, cache: Path) -> Tensor:
    key = hashlib.sha256(
        "\n".join([spec.model_dump_json(), network.encoder.backbone, *(str(s.image) for s in studies)]).encode()
    ).hexdigest()[:16]
    stored = cache / f"features-{key}.npy"
    if stored.is_file():
        return torch.from_numpy(np.load(stored, allow_pickle=False))
    rows = []
    with torch.inference_mode():
        for study in tracked(studies, "features", len(studies), _Bar()):
            tensor = prepare_slices(read_image(study.image), spec, (0,)).tensor
            features = network.features(torch.cat([tensor, tensor.flip(3)]))
            rows.append(features.mean((2, 3)))
    pooled = torch.stack(rows)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(stored, pooled.numpy(), allow_pickle=False)
    return pooled.clone()


class _Bar:
    """A line a tenth of the work."""

    def report(self, stage: str, done: int, total: int) -> None:
        """Print every tenth."""
        if done and (done == total or done % max(1, total // 10) == 0):
            print(f"{stage}: {done} of {total}", flush=True)  # noqa: T201 - a script that talks to a terminal

    def cancelled(self) -> bool:
        """Never."""
        return False


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest (CSV)")
    parser.add_argument("--output", type=Path, required=True, help="folder that will hold the bundle")
    parser.add_argument("--cache", type=Path, default=Path("build/features"), help="where image features are kept")
    arguments = parser.parse_args()
    card = build_bundle(arguments.data, arguments.output, arguments.cache)
    for metric in card.metrics:
        interval = f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"
        print(f"{metric.split:5} {metric.source:14} {metric.task:48} {metric.name:22} {interval}")  # noqa: T201


if __name__ == "__main__":
    main()
