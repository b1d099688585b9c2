"""What is unlike the training images is told from what is like them, and the bundle keeps that knowledge."""

import pytest
import torch

from MediScanLib.network.novelty import PREFIX, Novelty
from toys import make_predictor


def two_kinds(count: int, seed: int) -> torch.Tensor:
    """Features of two kinds of image that have no common center; the last half of the channels is noise."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.zeros(2, 40)
    centers[0, :10], centers[1, 10:20] = 5, 5
    points = centers[torch.arange(count) % 2] + torch.randn(count, 40, generator=generator)
    return points


def test_other_kinds_are_farther_than_new_images_of_known_kinds():
    novelty = Novelty.fit(two_kinds(400, 0))
    like = novelty(two_kinds(100, 1))
    third = two_kinds(100, 2)
    third[:, :20], third[:, 20:30] = third[:, 20:], third[:, 20:30] + 5  # bright where no known kind is
    between = two_kinds(100, 3)
    between[:, :20] = between[:, :20].flip(0) * 0.5 + between[:, :20] * 0.5  # half of each kind
    for unlike in (third, between):
        assert (novelty(unlike) > like.quantile(0.98)).float().mean() > 0.5
    assert novelty(third).min() > like.mean()


def test_a_known_image_is_as_near_as_its_neighbors():
    points = two_kinds(50, 0)
    novelty = Novelty.fit(points, neighbors=1)
    assert novelty(points).max() < 0.02  # references are kept in half precision
    assert (Novelty.fit(points, neighbors=5)(points) > 1).all()


def test_few_images_have_few_directions():
    novelty = Novelty.fit(two_kinds(4, 0), dimensions=64, neighbors=5)
    assert novelty.directions.shape[0] <= 4
    assert torch.isfinite(novelty(two_kinds(10, 1))).all()


def test_a_channel_that_never_changes_does_no_harm():
    points = two_kinds(50, 0)
    points[:, 3] = 7.0
    assert torch.isfinite(Novelty.fit(points)(two_kinds(10, 1))).all()


def test_it_comes_back_from_a_state_dict():
    network = make_predictor().network
    network.novelty = Novelty.fit(torch.randn(30, network.encoder.out_channels))
    state = network.state_dict()
    assert any(name.startswith(PREFIX) for name in state)
    again = Novelty.of_state(state)
    asked = torch.randn(5, network.encoder.out_channels)
    assert again is not None
    assert again(asked).tolist() == pytest.approx(network.novelty(asked).tolist())
    assert Novelty.of_state({"fusion.gate.weight": torch.zeros(1)}) is None


def test_what_lies_outside_the_directions_counts_as_often_as_asked():
    points = two_kinds(200, 0)
    points[:, -1] = 0  # nothing known ever has anything there
    asked = points[:5].clone()
    asked[:, -1] = 3.0
    for weight in (1.0, 4.0):
        novelty = Novelty.fit(points, dimensions=39, outside=weight)
        assert novelty(asked).tolist() == pytest.approx([3 * weight**0.5] * 5, rel=0.02)


def test_the_distance_is_that_of_the_nearest_reference():
    novelty = Novelty.fit(two_kinds(60, 0), dimensions=10, neighbors=2)
    asked = two_kinds(7, 1)
    assert novelty.distances(asked).shape == (7, 60)
    assert torch.equal(novelty.distances(asked).sort(1).values[:, 1], novelty(asked))


def test_a_bundle_that_does_not_weigh_the_outside_weighs_it_once_and_loads_strictly():
    """Bundles up to 0.3.0."""
    network = make_predictor().network
    network.novelty = Novelty.fit(torch.randn(30, network.encoder.out_channels))
    state = network.state_dict()
    del state[PREFIX + "outside"]
    network.novelty = Novelty.of_state(state)
    network.load_state_dict(state)
    assert float(network.novelty.outside) == 1.0
    assert PREFIX + "outside" not in network.state_dict()
