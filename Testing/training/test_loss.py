"""The composite loss: its parts, partial labels, unknown severities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from MediScanLib.errors import DataError
from MediScanLib.training.loss import CompositeLoss

NAN = float("nan")
UNKNOWN = torch.full((6,), NAN)


def one_hot(classes: list[int], count: int = 5) -> torch.Tensor:
    return functional.one_hot(torch.tensor(classes), count).bool()


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 5, requires_grad=True)


@pytest.fixture
def severity() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(6, requires_grad=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0, 0.1]])
def test_one_allowed_class_is_ordinary_cross_entropy(
    logits: torch.Tensor, severity: torch.Tensor, smoothing: float, weights: list[float] | None
) -> None:
    classes = [0, 4, 2, 2, 3, 1]
    loss = CompositeLoss(class_weights=weights, label_smoothing=smoothing)
    got = loss(logits, one_hot(classes), severity, UNKNOWN).disease
    weight = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(logits, torch.tensor(classes), weight, label_smoothing=smoothing)
    torch.testing.assert_close(got, expected)
    (a,), (b,) = torch.autograd.grad(got, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(a, b)


def test_several_allowed_classes_share_their_probability(logits: torch.Tensor, severity: torch.Tensor) -> None:
    allowed = torch.rand(6, 5, generator=torch.Generator().manual_seed(3)) > 0.5
    allowed[:, 0] = True
    allowed[:, 1] = False
    expected = -(logits.softmax(1) * allowed).sum(1).log().mean()
    torch.testing.assert_close(CompositeLoss()(logits, allowed, severity, UNKNOWN).disease, expected)


def test_a_benign_lesion_may_be_anything_but_cancer(severity: torch.Tensor) -> None:
    logits = torch.zeros(1, 5, requires_grad=True)
    allowed = torch.tensor([[True, True, True, True, False]])
    loss = CompositeLoss()(logits, allowed, severity[:1], UNKNOWN[:1]).disease
    assert loss.item() == pytest.approx(-math.log(4 / 5))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 4] > 0  # cancer is pushed down
    assert (gradient[0, :4] < 0).all()  # and the others up, alike
    assert gradient[0, :4].unique().numel() == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_study_without_a_label_says_nothing(logits: torch.Tensor, severity: torch.Tensor, smoothing: float) -> None:
    allowed = one_hot([0, 4, 2, 2, 3, 1])
    allowed[3:] = True
    loss = CompositeLoss(label_smoothing=smoothing)
    disease = loss(logits, allowed, severity, UNKNOWN).disease
    torch.testing.assert_close(disease, loss(logits[:3], allowed[:3], severity[:3], UNKNOWN[:3]).disease)
    (gradient,) = torch.autograd.grad(disease, logits)
    assert (gradient[3:] == 0).all()
    none = loss(logits, torch.ones(6, 5, dtype=bool), severity, UNKNOWN).disease
    assert none.item() == 0
    (gradient,) = torch.autograd.grad(none, logits)
    assert (gradient == 0).all()


def test_severity_counts_where_it_is_known(logits: torch.Tensor, severity: torch.Tensor) -> None:
    target = torch.tensor([0.0, NAN, 0.25, NAN, 1.0, NAN])
    known = [0, 2, 4]
    got = CompositeLoss()(logits, one_hot([0] * 6), severity, target).severity
    p, t = severity[known].sigmoid(), target[known]
    torch.testing.assert_close(got, -(t * p.log() + (1 - t) * (1 - p).log()).mean())
    (gradient,) = torch.autograd.grad(got, severity)
    torch.testing.assert_close(gradient[known], (p - t) / 3)
    assert (gradient[[1, 3, 5]] == 0).all()


def test_no_known_severity_gives_exactly_zero(logits: torch.Tensor, severity: torch.Tensor) -> None:
    parts = CompositeLoss()(logits, one_hot([0] * 6), severity, UNKNOWN)
    assert parts.severity.item() == 0
    (gradient,) = torch.autograd.grad(parts.total, severity)
    assert (gradient == 0).all()


def test_regularization_is_the_distance_from_even_probabilities(severity: torch.Tensor) -> None:
    allowed = one_hot([0] * 6)
    even = CompositeLoss()(torch.full((6, 5), 3.0), allowed, severity, UNKNOWN).regularization
    sure = CompositeLoss()(torch.eye(6, 5) * 200, allowed[:6], severity, UNKNOWN).regularization
    assert even.item() == pytest.approx(0, abs=1e-6)
    assert sure.item() == pytest.approx(5 / 6 * math.log(5), abs=1e-6)  # the sixth row is even


def test_the_total_is_the_weighted_sum(logits: torch.Tensor, severity: torch.Tensor) -> None:
    target = torch.tensor([0.1, 0.2, NAN, 0.5, 0.7, 1.0])
    total, disease, severe, regularization = CompositeLoss(2.0, 3.0, 5.0)(
        logits, one_hot([0, 1, 2, 3, 4, 0]), severity, target
    )
    assert min(disease.item(), severe.item(), regularization.item()) > 0
    torch.testing.assert_close(total, 2 * disease + 3 * severe + 5 * regularization)


@given(
    logits=st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4),
    data=st.data(),
)
def test_loss_and_gradient_are_finite(logits: list[list[float]], data: st.DataObject) -> None:
    count = len(logits)
    mask = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)
    allowed = torch.tensor(data.draw(st.lists(mask, min_size=count, max_size=count)))
    target = data.draw(st.lists(st.floats(0, 1) | st.just(NAN), min_size=count, max_size=count))
    outputs = torch.tensor(logits, requires_grad=True)
    severity = torch.tensor([row[0] for row in logits], requires_grad=True)
    parts = CompositeLoss(class_weights=[0.0, 1.0, 2.0])(outputs, allowed, severity, torch.tensor(target))
    for part in parts:
        assert torch.isfinite(part)
        assert part >= -1e-5
    for gradient in torch.autograd.grad(parts.total, [outputs, severity]):
        assert torch.isfinite(gradient).all()


def test_errors(logits: torch.Tensor, severity: torch.Tensor) -> None:
    none = one_hot([0] * 6)
    none[2] = False
    with pytest.raises(DataError, match="allows no class"):
        CompositeLoss()(logits, none, severity, UNKNOWN)
    with pytest.raises(DataError, match="outside 0 to 1"):
        CompositeLoss()(logits, one_hot([0] * 6), severity, torch.tensor([6.0, 0, 0, 0, 0, 0]))
