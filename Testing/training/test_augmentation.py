"""Augmentation: what a kind of image may undergo, and the same change for the same seed."""

import json

import pytest
import torch

from MediScanLib.training.augmentation import RANGES, Augmentation, describe, kind_of

SIZE = (48, 48)


def marked() -> torch.Tensor:
    """A bright square, upper left."""
    image = torch.full((1, *SIZE), 0.1)
    image[:, 10:16, 12:18] = 0.9
    return image


def centroid(image: torch.Tensor) -> tuple[float, float]:
    weight = (image[0] > image[0].quantile(0.97)).float()
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SIZE), indexing="ij")
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


@pytest.mark.parametrize("kind", RANGES)
def test_nothing_is_turned_upside_down_and_only_what_has_no_sides_is_mirrored(kind) -> None:
    augmentation = Augmentation(kind, SIZE)
    places = [centroid(augmentation(marked(), seed)) for seed in range(60)]
    assert all(row < 24 for row, _ in places)
    sides = {column < 24 for _, column in places}
    assert sides == ({True, False} if RANGES[kind].mirror else {True})


@pytest.mark.parametrize("kind", RANGES)
def test_the_same_seed_gives_the_same_image(kind) -> None:
    image = marked()
    first = Augmentation(kind, SIZE)(image, 7)
    again = Augmentation(kind, SIZE)
    again(image, 8)  # what came before does not matter
    assert torch.equal(again(image, 7), first)
    assert not torch.equal(again(image, 8), first)
    assert torch.equal(image, marked())
    assert type(first) is torch.Tensor
    assert first.shape == image.shape
    assert first.dtype == torch.float32
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_no_strength_leaves_the_image_alone() -> None:
    assert torch.equal(Augmentation("radiograph", SIZE, strength=0)(marked(), 3), marked())


def test_strength_widens_the_ranges() -> None:
    def spread(strength: float) -> float:
        augmentation = Augmentation("radiograph", SIZE, strength)
        return sum(float((augmentation(marked(), seed) - marked()).abs().mean()) for seed in range(30))

    assert 0 < spread(0.3) < spread(1.0) < spread(2.0)


def test_a_volume_is_turned_within_its_slices_only() -> None:
    volume = torch.zeros(1, 24, 24, 24)
    volume[:, :12] = 0.5
    augmentation = Augmentation("CT", (24, 24, 24))
    for seed in range(20):
        slices = augmentation(volume, seed)[0, :, 6:18, 6:18]
        # an edge between slices stays parallel to them, wherever it goes
        middle = slices[6:18].flatten(1)
        assert float(middle.std(dim=1).max()) < 0.06, seed


@pytest.mark.parametrize(
    ("modality", "body_part", "kind"),
    [
        ("CR", "CHEST", "radiograph"),
        ("DX", "HAND", "limb radiograph"),
        ("CR", "EXTREMITY", "limb radiograph"),
        ("CR", "", "radiograph"),
        ("MG", "BREAST", "mammogram"),
        ("US", "BREAST", "breast ultrasound"),
        ("US", "ABDOMEN", "ultrasound"),
        ("CT", "CHEST", "CT"),
        ("", "", "other"),
    ],
)
def test_kinds(modality, body_part, kind) -> None:
    assert kind_of(modality, body_part) == kind


def test_the_description_is_plain_and_names_what_was_there() -> None:
    described = json.loads(json.dumps(describe({"CT", "radiograph"}, 0.5)))
    assert described["strength"] == 0.5
    assert set(described["ranges"]) == {"CT", "radiograph"}
    assert described["ranges"]["radiograph"]["mirror"] is False
