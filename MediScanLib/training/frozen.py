"""A bundle in minutes on a CPU: a frozen ImageNet encoder, and a trained fusion with its two heads.

`python -m MediScanLib.training.frozen --data MANIFEST --output FOLDER` reads the manifest, passes every image through
the encoder once, trains everything behind the encoder on the stored features, calibrates and chooses thresholds on
val, measures on test once, and writes the bundle.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..config import Config, load_config
from ..errors import DataError
from ..network.bundle import DEFAULT_BUNDLE, save_bundle
from ..network.card import (
    Calibration,
    Card,
    DataSource,
    FieldStatistics,
    Grade,
    InputSpec,
    SeverityScale,
)
from ..network.fusion import FusionNetwork, HeadOutput
from ..prediction.activation import class_activation_maps
from ..prediction.preprocessing import prepare_slices
from ..progress import tracked
from ..study.reading import read_image
from ..study.record import FIELDS
from .calibration import choose_thresholds, fit_temperature
from .datasets import BRIXIA_MAXIMUM, LABELS, Study, read_manifest
from .evaluation import severity_correlation, within_source_auc
from .loss import CompositeLoss
from .presence import PresenceBalancer

FloatArray = npt.NDArray[np.float32]

VERSION = "0.1.0"
INPUT_SIZE = 224
TRAINING_CT_WINDOW = (150.0, 300.0)
"""(center, width) in HU that the 8-bit lung CT slices of the training data look like: fat black, bone white."""

SEVERITY_FINDINGS = ("pneumonia", "covid")
GRADES = (("none", 0.0), ("mild", 0.06), ("moderate", 0.33), ("severe", 0.67))

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


@dataclass(frozen=True)
class Encoded:
    """Studies after the encoder.

    Attributes:
        pooled: (study, view, channel): the image and its mirror image.
        values: (study, field), standardized.
        known: (study, field).
        allowed: (study, label).
        within: (study, label), labels that the study's source has at all.
        severity: (study,), NaN where unknown.
    """

    pooled: Tensor
    values: FloatArray
    known: npt.NDArray[np.bool_]
    allowed: Tensor
    within: Tensor
    severity: Tensor


def clinical_statistics(studies: Sequence[Study]) -> dict[str, FieldStatistics]:
    """Mean, deviation and share of known values by field.

    A field that nobody knows gets the middle of its plausible range; the predictor does not use it.
    """
    encoded = [study.record.encode() for study in studies]
    values, known = (np.stack(column) for column in zip(*encoded, strict=True))
    statistics = {}
    for position, (name, info) in enumerate(FIELDS.items()):
        column = values[known[:, position], position].astype(np.float64)
        statistics[name] = FieldStatistics(
            mean=float(column.mean()) if len(column) else (info.minimum + info.maximum) / 2,
            std=max(float(column.std()), 1e-3) if len(column) > 1 else 1.0,
            known_fraction=len(column) / len(studies),
        )
    return statistics


def encode_studies(
    studies: Sequence[Study],
    network: FusionNetwork,
    spec: InputSpec,
    clinical: dict[str, FieldStatistics],
    cache: Path,
) -> Encoded:
    """Everything that training needs of the studies; pooled features are kept in `cache` by image and input."""
    values, known = (np.stack(column) for column in zip(*(s.record.encode() for s in studies), strict=True))
    means = np.array([field.mean for field in clinical.values()])
    stds = np.array([field.std for field in clinical.values()])
    labels_of = {
        source: torch.tensor([s.allowed for s in studies if s.source == source]).any(0)
        for source in {s.source for s in studies}
    }
    return Encoded(
        pooled=_pooled_features(studies, network, spec, cache),
        values=np.where(known, (values - means) / stds, 0).astype(np.float32),
        known=known,
        allowed=torch.tensor([study.allowed for study in studies]),
        within=torch.stack([labels_of[study.source] for study in studies]),
        severity=torch.tensor([float("nan") if s.severity is None else s.severity for s in studies]),
    )


def train_head(
    network: FusionNetwork, train: Encoded, val: Encoded, train_studies: Sequence[Study], config: Config, seed: int = 0
) -> None:
    """Train all but the encoder; keeps the epoch with the lowest loss on val.

    Two passes a batch. With the clinical values hidden, the network learns all findings from the image. With them
    shown, it learns only what they add between the findings of one source, and is held to its image-only opinion on
    the rest: otherwise "this field is known" would give away the data set, and with it the finding.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    settings = config.training
    weights = _balanced_weights(train_studies)
    loss_function = CompositeLoss(settings.disease_weight, settings.severity_weight, settings.regularization_weight)
    balancer = PresenceBalancer(train_studies, train.values, train.known)
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
            hidden = network.head(features, torch.zeros_like(values[batch]), torch.zeros_like(known[batch]))
            shown = network.head(features, values[batch], known[batch])
            parts = loss_function(hidden.logits, train.allowed[batch], hidden.severity, train.severity[batch])
            inside = shown.logits.masked_fill(~train.within[batch], -1e4)
            clinical = loss_function(inside, train.allowed[batch], shown.severity, train.severity[batch])
            total = parts.total + clinical.total + _outside_divergence(hidden, shown, train.within[batch])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
        score = _validation_loss(network, val, loss_function)
        if score < best_loss:
            best_loss, best_state, waited = score, copy.deepcopy(network.state_dict()), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    network.load_state_dict(best_state)
    network.eval()


@torch.inference_mode()
def answer(network: FusionNetwork, encoded: Encoded, *, clinical: bool = True) -> HeadOutput:
    """Head output on the image and, where `clinical`, the clinical values."""
    values = torch.from_numpy(encoded.values)
    known = torch.from_numpy(encoded.known)
    if not clinical:
        values, known = torch.zeros_like(values), torch.zeros_like(known)
    return network.head(encoded.pooled[:, 0, :, None, None], values, known)


def probabilities_of(output: HeadOutput, temperature: float) -> npt.NDArray[np.float64]:
    """Calibrated probabilities (study, label)."""
    return torch.softmax(output.logits.double() / temperature, dim=1).numpy()


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
    spec = InputSpec(
        size=(INPUT_SIZE, INPUT_SIZE),
        windows={"CT": TRAINING_CT_WINDOW},
        mean=network.encoder.input_mean,
        std=network.encoder.input_std,
        modalities=sorted({study.modality for study in by_split["train"] if study.modality}),
        body_parts=sorted({study.body_part for study in by_split["train"] if study.body_part}),
    )
    clinical = clinical_statistics(by_split["train"])
    train, val, test = (encode_studies(by_split[split], network, spec, clinical, cache) for split in by_split)
    train_head(network, train, val, by_split["train"], config)

    fused = answer(network, val)
    temperature = fit_temperature(fused.logits, val.allowed)
    thresholds = choose_thresholds(by_split["val"], probabilities_of(fused, temperature), "val")
    scale = _usual_peak(network, by_split["val"], spec)
    metrics = []
    for split, encoded in (("val", val), ("test", test)):
        output_fused = answer(network, encoded)
        image_only = probabilities_of(answer(network, encoded, clinical=False), temperature)
        metrics += within_source_auc(by_split[split], probabilities_of(output_fused, temperature), split)
        metrics += within_source_auc(by_split[split], image_only, split, " (image only)")
        severity = torch.sigmoid(output_fused.severity).double().numpy()
        metrics += severity_correlation(by_split[split], severity, split)
    card = Card(
        name=DEFAULT_BUNDLE,
        version=VERSION,
        title="General five-finding model",
        description=(
            "Normal, pneumonia, COVID-19, fracture or cancer from a chest or limb radiograph, a breast ultrasound or "
            "a lung CT slice, with up to ten clinical values. A first baseline: frozen ImageNet features under a "
            "trained fusion. For research on the software and on explanations, not for any clinical use."
        ),
        labels=list(LABELS),
        network=config.model,
        input=spec,
        clinical=clinical,
        calibration=Calibration(temperature=temperature, fitted_on=f"val, {len(by_split['val'])} studies"),
        thresholds=thresholds,
        severity=SeverityScale(
            name="Brixia 0-18",
            maximum=BRIXIA_MAXIMUM,
            grades=[Grade(name=name, start=start) for name, start in GRADES],
            findings=list(SEVERITY_FINDINGS),
        ),
        heat_map_scale=scale,
        data=_data_sources(by_split["train"]),
        weights_licence=(
            "Research use only. Trained in part on images with non-commercial, no-derivatives or unstated licences; "
            "the code's licence does not cover the weights. Initial weights: efficientnet-lite0, ImageNet, Apache-2.0."
        ),
        metrics=metrics,
        cautions=list(CAUTIONS),
    )
    return save_bundle(network, card, output).card


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


def _balanced_weights(studies: Sequence[Study]) -> Tensor:
    """Sampling weights: the labels of a source equally often, a source by the square root of its size."""
    labels = Counter((study.source, study.label) for study in studies)
    sources = Counter(study.source for study in studies)
    kinds = Counter(source for source, _ in labels)
    return torch.tensor([sources[s.source] ** 0.5 / (kinds[s.source] * labels[s.source, s.label]) for s in studies])


def _outside_divergence(hidden: HeadOutput, shown: HeadOutput, within: Tensor) -> Tensor:
    """KL divergence from the image-only opinion on the other sources' findings, the source's own taken as one."""

    def coarse(logits: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits, dim=1)
        own = torch.logsumexp(log_p.masked_fill(~within, -torch.inf), dim=1, keepdim=True)
        return torch.cat([own, log_p.masked_fill(within, -1e4)], dim=1)

    return functional.kl_div(
        coarse(shown.logits), coarse(hidden.logits).detach(), log_target=True, reduction="batchmean"
    )


@torch.inference_mode()
def _validation_loss(network: FusionNetwork, val: Encoded, loss_function: CompositeLoss) -> float:
    network.eval()
    total = 0.0
    for clinical in (False, True):
        output = answer(network, val, clinical=clinical)
        inside = output.logits.masked_fill(~val.within, -1e4)
        total += float(loss_function(inside, val.allowed, output.severity, val.severity).disease)
        total += 0.5 * float(loss_function(output.logits, val.allowed, output.severity, val.severity).disease)
    return total


@torch.inference_mode()
def _usual_peak(network: FusionNetwork, studies: Sequence[Study], spec: InputSpec) -> float:
    """90th percentile over val of the hottest place of the likeliest finding's heat map."""
    peaks = []
    nothing = torch.zeros(1, len(FIELDS))
    for study in tracked(studies, "heat-map scale", len(studies), _Bar()):
        features = network.features(prepare_slices(read_image(study.image), spec, (0,)).tensor)
        result = class_activation_maps(network, features, nothing, nothing.bool())
        peaks.append(float(result.maps[0, int(result.logits.argmax())].max()))
    return max(float(np.percentile(peaks, 90)), 1e-6)


def _data_sources(studies: Sequence[Study]) -> list[DataSource]:
    sources = []
    for source in sorted({study.source for study in studies}):
        members = [study for study in studies if study.source == source]
        licences = sorted({study.licence or "not stated" for study in members})
        sources.append(DataSource(name=source, licence="; ".join(licences), studies=len(members)))
    return sources


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
