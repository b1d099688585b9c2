"""Calibration: what was distorted finding by finding is set right, and little data changes little."""

import numpy as np
import pytest
import torch

from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.training.calibration import fit_calibration
from MediScanLib.training.evaluating.binary import calibration_error


def honest(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are calibrated, and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)
    return logits, torch.zeros(count, 5, dtype=torch.bool).scatter(1, labels, True)


def errors(probabilities: torch.Tensor, allowed: torch.Tensor) -> list[float]:
    return [calibration_error(allowed[:, k].numpy(), probabilities[:, k].numpy()) for k in range(5)]


def test_what_differs_by_finding_is_set_right():
    logits, allowed = honest(4000)
    distorted = logits / torch.tensor([2.0, 0.5, 0.5, 1, 0.5]) + torch.tensor([0.0, 1, -1, 0, 0])
    calibration = fit_calibration(distorted[:2000], allowed[:2000], "made")
    before = errors(torch.softmax(distorted[2000:], 1), allowed[2000:])
    after = errors(calibrated_probabilities(distorted[2000:], calibration), allowed[2000:])
    assert max(before) > 0.1
    assert max(after) < 0.05


def test_few_studies_leave_findings_near_one_temperature():
    logits, allowed = honest(30)
    calibration = fit_calibration(3 * logits, allowed, "made")
    assert max(calibration.scale) / min(calibration.scale) < 3
    assert max(map(abs, calibration.shift)) < 1.5


def test_labels_that_say_nothing_change_nothing():
    logits, allowed = honest(200)
    silent = torch.ones(50, 5, dtype=torch.bool)
    one = fit_calibration(logits, allowed, "made")
    two = fit_calibration(torch.cat([logits, torch.randn(50, 5)]), torch.cat([allowed, silent]), "made")
    # the penalty weighs a little more against the thinner mean
    np.testing.assert_allclose(one.scale, two.scale, rtol=0.1)


def test_without_calibration_it_is_the_softmax():
    logits = torch.randn(3, 5)
    assert calibrated_probabilities(logits, None).numpy() == pytest.approx(torch.softmax(logits, 1).numpy(), abs=1e-6)
