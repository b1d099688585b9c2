"""Explanations: as captum, torchcam and plain loops have them, on the right place, leaving the network alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchcam.methods import LayerCAM

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError, CancelledError, DeviceError, UsageError
from MediScanLib.network.bundle import Bundle
from MediScanLib.network.card import Calibration
from MediScanLib.network.encoders import Encoder, build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.prediction.explanations import METHODS, Explanation, explain, integrated_gradients
from MediScanLib.prediction.explanations.asked import Asked, Ticker
from MediScanLib.prediction.explanations.blurring import SIGMA, blurred, hidden
from MediScanLib.prediction.explanations.explaining import _METHODS
from MediScanLib.prediction.explanations.occlusion import passes
from MediScanLib.prediction.explanations.question import Question
from MediScanLib.prediction.explanations.stages import encode, features_from
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_clinical, prepare_slices, prepare_volume
from MediScanLib.progress import CallbackProgress, SilentProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord
from toys import LABELS, make_card, make_predictor, make_random_predictor

RECORD = ClinicalRecord(age_years=63, sex="M", crp_mg_per_l=120, temperature_c=38.9)
FUSIONS = ["gated", "attention"]


def noise(shape=(1, 40, 52), seed=0, **facts) -> MedicalImage:
    pixels = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return MedicalImage(pixels, source="noise", **facts)


def assemble(encoder: Encoder, size: tuple[int, ...], fusion: str = "gated", **options) -> Predictor:
    """A predictor with a random head, whose features are standardized by other than 0 and 1."""
    network = FusionNetwork(encoder, fusion=fusion, fusion_dim=16, attention_heads=4)
    with torch.no_grad():
        for part in (network.fusion, network.disease):
            for parameter in part.parameters():
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        network.feature_mean.uniform_(0, 0.5)
        network.feature_std.uniform_(0.5, 2)
    bundle = Bundle(Path("toy"), make_card(encoder.spatial_dims, size))
    return Predictor(bundle, network, torch.device("cpu"), InferenceConfig(**options))


def relu_predictor(fusion: str = "gated") -> Predictor:
    torch.manual_seed(4)
    encoder = Encoder(
        nn.Sequential(nn.Conv2d(1, 6, 4, 4), nn.ReLU(inplace=True), nn.Conv2d(6, 12, 2, 2), nn.ReLU(inplace=True)),
        backbone="two stages",
        spatial_dims=2,
        in_channels=1,
        out_channels=12,
        stride=8,
        input_mean=0.0,
        input_std=1.0,
    )
    return assemble(encoder, (32, 32), fusion)


class Logits(nn.Module):
    """The network as the oracles want it: image in, logits out, and the difference to one of them where asked."""

    def __init__(self, predictor: Predictor, against: str | None = None) -> None:
        super().__init__()
        self.network = predictor.network
        self.values, self.observed = prepare_clinical([RECORD], predictor.bundle.card)
        self.against = None if against is None else LABELS.index(against)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        count = len(image)
        logits = self.network(image, self.values.expand(count, -1), self.observed.expand(count, -1)).logits
        return logits if self.against is None else logits - logits[:, [self.against]]


def tensor_of(predictor: Predictor, image: MedicalImage) -> torch.Tensor:
    spec = predictor.bundle.card.input
    if predictor.bundle.card.network.spatial_dims == 3:
        return prepare_volume(image, spec).tensor
    return prepare_slices(image, spec, range(image.shape[0])).tensor


def asked_of(predictor: Predictor, tensor: torch.Tensor, findings=None, against=None) -> Asked:
    card = predictor.bundle.card
    values, observed = prepare_clinical([RECORD], card)
    with torch.no_grad():
        encoded = encode(predictor.network, tensor)
    question = Question.of(card, findings, against)
    ticker = Ticker(SilentProgress(), "test", 1)
    return Asked(predictor.network, card, question, tensor, values, observed, encoded, 4, ticker)


def assert_close(got: np.ndarray | torch.Tensor, expected: torch.Tensor, digits: float = 1e-4) -> None:
    got = torch.as_tensor(got)
    assert got.shape == expected.shape
    assert expected.abs().max() > 0, "nothing to compare"
    torch.testing.assert_close(got.float(), expected.float(), rtol=1e-3, atol=digits * float(expected.abs().max()))


# --- the same as others have it


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradcam_is_what_the_prediction_shows(fusion, dims):
    predictor = make_random_predictor(fusion, dims)
    image = noise((6, 40, 52))
    expected = predictor(image, RECORD).maps
    got = explain(predictor, image, RECORD)
    assert got.maps.labels == expected.labels
    assert got.maps.scales == expected.scales
    assert (got.maps.rows, got.maps.columns, got.maps.slices) == (expected.rows, expected.columns, expected.slices)
    assert_close(got.maps.values, torch.from_numpy(expected.values))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_contrast_is_the_positive_part_of_a_difference(fusion):
    """Oracle: captum on the difference of the logits, before what is negative is cut off."""
    predictor, image = make_random_predictor(fusion), noise()
    both_ways = 0
    for one, other in combinations(LABELS, 2):
        oracle = Logits(predictor, against=other)
        signed = LayerGradCam(oracle, oracle.network.encoder).attribute(
            tensor_of(predictor, image), target=LABELS.index(one)
        )
        both_ways += int(signed.min() < 0 < signed.max())
        this = explain(predictor, image, RECORD, findings=[one], against=other).maps
        that = explain(predictor, image, RECORD, findings=[other], against=one).maps
        assert this.scales == (predictor.bundle.card.heat_map_scales[one],)
        assert_close(this.values[0] - that.values[0], signed[:, 0].detach())
        assert not (this.values * that.values).any(), "a place speaks for one of the two"
    assert both_ways, "some pair of findings shares the image"


@pytest.mark.parametrize("method", [method for method in METHODS if method != "occlusion"])
def test_a_contrast_with_a_constant_is_no_contrast(method):
    """With y_j constant, y_k - y_j has the gradients of y_k."""
    predictor, image = make_random_predictor("gated"), noise()
    with torch.no_grad():
        predictor.network.disease.weight[0].zero_()
    alone = explain(predictor, image, RECORD, method=method, findings=["pneumonia"]).maps.values
    against = explain(predictor, image, RECORD, method=method, findings=["pneumonia"], against="normal").maps.values
    assert_close(against, torch.from_numpy(alone))


def test_gradcam_plus_plus_has_the_weights_of_the_paper():
    """With y linear in the activations, alpha is the quotient of the true derivatives of exp(y).

    (torchcam 0.5 is no oracle here: it divides a copy, and its alpha stays without the denominator.)
    """
    predictor = relu_predictor()
    network = predictor.network.double()
    with torch.no_grad():
        network.fusion.gate.weight.zero_()  # a constant gate
    tensor = tensor_of(predictor, noise()).double()
    asked = asked_of(predictor, tensor)
    asked = Asked(**{**asked.__dict__, "values": asked.values.double()})
    with torch.no_grad():
        got = _METHODS["gradcam++"].maps(asked).maps[0]
        activations = network.encoder(tensor)
    for k in range(len(LABELS)):
        cell = torch.zeros_like(activations, requires_grad=True)  # the derivatives of a cell are along itself

        def score(shift: torch.Tensor, k: int = k) -> torch.Tensor:
            features = (activations + shift - network.feature_mean.reshape(-1, 1, 1)) / network.feature_std.reshape(
                -1, 1, 1
            )
            return asked.head(features)[0, k].exp()

        (first,) = torch.autograd.grad(score(cell), cell, create_graph=True)
        second, third = torch.zeros_like(first), torch.zeros_like(first)
        for place in np.ndindex(*first.shape):
            (along,) = torch.autograd.grad(first[place], cell, create_graph=True)
            second[place] = along[place].detach()
            (again,) = torch.autograd.grad(along[place], cell, retain_graph=True)
            third[place] = again[place]
        first = first.detach()
        alpha = second / (2 * second + (activations * third).sum((2, 3), keepdim=True))
        weights = (alpha * first.relu()).sum((2, 3), keepdim=True)
        expected = (weights * activations).sum(1).relu()[0] / score(torch.zeros_like(cell)).detach()
        torch.testing.assert_close(got[k], expected, rtol=1e-6, atol=1e-8)


BACKBONES = [
    ("efficientnet-lite0", 2, False, "layers.stage5", 16),
    ("efficientnet-lite0", 2, True, "layers.stage3", 8),
    ("resnet50", 2, False, "layers.layer3", 16),
    ("densenet121", 2, False, "layers.transition3.conv", 16),
    ("efficientnet-b3", 2, False, "layers.blocks.4", 16),
    ("resnet50", 3, False, "layers.layer3", 16),
]


@pytest.fixture(scope="module", params=BACKBONES, ids=lambda p: f"{p[0]} {p[1]}D{' hypercolumns' * p[2]}")
def backbone(request):
    name, dims, hypercolumns, layer, stride = request.param
    torch.manual_seed(1)
    size = (64, 96) if dims == 2 else (32, 64, 32)
    predictor = assemble(build_encoder(name, dims, hypercolumns=hypercolumns), size)
    for module in predictor.network.encoder.modules():  # as after training: every layer tells images apart
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.train()
    image = noise((1, 60, 90) if dims == 2 else (30, 60, 40))
    with torch.no_grad():
        predictor.network.encoder(tensor_of(predictor, image))
    predictor.network.eval()
    return predictor, image, layer, stride


def test_an_encoder_taken_apart_says_the_same(backbone):
    predictor, image, _, stride = backbone
    tensor = tensor_of(predictor, image)
    with torch.no_grad():
        expected = predictor.network.features(tensor)
        encoded = encode(predictor.network, tensor)
        again = features_from(predictor.network, encoded.stage, encoded.stage.activations)
    assert_close(encoded.features, expected, 1e-6)
    assert_close(again, expected, 1e-6)
    assert predictor.network.encoder.stride / encoded.stage.finer == stride
    assert encoded.stage.activations.shape[2:] == tuple(side // stride for side in tensor.shape[2:])


def test_layercam_as_torchcam_has_it(backbone):
    predictor, image, layer, _ = backbone
    got = explain(predictor, image, RECORD, method="layercam", findings=["cancer", "pneumonia"]).maps.values
    oracle = Logits(predictor)
    module = oracle.network.encoder.get_submodule(layer)
    tensor = tensor_of(predictor, image)
    for values, label in zip(got, ["cancer", "pneumonia"], strict=True):
        with LayerCAM(oracle, target_layer=module) as extractor:
            scores = oracle(tensor.clone().requires_grad_())
            expected = extractor(LABELS.index(label), scores, normalized=False)[0].detach()
        assert_close(values, expected.reshape(values.shape), 1e-3)


def test_an_encoder_without_an_earlier_stage_is_explained_at_its_last():
    predictor = make_random_predictor("gated")
    with torch.no_grad():
        stage = encode(predictor.network, tensor_of(predictor, noise())).stage
    assert stage.activations.shape[1:] == (12, 4, 4)
    assert explain(predictor, noise(), method="layercam").maps.values.shape == (5, 1, 4, 4)


@pytest.mark.parametrize("against", [None, "normal"])
@pytest.mark.parametrize("dims", [2, 3])
def test_integrated_gradients_as_captum_has_them(dims, against):
    predictor = make_random_predictor("attention", dims)
    tensor = tensor_of(predictor, noise((5, 40, 52)))[:1]
    asked = asked_of(predictor, tensor, ["pneumonia", "cancer"], against)
    with torch.no_grad():
        found = integrated_gradients.contributions(asked, tensor[0])
    oracle = IntegratedGradients(Logits(predictor, against))
    for pixels, label in zip(found.pixels, ["pneumonia", "cancer"], strict=True):
        expected = oracle.attribute(
            tensor, baselines=hidden(tensor), target=LABELS.index(label), n_steps=found.steps
        ).detach()
        assert_close(pixels, expected[0, 0])
    assert (found.errors <= 1).all()


def test_integrated_gradients_say_whether_they_are_complete(monkeypatch):
    predictor, image = relu_predictor(), noise()
    with torch.no_grad():
        predictor.network.disease.weight.mul_(30)
        predictor.network.fusion.gate.weight.mul_(30)  # gates that open and shut on the way
    monkeypatch.setattr(integrated_gradients, "STEPS", (1,))
    rough = explain(predictor, image, RECORD, method="integrated-gradients")
    assert "NOT complete" in rough.notes[0]
    assert "1 steps" in rough.notes[0]
    monkeypatch.setattr(integrated_gradients, "STEPS", (1, 100))
    fine = explain(predictor, image, RECORD, method="integrated-gradients")
    assert fine.notes[0].endswith("100 steps: complete.")


@pytest.mark.parametrize("against", [None, "normal"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_occlusion_is_the_drop_of_the_calibrated_log_odds(fusion, against):
    predictor = make_random_predictor(
        fusion, calibration=Calibration(scale=[0.5, 2, 1, 3, 1], shift=[0, 1, -1, 0, 2], fitted_on="nothing")
    )
    image, _ = image_with_cube((1, 40, 52), (1.0, 1.0, 1.0), np.eye(3), (0, 0.5, 0.4), 12)
    card, oracle = predictor.bundle.card, Logits(predictor)
    with torch.no_grad():
        predictor.network.disease.weight.mul_(10)
    tensor = tensor_of(predictor, image)
    found = explain(predictor, image, RECORD, method="occlusion", findings=["covid", "cancer"], against=against)
    values = found.maps.values
    assert values.shape == (2, 1, 10, 10)
    assert passes((32, 32)) == 100

    def odds(tensor: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            probabilities = calibrated_probabilities(oracle(tensor), card.calibration).numpy()[0]
        them, other = probabilities[[2, 4]], probabilities[0]
        return np.log(them / (1 - them if against is None else other))

    halves = np.round(np.arange(21) * 1.6).astype(int)
    blank = hidden(tensor)
    drops = []
    for row, column in [(0, 0), (4, 4), (5, 3), (4, 6), (9, 2)]:
        occluded = tensor.clone()
        rows = slice(halves[max(0, 2 * row - 1)], halves[min(20, 2 * row + 3)])
        columns = slice(halves[max(0, 2 * column - 1)], halves[min(20, 2 * column + 3)])
        occluded[..., rows, columns] = blank[..., rows, columns]
        drops.append(odds(tensor) - odds(occluded))
        np.testing.assert_allclose(values[:, 0, row, column], np.maximum(drops[-1], 0), atol=2e-5)
    assert np.max(drops) > 0.01


def test_blurring_by_hand():
    impulse = torch.zeros(1, 1, 33, 33)
    impulse[..., 16, 16] = 1
    got = blurred(impulse, [2.0, 3.0])[0, 0]
    rows, columns = np.ogrid[-16:17, -16:17]
    expected = np.exp(-0.5 * ((rows / 2) ** 2 + (columns / 3) ** 2)) / (2 * np.pi * 2 * 3)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)
    even = torch.full((1, 1, 8, 8, 8), 0.7)
    torch.testing.assert_close(hidden(even), even)
    assert hidden(impulse).max() < 1 / (2 * np.pi * (33 * SIGMA) ** 2) * 1.01


# --- on the right place


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        matrix = matrix @ step
    return matrix


def image_with_cube(shape, spacing, direction, at, size):
    """A bright cube of `size` mm around the place `at` (slice, row, column as fractions)."""
    pixels = np.zeros(shape, dtype=np.float32)
    box = tuple(
        slice(max(0, round(a * (n - 1) - size / mm / 2)), min(n, round(a * (n - 1) + size / mm / 2) + 1))
        for a, mm, n in zip(at, spacing[::-1], shape, strict=True)
    )
    pixels[box] = 1000
    where = np.argwhere(pixels > 0).mean(axis=0)
    return MedicalImage(
        pixels, spacing, (-80.0, 33.0, 7.0), tuple(direction.ravel()), modality="CT", source="cube"
    ), tuple(where)


fraction, angle = st.floats(0.25, 0.75), st.floats(-3, 3)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=10)
@given(
    rows=st.integers(60, 300),
    columns=st.integers(60, 300),
    spacing=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)),
    at=st.tuples(fraction, fraction),
    angles=st.tuples(angle, angle, angle),
)
def test_a_bright_square_is_found(method, rows, columns, spacing, at, angles):
    extent = max(rows * spacing[1], columns * spacing[0])
    size = extent / 64 * 10  # ten pixels of the network
    image, where = image_with_cube((1, rows, columns), (*spacing, 3.0), rotation(angles), (0, *at), size)
    maps = explain(make_predictor(), image, method=method, findings=["pneumonia"]).maps
    peak, index = maps.peak("pneumonia")
    assert peak > 0
    distance = np.linalg.norm(np.subtract(image.to_physical(index), image.to_physical(where)))
    assert distance < size / 2 * np.sqrt(2) + extent / 64 * 2, "in the square, give or take two pixels"


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=4)
@given(
    shape=st.tuples(st.integers(8, 16), st.integers(30, 80), st.integers(30, 80)),
    spacing=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(1, 6)),
    at=st.tuples(fraction, fraction, fraction),
    angles=st.tuples(angle, angle, angle),
)
def test_a_bright_cube_is_found(method, dims, shape, spacing, at, angles):
    extent = max(n * mm for n, mm in zip(shape, spacing[::-1], strict=True))
    size = max(extent / 4, 3 * spacing[2])
    image, where = image_with_cube(shape, spacing, rotation(angles), at, size)
    maps = explain(make_predictor(dims, (32,) * dims), image, method=method, findings=["pneumonia"]).maps
    _, index = maps.peak("pneumonia")
    distance = np.linalg.norm(np.subtract(image.to_physical(index), image.to_physical(where)))
    assert distance < size / 2 * np.sqrt(3) + 4 * extent / 32, "in the cube, give or take a cell"


@pytest.mark.parametrize("method", METHODS)
def test_a_square_that_the_model_does_not_like_leaves_the_map_empty(method):
    image, _ = image_with_cube((1, 64, 64), (1.0, 1.0, 1.0), np.eye(3), (0, 0.5, 0.5), 10)
    maps = explain(make_predictor(), image, method=method, findings=["covid"]).maps
    heat = maps.on_image("covid")[0]
    if method == "occlusion":  # a blurred patch beside the square is brighter than the dark that it hides
        heat = heat[29:35, 29:35]
    assert heat.max() < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_blank_image_has_empty_maps(method):
    image = MedicalImage(np.full((1, 30, 30), 5, np.float32), source="blank")
    assert not explain(make_predictor(), image, method=method).maps.values.any()


# --- one interface


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", METHODS)
def test_slices_are_explained_one_by_one(method, fusion):
    """In any batch, and those that were not asked about stay empty."""
    image = noise((6, 40, 52))
    one = make_random_predictor(fusion, settings=InferenceConfig(max_batch_size=1))
    some = explain(one, image, RECORD, method=method, findings=["fracture"], slices=[4, 1])
    many = make_random_predictor(fusion, settings=InferenceConfig(max_batch_size=4))
    every = explain(many, image, RECORD, method=method, findings=["normal", "fracture"])
    assert some.maps.slices == (4, 1)
    assert every.maps.slices == tuple(range(6))
    assert_close(some.maps.values[0], torch.from_numpy(every.maps.values[1][[4, 1]]))
    assert [i for i, plane in enumerate(some.maps.on_image("fracture")) if plane.any()] == [1, 4]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
def test_what_an_explanation_holds(method, dims):
    predictor = make_random_predictor("gated", dims)
    image = noise((6, 40, 52))
    found = explain(predictor, image, RECORD, method=method, slices=None if dims == 2 else [2])
    assert isinstance(found, Explanation)
    assert (found.method, found.against, found.maps.labels) == (method, None, tuple(LABELS))
    assert found.maps.shape == image.shape
    assert found.maps.values.dtype == np.float32
    assert found.maps.values.min() == 0
    assert found.maps.values.any()
    assert found.seconds > 0
    assert found.relative_cost > 0
    assert ("whole volumes" in " ".join(found.notes)) == (dims == 3)
    peaks = tuple(found.maps.values.reshape(5, -1).max(axis=1).tolist())
    expected = {"gradcam": (1.0,) * 5, "occlusion": (1.0,) * 5}.get(method, peaks)
    assert found.maps.scales == tuple(peak if peak > 0 else 1.0 for peak in expected)
    assert {"gradcam": "usual", "occlusion": "log-odds"}.get(method, "same map") in found.scale_meaning


def test_all_but_the_other_finding_are_told_from_it():
    found = explain(make_random_predictor("gated"), noise(), against="normal")
    assert found.maps.labels == tuple(LABELS[1:])
    assert found.against == "normal"


def test_the_record_matters():
    predictor, image = make_random_predictor("gated"), noise()
    with_record = explain(predictor, image, RECORD).maps.values
    assert np.abs(with_record - explain(predictor, image).maps.values).max() > 0
    prefilled = noise(prefill={"age_years": 63.0, "sex": "M"})
    known = ClinicalRecord(crp_mg_per_l=120, temperature_c=38.9)
    assert_close(explain(predictor, prefilled, known).maps.values, torch.from_numpy(with_record))


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"method": "lime"}, "no explanation 'lime'"),
        ({"findings": ["measles"]}, "no finding 'measles'"),
        ({"findings": []}, "No finding was chosen"),
        ({"findings": ["covid", "covid"]}, "named twice"),
        ({"against": "measles"}, "no finding 'measles'"),
        ({"findings": ["covid"], "against": "covid"}, "cannot be told from itself"),
        ({"slices": [7]}, "no slice 7"),
        ({"slices": []}, "no slice was chosen"),
    ],
)
def test_questions_without_an_answer(question, words):
    with pytest.raises(UsageError, match=words):
        explain(make_random_predictor("gated"), noise(), **question)


@pytest.mark.parametrize("method", METHODS)
def test_progress_is_told_and_may_cancel(method):
    predictor, image = make_random_predictor("gated"), noise((9, 40, 52))
    heard: list[tuple[str, int, int]] = []
    explain(predictor, image, method=method, progress=CallbackProgress(lambda *said: heard.append(said)))
    done = [said[1] for said in heard]
    assert {said[0] for said in heard} == {method}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, heard[0][2])
    heard.clear()
    tired = CallbackProgress(lambda *said: heard.append(said), lambda: heard[-1][1] >= done[-1] // 2)
    with pytest.raises(CancelledError, match=method):
        explain(predictor, image, method=method, progress=tired)
    assert heard[-1][1] < done[-1]


class Greedy(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 48) + image


@pytest.mark.parametrize("method", METHODS)
def test_out_of_memory_is_said(method):
    predictor = make_random_predictor("gated")
    predictor.network.encoder.layers = nn.Sequential(Greedy(), predictor.network.encoder.layers)
    with pytest.raises(DeviceError, match=r"out of memory.*max_batch_size"):
        explain(predictor, noise(), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_result_that_is_not_a_number_is_refused(method):
    predictor = make_random_predictor("gated")
    with torch.no_grad():
        predictor.network.encoder.layers.weight.fill_(float("inf"))
    with pytest.raises(BundleError, match="not a number"):
        explain(predictor, noise(), method=method)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(method: str, fusion: str, mode: Callable) -> None:
    predictor, image = relu_predictor(fusion), noise()
    network = predictor.network
    expected = predictor(image, RECORD)
    marks = {}
    for i, (name, parameter) in enumerate(network.named_parameters()):
        marks[name] = parameter.grad = torch.full_like(parameter, 7.0)
        parameter.requires_grad_(i % 2 == 0)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with mode():
        first = explain(predictor, image, RECORD, method=method)
    again = explain(predictor, image, RECORD, method=method)
    np.testing.assert_array_equal(first.maps.values, again.maps.values)
    for i, (name, parameter) in enumerate(network.named_parameters()):
        assert parameter.requires_grad == (i % 2 == 0)
        assert parameter.grad is marks[name]
        assert (parameter.grad == 7).all()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[key])
    for module in network.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert predictor(image, RECORD).probabilities == expected.probabilities


def test_the_list_of_methods_needs_no_torch():
    script = "import sys; from MediScanLib.prediction.explanations import METHODS; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
    assert tuple(_METHODS) == METHODS


def test_the_shipped_model(shared_data):
    from MediScanLib.study.reading import read_image

    predictor = Predictor.load("mediscan-general", "cpu")
    image = read_image(shared_data / "images/nih/00006832_001.jpg")
    expected = predictor(image)
    for method in ("gradcam", "gradcam++", "layercam", "integrated-gradients"):
        found = explain(predictor, image, method=method, findings=["pneumonia"])
        if method == "gradcam":
            assert_close(found.maps.values[0], torch.from_numpy(expected.maps.raw("pneumonia")))
        _, (_, row, column) = found.maps.peak("pneumonia")
        assert 0.1 < row / image.shape[1] < 0.9
        assert 0.1 < column / image.shape[2] < 0.9, "in the chest"
    assert found.notes[0].endswith("complete.")
    assert "NOT" not in found.notes[0]
