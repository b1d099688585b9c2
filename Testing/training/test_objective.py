"""The two-pass objective: parts add up, sources are kept apart, and hidden things have no say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from MediScanLib.config import TrainingConfig
from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.study.fields import FIELDS
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.datasets import Study
from MediScanLib.training.objective import Targets, TwoPassObjective, hide_images, prior_shift
from MediScanLib.training.sampling import balanced_weights


@pytest.fixture
def network() -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork(build_encoder("efficientnet-lite0"), dropout_rate=0.0).eval()


def make_batch(count: int = 6):
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(count, 1280, 2, 2, generator=generator)
    values = torch.randn(count, len(FIELDS), generator=generator)
    known = torch.rand(count, len(FIELDS), generator=generator) < 0.5
    allowed = torch.zeros(count, 5, dtype=torch.bool)
    allowed[torch.arange(count), torch.arange(count) % 2] = True  # normal and pneumonia
    allowed[-1] = True  # a label that says nothing
    within = torch.tensor([True, True, False, False, False]).expand(count, 5).clone()
    within[-1] = True
    severity = torch.full((count,), torch.nan)
    severity[1] = 0.5
    severity[-1] = 0.2
    return features, values, known, Targets(allowed, within, severity, torch.zeros(count, 5), torch.full((count,), -1))


def gradients(network: FusionNetwork) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_a_batch_add_up_to_the_batch(network, smoothing) -> None:
    objective = TwoPassObjective(network, TrainingConfig(label_smoothing=smoothing))
    features, values, known, targets = make_batch()
    image_shown = torch.tensor([True, False, True, True, True, True])
    whole = objective.of_features(features, values, known, targets, image_shown)
    whole.total.backward()
    expected = gradients(network)
    network.zero_grad()
    denominators = objective.denominators(targets)
    total = 0.0
    for rows in (torch.tensor([0, 1, 2, 3]), torch.tensor([4]), torch.tensor([5])):  # the last two know no severity
        part = objective.of_features(
            features[rows], values[rows], known[rows], targets.of_rows(rows), image_shown[rows], denominators
        )
        part.total.backward()
        total += part.total.item()
    assert total == pytest.approx(whole.total.item(), rel=1e-5)
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)


def test_shares_of_processes_average_to_the_batch(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig())
    features, values, known, targets = make_batch()
    whole = objective.of_features(features, values, known, targets).total
    denominators = objective.denominators(targets, processes=2)
    shares = [
        objective.of_features(
            features[rows], values[rows], known[rows], targets.of_rows(rows), denominators=denominators
        ).total
        for rows in (torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5]))
    ]
    assert (sum(shares) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_clinical_values_are_not_rewarded_for_telling_sources_apart(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig(regularization_weight=0))
    features, values, known, targets = make_batch(5)
    targets = replace(targets, within=targets.within[:1].expand(5, 5))
    before = objective.of_features(features, values, known, targets)
    with torch.no_grad():
        network.disease.bias[4] += 3.0  # cancer, of which this source has none
    after = objective.of_features(features, values, known, targets)
    assert after.clinical.item() == pytest.approx(before.clinical.item(), rel=1e-6)
    assert float(after.image) > float(before.image) + 0.1


def test_divergence_is_zero_without_clinical_values_and_grows_with_their_say(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig())
    features, values, known, targets = make_batch()
    silent = objective.of_features(features, values, torch.zeros_like(known), targets)
    assert float(silent.divergence) == pytest.approx(0, abs=1e-6)
    heard = objective.of_features(features, values * 20, torch.ones_like(known), targets)
    assert float(heard.divergence) > 1e-4


def test_a_hidden_image_has_no_say_in_the_second_pass(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig())
    features, values, known, targets = make_batch()
    nothing_shown = torch.zeros(6, dtype=torch.bool)
    first = objective.of_features(features, values, known, targets, nothing_shown)
    second = objective.of_features(features.flip(0) * 2, values, known, targets, nothing_shown)
    assert float(first.clinical) == float(second.clinical)
    assert float(first.divergence) == 0
    assert float(first.image) != float(second.image)
    shown = torch.tensor([True, False, True, True, True, True])
    hidden = hide_images(features, ~shown)
    assert not hidden[1].any()
    assert torch.equal(hidden[shown], features[shown])


def test_a_frozen_encoder_gets_no_gradient(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig())
    _, values, known, targets = make_batch()
    image = torch.rand(6, 1, 32, 32)
    objective(image, values, known, targets, encoder_frozen=True).total.backward()
    assert not any(name.startswith("encoder.") for name in gradients(network))
    assert "disease.weight" in gradients(network)
    objective(image, values, known, targets).total.backward()
    assert any(name.startswith("encoder.") for name in gradients(network))


def unbalanced() -> list[Study]:
    """A source of 30 ill and 10 well, and one that has a partial label."""
    labels = [("one", "pneumonia", 30), ("one", "normal", 10), ("two", "cancer", 5), ("two", "benign", 15)]
    return [
        Study(
            Path(f"{source}{label}{i}"), source, "", f"{label}{i}", "train", label, "", "", ClinicalRecord(), None, 0
        )
        for source, label, count in labels
        for i in range(count)
    ]


def test_the_shift_is_how_much_likelier_a_label_is_in_a_balanced_batch() -> None:
    shift = prior_shift(unbalanced()).exp()
    normal, pneumonia, covid, _, cancer = shift[0].tolist()
    assert pneumonia == pytest.approx(0.5 / 0.75)
    assert normal == pytest.approx(0.5 / 0.25)
    assert covid == cancer == 1  # nothing of the kind in this source
    assert shift[-1, 4].item() == pytest.approx(0.5 / 0.25)
    assert shift[-1, 0].item() == pytest.approx(0.5 / 0.75)  # benign: anything but cancer


def test_with_logit_adjustment_a_blind_network_learns_how_common_a_finding_is() -> None:
    studies = [study for study in unbalanced() if study.source == "one"]
    weights, targets = balanced_weights(studies), Targets.of(studies)
    for adjusted, expected in ((True, 0.75), (False, 0.5)):
        objective = TwoPassObjective(
            FusionNetwork(build_encoder("efficientnet-lite0")),
            TrainingConfig(logit_adjustment=adjusted, regularization_weight=0, severity_weight=0),
        )
        network = objective.network.eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        torch.nn.init.zeros_(network.disease.weight)
        network.disease.bias.requires_grad_(True)
        optimizer = torch.optim.Adam([network.disease.bias], lr=0.2)
        rng = torch.Generator().manual_seed(0)
        for _ in range(200):
            rows = torch.multinomial(weights, 256, replacement=True, generator=rng)
            nothing = torch.zeros(256, len(FIELDS))
            features = torch.zeros(256, 1280, 1, 1)
            loss = objective.of_features(features, nothing, nothing.bool(), targets.of_rows(rows)).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bias = network.disease.bias.detach()
        assert torch.softmax(bias[:2], dim=0)[1].item() == pytest.approx(expected, abs=0.05)


def test_smoothing_does_not_reach_for_findings_of_other_sources(network) -> None:
    objective = TwoPassObjective(network, TrainingConfig(label_smoothing=0.1, regularization_weight=0))
    parts = objective.of_features(*make_batch())
    assert parts.clinical.item() < 20
