"""Similar cases are the nearest in the space of the novelty, and tell no more than their row does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MediScanLib.network.bundle import load_bundle
from MediScanLib.network.cases import Case
from MediScanLib.network.fusion import average_pool
from MediScanLib.network.novelty import Novelty
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.prediction.similar import similar_cases
from MediScanLib.study.reading import read_image
from MediScanLib.training.cases import case_rows
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.novelty import REFERENCES

CHANNELS = 20


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(30, CHANNELS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def novelty(points) -> Novelty:
    return Novelty.fit(points, dimensions=8)


@pytest.fixture
def cases() -> list[Case]:
    return [Case(f"label {number}", "made", "CC0", image=str(number)) for number in range(30)]


def by_hand(novelty: Novelty, asked: torch.Tensor) -> np.ndarray:
    """Distances (reference,) of one image: along the plane of the references, and out of it as much as that counts."""
    directions = novelty.directions.double()
    centered = asked.double() - novelty.mean.double()
    outside = (centered - centered @ directions.T @ directions).square().sum()
    along = (centered @ directions.T - novelty.references.double()).square().sum(1)
    distances: np.ndarray = (along + novelty.outside.double() * outside).sqrt().numpy()
    return distances


@pytest.mark.parametrize("samples", [1, 3])
def test_they_are_the_nearest_the_nearest_first(novelty, cases, samples) -> None:
    asked = torch.randn(samples, CHANNELS, generator=torch.Generator().manual_seed(1))
    expected = np.mean([by_hand(novelty, one) for one in asked], axis=0)
    found = similar_cases(novelty, cases, asked, limit=2.5, count=7)
    order = np.argsort(expected)[:7]
    assert [case.label for case in found] == [f"label {number}" for number in order]
    assert [case.distance for case in found] == pytest.approx((expected[order] / 2.5).tolist(), rel=1e-4)


def test_a_training_image_finds_itself(novelty, cases) -> None:
    """Those that lie in the plane of the directions, where the distance is only what half precision leaves."""
    there = novelty.references.float() @ novelty.directions + novelty.mean
    for number in range(30):
        first, second = similar_cases(novelty, cases, there[number : number + 1], limit=1.0, count=2)
        assert first.label == f"label {number}"
        assert first.distance < 0.01 < second.distance


def test_what_is_told_is_what_the_row_says(novelty, cases, points) -> None:
    told = Case("covid", "cohen", "CC BY", view="AP", age_years=70, sex="M", image="x")
    bare = Case("cancer", "busi", "not stated")
    found = {case.label: case for case in similar_cases(novelty, [told, bare, *cases[2:]], points[:1], 1.0, 30)}
    assert found["covid"].model_dump(exclude={"distance"}) == {
        **{"label": "covid", "source": "cohen", "licence": "CC BY", "view": "AP"},
        **{"age_years": 70, "sex": "M", "image": "x"},
    }
    assert found["cancer"].image is None
    assert found["cancer"].age_years is None


def test_there_are_never_more_than_there_are(novelty, cases, points) -> None:
    assert len(similar_cases(novelty, cases, points[:1], 1.0)) == 5
    assert len(similar_cases(novelty, cases, points[:1], 1.0, count=99)) == 30
    assert similar_cases(novelty, [], points[:1], 1.0) == []


def test_cases_of_another_model_are_refused(novelty, cases, points) -> None:
    with pytest.raises(ValueError, match="29 cases for 30 references"):
        similar_cases(novelty, cases[1:], points[:1], 1.0)


def test_the_shipped_model_knows_its_own_training_images(shared_data) -> None:
    """And so the rows of the manifest stand in the order of its references."""
    bundle = load_bundle("mediscan-general")
    network = bundle.load_network()
    train = [study for study in read_manifest(shared_data / "studies.csv") if study.split == "train"]
    chosen = np.unique(np.linspace(0, len(train) - 1, REFERENCES).round().astype(int))
    assert network.novelty is not None and bundle.card.novelty is not None
    if len(chosen) != len(network.novelty.references):
        pytest.skip("the shipped model was trained on other studies")
    cases = case_rows([train[number] for number in chosen])
    for number in (0, 700, 1999):
        image = read_image(train[chosen[number]].image)
        with torch.inference_mode():
            pooled = average_pool(network.features(prepare_slices(image, bundle.card.input, (0,)).tensor))
        found = similar_cases(network.novelty, cases, pooled, bundle.card.novelty.threshold)
        assert len(found) == 5
        assert Case(**found[0].model_dump(exclude={"distance"})) == cases[number]
        assert found[0].distance < found[1].distance
