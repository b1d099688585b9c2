"""What image and record add is what their definition says, and adds up to the prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from MediScanLib.network.card import Calibration, Card
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.network.novelty import Novelty
from MediScanLib.prediction.assembly import volume_scores
from MediScanLib.prediction.attribution import log_odds, seen_by_head
from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.prediction.modalities import hidden_feature, modality_shares
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_clinical
from MediScanLib.prediction.result import ModalityShare, Prediction
from MediScanLib.progress import SilentProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import FIELDS, ClinicalRecord
from MediScanLib.training.evaluating.asking import without_image
from MediScanLib.training.objective import hide_images
from toys import LABELS, make_random_predictor

FUSIONS = ["gated", "attention"]
CALIBRATION = Calibration(scale=[1.3, 0.8, 1.0, 1.1, 0.9], shift=[0.1, -0.2, 0.0, 0.3, 0.0], fitted_on="nothing")
HIDDEN_IN_TRAINING = {"settings": {"image_dropout": 0.1}}
RECORD = ClinicalRecord(age_years=81, sex="M", temperature_c=39.5, spo2_percent=84, crp_mg_per_l=210)
KNOWN = torch.arange(len(FIELDS)) % 3 > 0


def model(fusion: str, spatial_dims: int = 2, **card: object) -> tuple[FusionNetwork, Card]:
    """Double precision, so that nothing but a wrong formula makes a difference."""
    predictor = make_random_predictor(
        fusion, spatial_dims, calibration=CALIBRATION, **{"recipe": HIDDEN_IN_TRAINING, **card}
    )
    return predictor.network.double(), predictor.bundle.card


def odds(network: FusionNetwork, features: torch.Tensor, values: torch.Tensor, known: torch.Tensor) -> np.ndarray:
    """Log-odds (finding,) of the mean probability over the samples, by the head itself."""
    count = len(features)
    with torch.no_grad():
        logits = network.head(features, values.expand(count, -1), known.expand(count, -1)).logits
    return log_odds(calibrated_probabilities(logits, CALIBRATION).numpy().mean(0))


def softmaxed(worth: np.ndarray) -> np.ndarray:
    """Probabilities of log-odds."""
    return 1 / (1 + np.exp(-worth))


def shares_of(network, card, features, values, known) -> list[ModalityShare]:
    probabilities = softmaxed(odds(network, features, values, known))
    return modality_shares(network, seen_by_head(network, features), values, known, card, probabilities)


@pytest.mark.parametrize(("spatial_dims", "samples"), [(2, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_share_is_the_mean_gain_over_both_orders(fusion, spatial_dims, samples) -> None:
    """Against the head itself, and what hid images in training."""
    network, card = model(fusion, spatial_dims)
    features = torch.randn(samples, network.encoder.out_channels, *[4, 5, 3][:spatial_dims], dtype=torch.float64)
    blind = hide_images(features, torch.ones(samples, dtype=torch.bool))
    values, nothing = torch.randn(len(FIELDS), dtype=torch.float64), torch.zeros_like(KNOWN)
    neither, image, record, both = (
        odds(network, shown, values, known)
        for shown, known in ((blind, nothing), (features, nothing), (blind, KNOWN), (features, KNOWN))
    )
    found = shares_of(network, card, features, values, KNOWN)
    assert [share.finding for share in found] == LABELS
    np.testing.assert_allclose([share.neither for share in found], neither, atol=1e-9)
    np.testing.assert_allclose([s.image for s in found], (image - neither + both - record) / 2, atol=1e-9)
    np.testing.assert_allclose([s.record for s in found], (record - neither + both - image) / 2, atol=1e-9)
    assert max(abs(share.image) for share in found) > 0.01
    assert max(abs(share.record) for share in found) > 0.01


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_record_that_is_unknown_adds_exactly_nothing(fusion) -> None:
    network, card = model(fusion)
    features, values = torch.randn(2, network.encoder.out_channels, 4, 4).double(), torch.full((10,), math.nan)
    found = shares_of(network, card, features, values, torch.zeros(10, dtype=torch.bool))
    assert [share.record for share in found] == [0.0] * len(LABELS)
    assert max(abs(share.image) for share in found) > 0.01


def test_an_image_that_the_head_does_not_listen_to_adds_nothing() -> None:
    network, card = model("gated")
    with torch.no_grad():
        network.fusion.image_projection.weight.zero_()
        network.fusion.gate.weight[:, : network.encoder.out_channels] = 0
    features, values = torch.randn(1, network.encoder.out_channels, 4, 4).double(), torch.randn(10).double()
    found = shares_of(network, card, features, values, KNOWN)
    assert max(abs(share.image) for share in found) < 1e-12
    assert max(abs(share.record) for share in found) > 0.01


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_hidden_images_in_training_the_average_training_image_stands_for_one(fusion) -> None:
    network, card = model(fusion, recipe={"settings": {"image_dropout": 0.0}})
    assert hidden_feature(network, card) is None
    features, values = torch.randn(1, network.encoder.out_channels, 4, 4).double(), torch.randn(10).double()
    assert shares_of(network, card, features, values, KNOWN) == [], "nothing stands for it: nothing is claimed"
    network.novelty = Novelty.fit(torch.randn(20, network.encoder.out_channels) + 3)
    average = network.novelty.mean.double().reshape(1, -1, 1, 1).expand(1, -1, 4, 4)
    found = shares_of(network, card, features, values, KNOWN)
    expected = odds(network, average, values, torch.zeros_like(KNOWN))
    np.testing.assert_allclose([share.neither for share in found], expected, atol=1e-9)
    zeros = odds(network, torch.zeros_like(average), values, torch.zeros_like(KNOWN))
    assert np.abs(expected - zeros).max() > 1e-3


# of a prediction


def explained(
    predictor: Predictor, image: MedicalImage, record: ClinicalRecord
) -> tuple[Prediction, list[ModalityShare]]:
    """As a predictor does it, in single precision, for the slices that stand for the study."""
    card = predictor.bundle.card
    wanted = () if card.network.spatial_dims == 3 else tuple(range(image.shape[0]))
    prediction = predictor(image, record)
    _, output = predictor._look(image, record, wanted, SilentProgress())
    study = volume_scores(output.scores(), card, wanted)
    values, known = prepare_clinical([record], card)
    seen = torch.from_numpy(output.seen[study.run])
    return prediction, modality_shares(predictor.network, seen, values[0], known[0], card, study.probabilities)


@pytest.mark.parametrize(("spatial_dims", "slices"), [(2, 1), (2, 7), (3, 6)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_shares_add_up_to_the_reported_probability(fusion, spatial_dims, slices) -> None:
    predictor = make_random_predictor(
        fusion, spatial_dims, volume_slices=3, calibration=CALIBRATION, recipe=HIDDEN_IN_TRAINING
    )
    pixels = np.random.default_rng(0).random((slices, 40, 48), dtype=np.float32)
    prediction, shares = explained(predictor, MedicalImage(pixels, spacing=(1.0, 1.0, 2.0), source="noise"), RECORD)
    for share, contribution in zip(shares, prediction.clinical.contributions, strict=True):
        p = prediction.probabilities[share.finding]
        total = share.neither + share.image + share.record
        assert total == pytest.approx(math.log(p / (1 - p)), abs=1e-9)
        assert total == pytest.approx(contribution.unknown + sum(contribution.fields.values()), abs=1e-9)


def test_a_real_radiograph_by_the_shipped_model(shared_data) -> None:
    """Each of the four answers is also asked of a whole predictor, its encoder blinded where the image is hidden."""
    image = read_image(sorted((shared_data / "images" / "nih").iterdir())[0])
    predictor = Predictor.load(device="cpu")
    blind = without_image(predictor, predictor.network.feature_mean.clone())
    _, shares = explained(predictor, image, RECORD)

    def said(by: Predictor, record: ClinicalRecord) -> np.ndarray:
        return log_odds(np.array([by(image, record).probabilities[label] for label in LABELS]))

    neither, only_record = said(blind, ClinicalRecord()), said(blind, RECORD)
    only_image, both = said(predictor, ClinicalRecord()), said(predictor, RECORD)
    np.testing.assert_allclose([share.neither for share in shares], neither, atol=1e-5)
    np.testing.assert_allclose(
        [share.image for share in shares], (only_image - neither + both - only_record) / 2, atol=1e-5
    )
    np.testing.assert_allclose([share.neither + share.image + share.record for share in shares], both, atol=1e-6)
    assert max(abs(share.image) for share in shares) > 0.5, "the image has a say"
