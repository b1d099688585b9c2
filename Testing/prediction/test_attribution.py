"""Contributions of clinical values are what their definition says, and add up to the prediction."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError
from MediScanLib.network.card import Calibration
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction import attribution
from MediScanLib.prediction.attribution import attribute, coalition_logits, log_odds, seen_by_head, shapley
from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Prediction
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import FIELDS, ClinicalRecord
from toys import LABELS, make_random_predictor

FUSIONS = ["gated", "attention"]
CALIBRATION = Calibration(scale=[1.3, 0.8, 1.0, 1.1, 0.9], shift=[0.1, -0.2, 0.0, 0.3, 0.0], fitted_on="nothing")
RECORD = ClinicalRecord(age_years=81, sex="M", temperature_c=39.5, spo2_percent=84, crp_mg_per_l=210)


def network_of(fusion: str, spatial_dims: int = 2) -> FusionNetwork:
    return make_random_predictor(fusion, spatial_dims).network.double()


def image_of(slices: int = 1, seed: int = 0) -> MedicalImage:
    pixels = np.random.default_rng(seed).random((slices, 40, 48), dtype=np.float32)
    return MedicalImage(pixels, spacing=(1.0, 1.0, 2.0), source="noise")


def all_coalitions(known: torch.Tensor) -> list[torch.Tensor]:
    """Every subset of the known fields, as masks."""
    fields = known.nonzero().squeeze(1).tolist()
    masks = []
    for size in range(len(fields) + 1):
        for some in itertools.combinations(fields, size):
            mask = torch.zeros_like(known)
            mask[list(some)] = True
            masks.append(mask)
    return masks


# the definition


@settings(max_examples=30, deadline=None)
@given(worth=arrays(np.float64, (16, 2), elements=st.floats(-5, 5)))
def test_a_value_is_the_mean_gain_over_all_orders_of_arrival(worth) -> None:
    gains = np.zeros((4, 2))
    for order in itertools.permutations(range(4)):
        there = 0
        for player in order:
            gains[player] += worth[there | 1 << player] - worth[there]
            there |= 1 << player
    np.testing.assert_allclose(shapley(worth), gains / math.factorial(4), atol=1e-12)


def test_no_player_no_value() -> None:
    assert shapley(np.ones((1, 3))).shape == (0, 3)


def test_log_odds_are_exact_near_one_and_finite_at_the_ends() -> None:
    odds = log_odds(np.array([[1 - 1e-20, 1e-20], [1.0, 0.0], [0.25, 0.75]]))
    assert odds[0] == pytest.approx([20 * math.log(10), -20 * math.log(10)])
    assert np.isfinite(odds).all()
    assert odds[2, 0] == pytest.approx(math.log(0.25 / 0.75))


# the head without the head


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_coalitions_are_answered_as_the_head_answers(fusion, spatial_dims, monkeypatch) -> None:
    network = network_of(fusion, spatial_dims)
    features = torch.randn(3, network.encoder.out_channels, *[4, 5, 3][:spatial_dims], dtype=torch.float64)
    values = torch.randn(len(FIELDS), dtype=torch.float64)
    known = torch.tensor([True, False, True, True, False, False, True, False, True, False])
    values[~known] = float("nan")
    observed = torch.stack(all_coalitions(known))
    with torch.no_grad():
        expected = torch.stack(
            [
                network.head(
                    one.expand(len(observed), *features.shape[1:]), values.expand(len(observed), -1), observed
                ).logits
                for one in features
            ]
        )
    assert expected.std(dim=1).min() > 0.01, "the clinical values matter"
    seen = seen_by_head(network, features)
    for most in (attribution._MOST_WEIGHTS, 1):  # at once, and one coalition after another
        monkeypatch.setattr(attribution, "_MOST_WEIGHTS", most)
        torch.testing.assert_close(coalition_logits(network, seen, values, observed), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_dominating_token_leaves_everything_finite(fusion) -> None:
    network = network_of(fusion).float()
    features = torch.randn(1, network.encoder.out_channels, 3, 3)
    if fusion == "attention":
        with torch.no_grad():
            network.fusion.attention.in_proj_weight.mul_(200)
    observed = torch.stack(all_coalitions(torch.ones(len(FIELDS), dtype=torch.bool)))
    logits = coalition_logits(network, seen_by_head(network, features), torch.full((10,), 50.0), observed)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_contributions_add_up_and_start_from_nothing_known(fusion, slices) -> None:
    """Against the head itself in double precision, for one image and for the mean over neighboring slices."""
    network = network_of(fusion)
    features = torch.randn(slices, network.encoder.out_channels, 4, 4, dtype=torch.float64)
    values, known = torch.randn(len(FIELDS), dtype=torch.float64), torch.arange(len(FIELDS)) % 3 > 0

    def odds(mask: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = network.head(features, values.expand(slices, -1), mask.expand(slices, -1)).logits
        return log_odds(calibrated_probabilities(logits, CALIBRATION).numpy().mean(0))

    with torch.no_grad():
        logits = network.head(features, values.expand(slices, -1), known.expand(slices, -1)).logits
    probabilities = calibrated_probabilities(logits, CALIBRATION).numpy().mean(0)
    found = attribute(network, seen_by_head(network, features), values, known, CALIBRATION, probabilities)
    assert found.fields.tolist() == known.nonzero().squeeze(1).tolist()
    np.testing.assert_allclose(found.unknown + found.added.sum(0), odds(known), atol=1e-9)
    np.testing.assert_allclose(found.unknown, odds(torch.zeros_like(known)), atol=1e-9)
    masks = all_coalitions(known)
    worth = {tuple(mask.tolist()): odds(mask) for mask in masks}
    first, count = int(found.fields[0]), int(known.sum())
    by_hand = np.zeros(len(LABELS))
    for mask in masks:
        if not mask[first]:
            grown = mask.clone()
            grown[first] = True
            size = int(mask.sum())
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            by_hand += weight * (worth[tuple(grown.tolist())] - worth[tuple(mask.tolist())])
    np.testing.assert_allclose(found.added[0], by_hand, atol=1e-9)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_field_that_changes_nothing_adds_nothing(fusion) -> None:
    network = network_of(fusion)
    tokens = network.fusion.clinical.tokens if fusion == "gated" else network.fusion.clinical_tokens
    with torch.no_grad():
        tokens.scale[2] = 0
        tokens.shift[2] = tokens.unknown[2]
        if fusion == "gated":
            network.fusion.clinical.layers[0].weight[:, 8 * len(FIELDS) + 2] = 0  # its place in the mask
    features, values = torch.randn(1, network.encoder.out_channels, 4, 4).double(), torch.randn(10).double()
    known = torch.arange(10) < 5
    found = attribute(network, seen_by_head(network, features), values, known, None, np.full(5, 0.2))
    assert np.abs(found.added[2]).max() < 1e-12
    assert np.abs(np.delete(found.added, 2, axis=0)).min(axis=1).min() > 1e-6


# in a prediction


def stated(prediction: Prediction) -> dict[str, float]:
    """Log-odds by finding, from the probabilities."""
    return {label: math.log(p / (1 - p)) for label, p in prediction.probabilities.items()}


@pytest.mark.parametrize(("spatial_dims", "slices"), [(2, 1), (2, 7), (3, 6)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_prediction_says_what_its_clinical_values_did(fusion, spatial_dims, slices) -> None:
    predictor = make_random_predictor(fusion, spatial_dims, volume_slices=3, calibration=CALIBRATION)
    prediction = predictor(image_of(slices), RECORD)
    parts = prediction.clinical.contributions
    assert [part.finding for part in parts] == LABELS
    assert [list(part.fields) for part in parts] == [list(prediction.clinical.used)] * len(LABELS)
    sums = {part.finding: part.unknown + sum(part.fields.values()) for part in parts}
    assert sums == pytest.approx(stated(prediction), abs=1e-9)
    if slices == 1 or spatial_dims == 3:  # else the slices that stand for the study may be others
        bare = stated(predictor(image_of(slices), ClinicalRecord()))
        assert {part.finding: part.unknown for part in parts} == pytest.approx(bare, abs=1e-5)
    assert max(abs(added) for part in parts for added in part.fields.values()) > 0.05
    again = Prediction.from_json(prediction.to_json())
    assert again.clinical == prediction.clinical


def test_the_slices_that_stand_for_a_volume_stay_the_same() -> None:
    predictor = make_random_predictor("gated", volume_slices=3)
    prediction = predictor(image_of(9), RECORD)
    first = int(prediction.volume_rule.split("slices ")[-1].split()[0])
    run = predictor(image_of(9), ClinicalRecord(), slices=range(first, first + 3))
    assert {part.finding: part.unknown for part in prediction.clinical.contributions} == pytest.approx(
        stated(run), abs=1e-5
    )


def test_values_that_are_not_used_contribute_nothing() -> None:
    predictor = make_random_predictor("gated")
    image = image_of()
    assert predictor(image, ClinicalRecord()).clinical.contributions == []
    assert predictor(image, ClinicalRecord(heart_rate_per_min=150)).clinical.contributions == [], "never learned"
    both = predictor(image, ClinicalRecord(heart_rate_per_min=150, temperature_c=40)).clinical
    assert [list(part.fields) for part in both.contributions] == [["temperature_c"]] * len(LABELS)


def test_one_known_value_adds_the_whole_difference() -> None:
    predictor = make_random_predictor("gated")
    hot, unknown = (predictor(image_of(), ClinicalRecord(temperature_c=value)) for value in (41, None))
    for part in hot.clinical.contributions:
        difference = stated(hot)[part.finding] - stated(unknown)[part.finding]
        assert part.fields["temperature_c"] == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_batch_says_the_same(fusion) -> None:
    predictor = make_random_predictor(fusion, settings=InferenceConfig(max_batch_size=3))
    records = [RECORD, ClinicalRecord(), None, ClinicalRecord(crp_mg_per_l=5)]
    studies = [(image_of(seed=i), record) for i, record in enumerate(records)]
    for (image, record), batched in zip(studies, predictor.predict_batch(studies), strict=True):
        alone = predictor(image, record).clinical.contributions
        assert len(batched.clinical.contributions) == len(alone)
        for one, other in zip(batched.clinical.contributions, alone, strict=True):
            assert one.fields == pytest.approx(other.fields, abs=1e-5)
            assert one.unknown == pytest.approx(other.unknown, abs=1e-5)


def test_a_prediction_from_before_still_reads() -> None:
    content = json.loads(make_random_predictor("gated")(image_of(), RECORD).to_json())
    del content["clinical"]["contributions"]
    assert Prediction.from_json(json.dumps(content)).clinical.contributions == []


def test_contributions_that_are_no_number_are_an_error() -> None:
    predictor = make_random_predictor("gated")
    with torch.no_grad():
        predictor.network.fusion.clinical.tokens.unknown[2] = float("nan")
    known = {name: value for name, value in RECORD.known.items() if name != "temperature_c"}
    full = ClinicalRecord(
        **known,
        temperature_c=38,
        respiratory_rate_per_min=20,
        leukocytes_1e9_per_l=8,
        neutrophils_1e9_per_l=5,
        lymphocytes_1e9_per_l=2,
    )
    with pytest.raises(BundleError, match="not a number"):
        predictor(image_of(), full)


def test_a_real_radiograph_by_the_shipped_model(shared_data) -> None:
    image = read_image(sorted((shared_data / "images" / "nih").iterdir())[0])
    prediction = Predictor.load(device="cpu")(image, RECORD)
    parts = prediction.clinical.contributions
    assert {part.finding: part.unknown + sum(part.fields.values()) for part in parts} == pytest.approx(
        stated(prediction), abs=1e-9
    )
    assert set(parts[0].fields) == set(prediction.clinical.used)
