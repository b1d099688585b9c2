"""Which distance tells an image that is unlike the training images, and what the plain checks find.

Run: python Testing/benchmarks/bench_novelty.py --data FOLDER --cache build/novelty --output build/novelty.md

Real images are those of the manifest; foreign ones are told in `foreign_images`. Each foreign kind is halved: the
first half is scored beside val, where the distance is chosen, the second beside test, where it is reported. Copies of
one scene count once. "Accepted" is the share of the foreign images nearer than the distance that accepts 95 % of the
real ones. Pooled features are kept in the cache, so that a second run takes seconds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from foreign_images import dicom_images, inverted, noise, of_picture, pictures, screenshot, turned
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from MediScanLib.network.bundle import DEFAULT_BUNDLE, load_bundle
from MediScanLib.network.card import InputSpec
from MediScanLib.network.fusion import FusionNetwork, average_pool
from MediScanLib.network.novelty import Novelty
from MediScanLib.network.presentation import PRESENTATIONS, TURNED, Presentation
from MediScanLib.prediction.plausibility import image_doubts
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import FIELDS
from MediScanLib.training.datasets import Study, read_manifest
from MediScanLib.training.presentation import ACCEPTED, IMAGES, lies_freely, presented

REFERENCES = 2000
SAME_SCENE = 3.0
"""Distance of pooled features under which two foreign images are one scene in two codings."""

CHANGES: Mapping[str, Callable[[MedicalImage], MedicalImage]] = {
    "upside_down": lambda image: turned(image, 2),
    "turned_left": lambda image: turned(image, 1),
    "turned_right": lambda image: turned(image, 3),
    "inverted": inverted,
}
WRONG = {
    **{f"real, {name.replace('_', ' ')}, no limbs": name for name in CHANGES if name in TURNED},
    "real, inverted": "inverted",
}
SCREENS = ("light", "dark", "text")

Score = Callable[[Tensor], Tensor]
Images = Iterable[tuple[str, MedicalImage, Sequence[int]]]


class Extractor:
    """Pooled features of a network, kept in a folder."""

    def __init__(self, network: FusionNetwork, spec: InputSpec, cache: Path) -> None:
        self.network, self.spec, self.cache = network, spec, cache
        cache.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, images: Callable[[], Images], changed: str = "upright") -> tuple[Tensor, list[str]]:
        """(image, C) and the kind of each; `changed` as in training, after preparation."""
        path = self.cache / f"{name}.npz"
        if not path.is_file():
            rows, kinds = [], []
            for kind, image, slices in images():
                tensor = presented(prepare_slices(image, self.spec, slices).tensor, changed, self.spec)
                with torch.inference_mode():
                    rows += [average_pool(self.network.features(one[None]))[0].numpy() for one in tensor]
                kinds += [kind] * len(tensor)
            np.savez(path, x=np.stack(rows), kind=np.array(kinds))
        with np.load(path) as stored:
            return torch.from_numpy(stored["x"]), [str(kind) for kind in stored["kind"]]


def spread(studies: Sequence[Study], most: int) -> list[Study]:
    """So many at most, evenly."""
    return [studies[i] for i in np.unique(np.linspace(0, len(studies) - 1, most).round().astype(int))]


def real(studies: Sequence[Study], change: Callable[[MedicalImage], MedicalImage] | None = None) -> Iterator:
    """Real images of a split, changed or not, by source."""
    for study in studies:
        image = read_image(study.image)
        yield study.source, change(image) if change else image, (0,)


def screens(studies: Sequence[Study], seed: int) -> Iterator:
    """Screenshots of real images."""
    rng = np.random.default_rng(seed)
    for study in studies:
        kind = SCREENS[int(rng.integers(len(SCREENS)))]
        yield f"screenshot, {kind}", screenshot(read_image(study.image), kind, rng), (0,)


def halves(features: Tensor, kinds: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Foreign images by kind, for choosing and for reporting, each scene once."""
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for kind in dict.fromkeys(kinds):
        rows = features[[k == kind for k in kinds]]
        kept: list[int] = []
        for i in range(len(rows)):
            if all((rows[i] - rows[j]).norm() > SAME_SCENE for j in kept):
                kept.append(i)
        middle = -(-len(kept) // 2)
        first[kind] = rows[kept[:middle]]
        if kept[middle:]:
            second[kind] = rows[kept[middle:]]
    return first, second


def methods(known: Tensor, studies: Sequence[Study], network: FusionNetwork, shown: Presentation) -> dict[str, Score]:
    """Every score that is compared, larger for what is less like the training images."""

    @torch.no_grad()
    def logits(pooled: Tensor) -> Tensor:
        nothing = torch.zeros(len(pooled), len(FIELDS))
        return network.head(pooled[:, :, None, None], nothing, nothing.bool()).logits

    sources = np.array([study.source for study in studies])
    labels = np.array([study.label for study in studies])
    single = np.zeros(len(known))
    plain = Novelty.fit(known, outside=1.0)
    chosen = Novelty.fit(known)

    def outside(pooled: Tensor) -> Tensor:
        centered = pooled - plain.mean
        return (centered.square().sum(1) - (centered @ plain.directions.T).square().sum(1)).clamp_min(0).sqrt()

    scale = logits(known).amax(1).mean() / outside(known).mean()
    unit = functional.normalize(known)
    return {
        "maximum softmax": lambda x: -torch.softmax(logits(x), 1).amax(1),
        "energy (Liu et al. 2020)": lambda x: -logits(x).logsumexp(1),
        "Mahalanobis, one Gaussian": mahalanobis(known, plain, single),
        "Mahalanobis, one mean a class (Lee et al. 2018)": mahalanobis(known, plain, labels),
        "Mahalanobis, one mean a source": mahalanobis(known, plain, sources),
        "the same, relative (Ren et al. 2021)": mahalanobis(known, plain, sources, relative=True),
        "fifth nearest, normalized (Sun et al. 2022)": lambda x: nearest(functional.normalize(x), unit, 5),
        "nearest, normalized": lambda x: nearest(functional.normalize(x), unit, 1),
        "nearest": lambda x: nearest(x, known, 1),
        "outside 128 directions": outside,
        "ViM (Wang et al. 2022)": lambda x: scale * outside(x) - logits(x).logsumexp(1),
        "nearest of 128 directions, and outside": plain,
        **{
            f"the same, outside counted {weight:g} times": Novelty.fit(known, outside=weight)
            for weight in (2.0, float(chosen.outside), 8.0)
        },
        "presentation alone": lambda x: shown(x).amax(1),
    }


def nearest(pooled: Tensor, references: Tensor, k: int) -> Tensor:
    """Distance to the k-th nearest reference."""
    return torch.cdist(pooled, references).kthvalue(k, dim=1).values


def mahalanobis(known: Tensor, space: Novelty, groups: npt.NDArray, relative: bool = False) -> Score:
    """Squared distance to the nearest mean of a group with the covariance within groups, slightly shrunk."""
    along = (known - space.mean) @ space.directions.T
    names = sorted(set(groups))
    means = torch.stack([along[groups == name].mean(0) for name in names])
    within = torch.cat([along[groups == name] - means[i] for i, name in enumerate(names)])
    whiten, whole = whitening(within), whitening(along)

    def score(pooled: Tensor) -> Tensor:
        asked = (pooled - space.mean) @ space.directions.T
        near = torch.cdist(asked @ whiten, means @ whiten).amin(1).square()
        return near - (asked @ whole).square().sum(1) if relative else near

    return score


def whitening(rows: Tensor, shrinkage: float = 0.1) -> Tensor:
    """Square root of the inverse covariance, shrunk to a multiple of the identity."""
    covariance = rows.T @ rows / len(rows)
    even = torch.eye(len(covariance)) * covariance.trace() / len(covariance)
    return torch.linalg.cholesky(torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * even))


def auroc(near: Tensor, far: Tensor) -> float:
    """Of telling far from near."""
    return float(roc_auc_score([0] * len(near) + [1] * len(far), torch.cat([near, far]).double().numpy()))


def accepted(near: Tensor, far: Tensor, share: float = 0.95) -> float:
    """Share of far images under the score that accepts this share of near ones."""
    return float((far <= torch.quantile(near, share)).float().mean())


def comparison(scores: Mapping[str, Score], held_out: Tensor, foreign: Mapping[str, Tensor]) -> str:
    """Markdown: methods, mean and worst over the foreign kinds, and each wrong presentation."""
    head = ["score", "mean AUROC", "worst AUROC", "accepted", *(f"{kind} AUROC" for kind in WRONG)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, score in scores.items():
        near = score(held_out)
        kinds = {kind: rows for kind, rows in foreign.items() if kind not in WRONG}
        areas = {kind: auroc(near, score(rows)) for kind, rows in foreign.items()}
        each = [areas[kind] for kind in kinds]
        still = np.mean([accepted(near, score(rows)) for rows in kinds.values()])
        cells = [f"{np.mean(each):.3f}", f"{min(each):.3f}", f"{still:.1%}", *(f"{areas[kind]:.3f}" for kind in WRONG)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_kind(scores: Mapping[str, Score], held_out: Tensor, foreign: Mapping[str, Tensor], gates: Score) -> str:
    """Markdown: foreign kinds, for each score its AUROC and the share still accepted, and what passes the gates."""
    head = ["foreign kind", "images", *(f"{name}: AUROC / accepted" for name in scores), "passes both gates"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for kind, rows in foreign.items():
        cells = []
        for score in scores.values():
            near, far = score(held_out), score(rows)
            cells.append(f"{auroc(near, far):.3f} / {accepted(near, far):.1%}")
        cells.append(f"{float((gates(rows) <= 0).float().mean()):.1%}")
        lines.append(f"| {kind} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plain_checks(studies: Sequence[Study], some: Sequence[Study]) -> str:
    """Markdown: how often each plain check speaks, on real images and on what it is for."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for source, image, _ in real(studies):
        found[f"real, {source}"].append([doubt.code for doubt in image_doubts(image)])
    rng = np.random.default_rng(0)
    for study in some:
        image = read_image(study.image)
        for kind in SCREENS:
            dark = ", CT" if study.modality == "CT" and kind == "text" else ""
            _note(found, f"screenshot, {kind}{dark}", screenshot(image, kind, rng))
        pixels = image.pixels[0]
        _note(found, "seven gray values", of_picture(np.round(pixels / 255 * 6)))
        _note(found, "noise", of_picture(rng.normal(100, 10, pixels.shape)))
        canvas = np.zeros((2 * pixels.shape[0], 2 * pixels.shape[1]))
        canvas[: pixels.shape[0], pixels.shape[1] // 2 : pixels.shape[1] // 2 + pixels.shape[1]] = pixels
        _note(found, "picture in a corner", of_picture(canvas))
        _note(found, "strip of a sixth", of_picture(pixels[: pixels.shape[0] // 6]))
    codes = sorted({code for lists in found.values() for codes in lists for code in codes})
    lines = ["| images | number | any | " + " | ".join(codes) + " |", "| --- " * (3 + len(codes)) + "|"]
    for kind, lists in found.items():
        shares = [np.mean([bool(each) for each in lists]), *(np.mean([c in each for each in lists]) for c in codes)]
        lines.append(f"| {kind} | {len(lists)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return "\n".join(lines) + "\n"


def _note(found: dict[str, list[list[str]]], kind: str, image: MedicalImage) -> None:
    found[kind].append([doubt.code for doubt in image_doubts(image)])


def presentation_table(shown: Presentation, splits: Mapping[str, Mapping[str, tuple[Tensor, list[str]]]]) -> str:
    """Markdown: share of each presentation that is doubted, by split and source."""
    names = ("upright", *CHANGES)
    lines = ["| split | source | " + " | ".join(names) + " |", "| --- " * (2 + len(names)) + "|"]
    for split, each in splits.items():
        sources = sorted(set(each["upright"][1]))
        for source in (*sources, "all"):
            cells = []
            for name in names:
                features, kinds = each[name]
                rows = [source in (kind, "all") for kind in kinds]
                cells.append(f"{float((shown(features[rows]).amax(1) > 0).float().mean()):.1%}")
            lines.append(f"| {split} | {source} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with studies.csv and dicom")
    parser.add_argument("--cache", type=Path, required=True, help="folder for pooled features")
    parser.add_argument("--model", default=DEFAULT_BUNDLE, help="name or folder of a bundle")
    parser.add_argument("--pictures", type=Path, help="skimage/data, where scikit-image is not installed")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file")
    given = parser.parse_args()
    bundle = load_bundle(given.model)
    network, spec = bundle.load_network(), bundle.card.input
    extract = Extractor(network, spec, given.cache)
    studies = read_manifest(given.data / "studies.csv")
    train, val, test = ([s for s in studies if s.split == split] for split in ("train", "val", "test"))

    references = spread(train, REFERENCES)
    known, _ = extract("train", lambda: real(references))
    few = spread(train, IMAGES)
    fitted = [extract(f"train-{name}", lambda: real(few), name)[0] for name in ("upright", *PRESENTATIONS)]
    splits: dict[str, dict[str, tuple[Tensor, list[str]]]] = {}
    for split, members, some in (("val", val, val), ("test", test, spread(test, 381))):
        each = {"upright": extract(split, lambda members=members: real(members))}
        for name, change in CHANGES.items():
            each[name] = extract(f"{split}-{name}", lambda some=some, change=change: real(some, change))
        splits[split] = each
    free = torch.tensor([lies_freely(study) for study in few])
    shown = Presentation.fit(torch.stack(fitted), free).with_limit(splits["val"]["upright"][0], ACCEPTED)

    others = extract("foreign", lambda: chain(dicom_images(given.data), pictures(given.pictures), noise()))
    choosing, reporting = halves(*others)
    limbs = {study.source for study in studies if lies_freely(study)}
    for part, split, members, seed in ((choosing, "val", val, 1), (reporting, "test", test, 2)):
        features, kinds = extract(f"{split}-screens", lambda m=members, s=seed: screens(spread(m, 90), s))
        for kind in sorted(set(kinds)):
            part[kind] = features[[k == kind for k in kinds]]
        for title, name in WRONG.items():
            rows, sources = splits[split][name]
            part[title] = rows[[name not in TURNED or source not in limbs for source in sources]]

    scores = methods(known, references, network, shown)
    held_out, reported = splits["val"]["upright"][0], splits["test"]["upright"][0]
    novelty = Novelty.fit(known)
    limit, old = (torch.quantile(score(held_out), 0.98) for score in (novelty, Novelty.fit(known, outside=1.0)))

    def gates(pooled: Tensor) -> Tensor:
        """Novelty and presentation as the predictor asks them, each with its limit: above 0 where one speaks."""
        return torch.maximum(novelty(pooled) - limit, shown(pooled).amax(1))

    before = "nearest of 128 directions, and outside"
    now = f"the same, outside counted {float(novelty.outside):g} times"
    final = {"before": scores[before], "now": scores[now]}
    far = (novelty(reported) > limit).float().mean()
    wrong = (shown(reported).amax(1) > 0).float().mean()
    either = (gates(reported) > 0).float().mean()
    text = "\n".join(
        [
            f"## Chosen on val ({len(held_out)} images) and half of the foreign images\n",
            comparison(scores, held_out, choosing),
            f"## Reported on test ({len(reported)} images) and the other half\n",
            by_kind(final, reported, reporting, gates),
            f"At the limits from val, {far:.1%} of test are called unlike the training images "
            f"({(scores[before](reported) > old).float().mean():.1%} before), {wrong:.1%} not upright, "
            f"{either:.1%} either.\n",
            "## Presentation: share that is doubted\n",
            presentation_table(shown, splits),
            "## Plain checks on val\n",
            plain_checks(val, spread(val, 70)),
            "## Plain checks on test\n",
            plain_checks(test, spread(test, 70)),
        ]
    )
    given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
