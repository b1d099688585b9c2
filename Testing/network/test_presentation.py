"""Whether an image is upright is told from its features, and the limit holds what it promises."""

import pytest
import torch

from MediScanLib.network.novelty import Novelty
from MediScanLib.network.presentation import PREFIX, PRESENTATIONS, Presentation
from toys import make_predictor

CHANNELS = 24


def features(count: int, seed: int) -> torch.Tensor:
    """(presentation, image, channel): each presentation has a channel of its own, the others are noise."""
    generator = torch.Generator().manual_seed(seed)
    points = 3 + 10 * torch.randn(1 + len(PRESENTATIONS), count, CHANNELS, generator=generator)
    for kind in range(len(points)):
        points[kind, :, kind] += 40
    return points


@pytest.fixture(scope="module")
def fitted() -> Presentation:
    return Presentation.fit(features(200, 0))


def test_each_presentation_is_told_and_upright_is_none(fitted):
    held_out = features(200, 1)
    shown = fitted.with_limit(held_out[0], 0.98)
    assert (shown(held_out[0]).amax(1) > 0).float().mean() <= 0.02
    for kind in range(len(PRESENTATIONS)):
        excess = shown(held_out[1 + kind])
        assert (excess.argmax(1) == kind).float().mean() > 0.9
        assert (excess.amax(1) > 0).float().mean() > 0.8


def test_what_may_lie_any_way_is_upright_when_turned_and_not_when_inverted():
    free = torch.arange(400) % 2 == 0
    points = features(400, 0)
    points[:, free, -1] += 60  # they can be told by their last channel
    shown = Presentation.fit(points, free)
    for kind, name in enumerate(PRESENTATIONS, start=1):
        told = (shown(points[kind]).amax(1) > 0).float()
        assert told[~free].mean() > 0.9
        assert (told[free].mean() > 0.9) == (name == "inverted")


@pytest.mark.parametrize("accepted", [0.5, 0.9, 0.99])
def test_the_limit_accepts_the_share_that_was_asked_for(fitted, accepted):
    # hardly to be told apart, so that upright ones are doubted
    close = features(500, 2)[0] + 20 * torch.eye(CHANNELS)[3]
    shown = fitted.with_limit(close, accepted)
    assert (shown(close).amax(1) <= 0).float().mean() >= accepted - 1e-6
    assert bool((shown.limit >= 0).all())


def test_more_likely_than_not_is_the_least_for_a_doubt(fitted):
    shown = fitted.with_limit(features(100, 3)[0], 0.5)
    assert shown.limit.tolist() == [0.0] * len(PRESENTATIONS)


def test_channels_that_never_change_do_no_harm():
    points = features(50, 0)
    points[..., -1] = 7.0
    assert torch.isfinite(Presentation.fit(points)(points[0])).all()


def test_a_number_of_presentations_is_needed():
    with pytest.raises(ValueError, match="3 presentations"):
        Presentation.fit(features(5, 0)[:3])


def test_it_travels_with_the_novelty_and_bundles_without_it_load():
    network = make_predictor().network
    channels = network.encoder.out_channels
    network.novelty = Novelty.fit(torch.randn(30, channels))
    without = Novelty.of_state(network.state_dict())
    assert without is not None and without.presentation is None
    network.novelty.presentation = Presentation(torch.randn(4, channels), torch.randn(4), torch.rand(4))
    state = network.state_dict()
    assert any(name.startswith("novelty." + PREFIX) for name in state)
    again = Novelty.of_state(state)
    assert again is not None and again.presentation is not None
    asked = torch.randn(5, channels)
    assert torch.equal(again.presentation(asked), network.novelty.presentation(asked))
    assert torch.equal(again(asked), network.novelty(asked))
    network.novelty = again
    network.load_state_dict(state)  # strict, as bundles are loaded
