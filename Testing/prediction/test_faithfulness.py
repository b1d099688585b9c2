"""Faithfulness: a map that shows what the model leans on is told from one that shows something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from MediScanLib.errors import CancelledError, UsageError
from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.prediction.explanations import Explanation, explain, faithfulness
from MediScanLib.prediction.explanations.blurring import hidden
from MediScanLib.prediction.explanations.hiding import EMPTY, NO_BETTER, Curves
from MediScanLib.prediction.explanations.orders import elsewhere, hottest_first
from MediScanLib.prediction.explanations.places import Places
from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_clinical, prepare_slices, prepare_volume
from MediScanLib.progress import CallbackProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord
from toys import make_predictor, make_random_predictor

SQUARE = (slice(12, 28), slice(36, 52))


def rough_square(shape=(1, 64, 64), place=SQUARE) -> MedicalImage:
    """Faint noise, and strong noise in a square: what a blur takes away, as it does with a finding."""
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pixels[(..., *place)] *= 20
    return MedicalImage(pixels, source="square")


def make_rough_predictor(dims: int = 2, size: tuple[int, ...] = (64, 64)) -> Predictor:
    """It sees pneumonia where the image is rough."""
    predictor = make_predictor(dims, size)
    convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 1, 3, padding=1, padding_mode="replicate", bias=False)
    with torch.no_grad():
        convolution.weight.fill_(-1 / (3**dims - 1))
        convolution.weight[(0, 0, *[1] * dims)] = 1  # a pixel less its neighbours
        predictor.network.disease.weight.mul_(0.5)
    layers = predictor.network.encoder.layers
    predictor.network.encoder.layers = nn.Sequential(convolution, nn.ReLU(), layers)
    return predictor


def with_values(explanation: Explanation, values: np.ndarray) -> Explanation:
    values = np.broadcast_to(values, explanation.maps.values.shape).astype(np.float32)
    return replace(explanation, maps=replace(explanation.maps, values=values))


def shuffled(explanation: Explanation, seed: int) -> Explanation:
    values = explanation.maps.values
    return with_values(explanation, np.random.default_rng(seed).permutation(values.reshape(-1)).reshape(values.shape))


@pytest.fixture(scope="module")
def predictor():
    return make_rough_predictor()


@pytest.fixture(scope="module")
def explanation(predictor):
    return explain(predictor, rough_square(), findings=["pneumonia"])


def test_a_map_on_the_square_is_better_than_random(predictor, explanation):
    found = faithfulness(predictor, rough_square(), None, explanation, "pneumonia")
    assert found.better_than_random
    assert (found.finding, found.method) == ("pneumonia", "gradcam")
    assert found.deletion < found.random_deletion
    assert found.insertion > found.random_insertion
    assert found.verdict.startswith("Hiding the hottest fifth of the places lowers the probability from 0.")
    before, after, elsewhere_ = (float(word.strip(".;")) for word in found.verdict.split() if word[0].isdigit())
    assert after < elsewhere_ < before


def test_a_map_beside_the_square_is_not(predictor, explanation):
    turned = with_values(explanation, explanation.maps.values[..., ::-1, ::-1])
    found = faithfulness(predictor, rough_square(), None, turned, "pneumonia", steps=10)
    assert not found.better_than_random
    assert found.verdict == NO_BETTER


def test_shuffled_maps_pass_as_rarely_as_promised(predictor, explanation):
    """With ten random orders one in 22."""
    passed = [
        faithfulness(
            predictor, rough_square(), None, shuffled(explanation, seed), "pneumonia", steps=4, seed=seed
        ).better_than_random
        for seed in range(30)
    ]
    assert sum(passed) <= 5  # P(more) < 0.003


def test_smooth_maps_that_know_nothing_pass_as_rarely(predictor, explanation):
    """Against single cells in random order they would pass far more often."""
    heat = explanation.maps.raw("pneumonia")[0].astype(np.float64)
    passed = []
    for seed in range(30):
        nothing = elsewhere(heat, np.random.default_rng(1000 + seed))
        fake = with_values(explanation, nothing - nothing.min())
        found = faithfulness(predictor, rough_square(), None, fake, "pneumonia", steps=4, seed=seed)
        passed.append(found.better_than_random)
    assert sum(passed) <= 5


def test_one_step_is_the_mean_of_everything_and_nothing(predictor, explanation):
    image = rough_square()
    found = faithfulness(predictor, image, None, explanation, "pneumonia", steps=1)
    assert found.deletion == pytest.approx(found.insertion)
    assert found.random_deletion == pytest.approx(found.deletion)
    assert not found.better_than_random
    heard = []
    faithfulness(
        predictor,
        image,
        None,
        explanation,
        "pneumonia",
        steps=5,
        random_orders=3,
        progress=CallbackProgress(lambda *said: heard.append(said)),
    )
    assert heard[-1] == ("faithfulness", 2 + 4 * 2 * 4, 2 + 4 * 2 * 4)
    assert predictor(image).probabilities["pneumonia"] / 2 < found.deletion < 1


def test_curves_by_hand():
    curves = Curves(np.array([0.9, 0.3, 0.1]), np.array([0.1, 0.7, 0.9]))
    assert curves.deletion == pytest.approx((0.9 + 2 * 0.3 + 0.1) / 4)
    assert curves.insertion == pytest.approx((0.1 + 2 * 0.7 + 0.9) / 4)
    assert curves.backwards.gain == pytest.approx(-curves.gain)
    assert curves.backwards.hiding.tolist() == [0.9, 0.7, 0.1]


def test_the_curve_is_that_of_the_network():
    """Half of the places hidden by hand, in an image on the network's own grid."""
    predictor = make_random_predictor("gated")
    image = MedicalImage(np.random.default_rng(1).random((1, 32, 32), dtype=np.float32), source="noise")
    top = np.zeros((1, 1, 4, 4), np.float32)
    top[..., :2, :] = [[2], [1]]  # the upper half
    found = faithfulness(
        predictor,
        image,
        ClinicalRecord(age_years=50),
        with_values(explain(predictor, image, findings=["covid"]), top),
        "covid",
        steps=2,
        random_orders=1,
    )
    card = predictor.bundle.card
    tensor = prepare_slices(image, card.input, [0]).tensor
    blank = hidden(tensor)
    upper, lower = tensor.clone(), tensor.clone()
    upper[..., :16, :], lower[..., 16:, :] = blank[..., :16, :], blank[..., 16:, :]
    values, observed = prepare_clinical([ClinicalRecord(age_years=50)] * 4, card)
    with torch.no_grad():
        logits = predictor.network(torch.cat([tensor, upper, lower, blank]), values, observed).logits
    intact, no_top, no_bottom, nothing = calibrated_probabilities(logits, card.calibration)[:, 2].tolist()
    assert found.deletion == pytest.approx((intact + 2 * no_top + nothing) / 4, abs=1e-6)
    assert found.insertion == pytest.approx((nothing + 2 * no_bottom + intact) / 4, abs=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_volumes(dims):
    """A 2D network is asked about the slice where the map is hottest, a 3D network about the whole."""
    pixels = np.random.default_rng(0).normal(size=(12, 40, 40)).astype(np.float32)
    pixels[7:10, 5:15, 20:30] *= 30
    image = MedicalImage(pixels, (1.0, 1.0, 40 / 12), source="cube")  # fills the input
    predictor = make_rough_predictor(dims, (32,) * dims)
    found = explain(predictor, image, findings=["pneumonia"], slices=None if dims == 3 else [2, 8])
    passes = []
    answer = faithfulness(
        predictor, image, None, found, "pneumonia", progress=CallbackProgress(lambda *said: passes.append(said))
    )
    assert answer.better_than_random
    assert passes[-1][1] == 2 + 11 * 2 * 19
    turned = with_values(found, found.maps.values[..., ::-1, ::-1])
    assert not faithfulness(predictor, image, None, turned, "pneumonia", steps=5).better_than_random


def test_a_contrast_is_tested_as_one():
    predictor = make_rough_predictor()
    image = rough_square()
    found = explain(predictor, image, findings=["pneumonia"], against="covid")
    answer = faithfulness(predictor, image, None, found, "pneumonia", steps=10)
    assert answer.better_than_random
    assert "the probability against covid from" in answer.verdict
    alone = faithfulness(predictor, image, None, replace(found, against=None), "pneumonia", steps=10)
    assert answer.deletion > alone.deletion, "one of two is likelier than one of five"


def test_an_empty_map_names_no_place(predictor, explanation):
    empty = with_values(explanation, np.zeros(1))
    found = faithfulness(predictor, rough_square(), None, empty, "pneumonia", steps=2)
    assert not found.better_than_random
    assert found.verdict == EMPTY


def test_the_same_seed_gives_the_same_answer(predictor, explanation):
    one, two, other = (
        faithfulness(predictor, rough_square(), None, explanation, "pneumonia", steps=3, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one.deletion == other.deletion
    assert one.random_deletion != other.random_deletion


def test_questions_without_an_answer(predictor, explanation):
    image = rough_square()
    for finding, other, options, words in (
        ("covid", image, {}, "not of 'covid'"),
        ("pneumonia", rough_square((1, 64, 65)), {}, "Give the image that was explained"),
        ("pneumonia", image, {"steps": 0}, "too few"),
        ("pneumonia", image, {"random_orders": 0}, "too few"),
    ):
        with pytest.raises(UsageError, match=words):
            faithfulness(predictor, other, None, explanation, finding, **options)
    tired = CallbackProgress(lambda *said: None, lambda: True)
    with pytest.raises(CancelledError):
        faithfulness(predictor, image, None, explanation, "pneumonia", progress=tired)


# --- places and orders


def test_places_are_as_hot_as_the_map_on_the_image(predictor):
    """On an image that is the network's input pixel by pixel."""
    maps = explain(predictor, rough_square(), findings=["pneumonia"]).maps
    prepared = prepare_slices(rough_square(), predictor.bundle.card.input, [0])
    places = Places.of(prepared, (1, 64, 64))
    expected = maps.on_image("pneumonia")[0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(places.heat(maps, "pneumonia", prepared), expected, rtol=1e-5)
    assert places.inside.all()


@pytest.mark.parametrize("dims", [2, 3])
def test_padding_is_no_place(dims):
    predictor = make_predictor(dims, (32,) * dims)
    image = MedicalImage(np.ones((8, 32, 16), np.float32), (1.0, 1.0, 1.0), source="half")
    spec = predictor.bundle.card.input
    prepared = prepare_volume(image, spec) if dims == 3 else prepare_slices(image, spec, [3])
    places = Places.of(prepared, image.shape)
    assert places.inside.shape == ((16, 16) if dims == 2 else (8, 8, 8))
    assert places.inside.mean() == (0.5 if dims == 2 else 0.125)
    assert np.array_equal(places.pixels(places.inside[None])[0].numpy() * 1, _padded(image.shape, dims))


def _padded(shape: tuple[int, int, int], dims: int) -> np.ndarray:
    full = np.zeros((32,) * dims, int)
    full[tuple(slice((32 - n) // 2, (32 - n) // 2 + n) for n in shape[-dims:])] = 1
    return full


def test_a_place_of_a_turned_volume_is_the_same_place():
    pixels = np.zeros((8, 32, 32), np.float32)
    pixels[2, 4:8, 20:28] = 1
    image = MedicalImage(pixels, (1.0, 1.0, 1.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1), source="turned")
    predictor = make_predictor(2, (32, 32))
    maps = explain(predictor, image, findings=["pneumonia"]).maps
    prepared = prepare_slices(image, predictor.bundle.card.input, [2])
    heat = Places.of(prepared, image.shape).heat(maps, "pneumonia", prepared)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    shown = prepared.tensor[0, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert shown.max() == prepared.tensor.max()


maps_of_any_size = arrays.arrays(
    np.float64,
    st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    ),
    elements=st.floats(0, 100),
)


@settings(deadline=None, max_examples=60)
@given(heat=maps_of_any_size, seed=st.integers(0, 99))
def test_another_map_is_as_smooth(heat, seed):
    other = elsewhere(heat, np.random.default_rng(seed))
    assert other.shape == heat.shape
    before, after = np.abs(np.fft.fftn(heat - heat.mean())), np.abs(np.fft.fftn(other))
    np.testing.assert_allclose(after, before, atol=1e-6 * max(1, before.max()))


@settings(deadline=None, max_examples=60)
@given(heat=maps_of_any_size, seed=st.integers(0, 99), data=st.data())
def test_ranks_fall_with_the_heat(heat, seed, data):
    inside = data.draw(arrays.arrays(np.bool_, heat.shape))
    ranks = hottest_first(heat, inside, np.random.default_rng(seed))
    assert (ranks[~inside] == -1).all()
    assert sorted(ranks[inside]) == list(range(inside.sum()))
    assert (np.diff(heat[inside][np.argsort(ranks[inside])]) <= 0).all()


def test_equally_hot_places_are_drawn():
    flat, everywhere = np.zeros((4, 4)), np.ones((4, 4), bool)
    first, second = (hottest_first(flat, everywhere, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_maps_of_another_grid_are_understood():
    """What a map shows counts, not how fine it is."""
    predictor = make_predictor()
    image = rough_square()
    prepared = prepare_slices(image, predictor.bundle.card.input, [0])
    fine = np.zeros((1, 1, 64, 64), np.float32)
    fine[..., SQUARE[0], SQUARE[1]] = 1
    coarse = fine.reshape(1, 1, 16, 4, 16, 4).mean(axis=(3, 5))
    heats = []
    for values, axis in ((fine, AxisMap(1.0, 0.0)), (coarse, AxisMap(0.25, -0.375))):
        maps = HeatMaps(("pneumonia",), values, image.shape, axis, axis, (0,), (1.0,))
        heats.append(Places.of(prepared, image.shape).heat(maps, "pneumonia", prepared))
    assert np.corrcoef(heats[0].ravel(), heats[1].ravel())[0, 1] > 0.95
