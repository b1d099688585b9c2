from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError, CancelledError, DeviceError, UsageError
from MediScanLib.network.card import Limit
from MediScanLib.network.novelty import Novelty
from MediScanLib.prediction.devices import available_devices, resolve_device
from MediScanLib.prediction.result import Prediction
from MediScanLib.progress import CallbackProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord
from toys import LABELS, make_predictor


def noise(*shape: int, seed: int = 0, **facts) -> MedicalImage:
    return MedicalImage(
        pixels=np.random.default_rng(seed).random(shape, dtype=np.float32),
        **{"spacing": (1.0, 1.0, 2.0), "source": "noise", **facts},
    )


def smooth(*shape: int, seed: int = 0, **facts) -> MedicalImage:
    """Bright and dark places with soft edges, as tissue has: nothing in it is odd for an image."""
    image = noise(*shape, seed=seed, **facts)
    return image.with_pixels(gaussian_filter(image.pixels, (0, 5, 5)))


def test_prediction_says_everything_and_survives_json():
    record = ClinicalRecord(age_years=63, heart_rate_per_min=88)
    prediction = make_predictor()(noise(1, 40, 60, prefill={"sex": "F", "age_years": 12.0}), record)
    assert [finding.label for finding in prediction.findings] == LABELS
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.clinical.used == {"age_years": 63, "sex": "F"}
    assert prediction.clinical.prefilled == ["sex"]
    assert prediction.clinical.unlearned == ["heart_rate_per_min"], "known_fraction 0 in the card"
    assert "crp_mg_per_l" in prediction.clinical.missing
    assert prediction.provenance.device == "cpu"
    assert "research use" in prediction.notice.lower()
    again = Prediction.from_json(prediction.to_json())
    assert again.to_dict() == prediction.to_dict()
    assert again.maps is None


def test_unlearned_field_has_no_influence():
    predictor = make_predictor()
    torch.manual_seed(0)
    for parameter in predictor.network.fusion.clinical.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(predictor.network.fusion.clinical_projection.weight)
    torch.nn.init.normal_(predictor.network.disease.weight)
    image = noise(1, 40, 60)
    nothing, unlearned, learned = (
        predictor(image, ClinicalRecord(**fields)).probabilities
        for fields in ({}, {"heart_rate_per_min": 150}, {"temperature_c": 41})
    )
    assert nothing == unlearned
    assert nothing != learned


def test_batch_equals_one_by_one():
    predictor = make_predictor(settings=InferenceConfig(max_batch_size=3))
    images = [noise(1, 30 + 7 * i, 50, seed=i) for i in range(5)]
    records = [ClinicalRecord(age_years=10 * i) for i in range(5)]
    together = predictor.predict_batch(list(zip(images, records, strict=True)))
    for image, record, batched in zip(images, records, together, strict=True):
        alone = predictor(image, record)
        assert batched.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
        assert np.allclose(batched.maps.values, alone.maps.values, atol=1e-5)
        assert batched.clinical == alone.clinical


def test_volume_rule_averages_the_least_normal_run():
    pixels = np.full((9, 32, 32), 0.0, dtype=np.float32)
    for index, strength in enumerate([0, 0, 0, 8, 16, 8, 0, 0, 0]):
        pixels[index, :strength, :strength] = 1
        pixels[index, -1, -1] = 1
    prediction = make_predictor(volume_slices=3)(MedicalImage(pixels=pixels, spacing=(1, 1, 1), source="lesion"))
    assert "slices 3 to 5" in prediction.volume_rule
    by_index = {score.index: score.probabilities["pneumonia"] for score in prediction.slices}
    assert prediction.probabilities["pneumonia"] == pytest.approx(np.mean([by_index[i] for i in (3, 4, 5)]))
    assert prediction.probabilities["pneumonia"] > np.mean(list(by_index.values()))


def test_severity_only_where_it_was_learned():
    predictor = make_predictor()
    image = noise(1, 40, 60)
    assert predictor(image).severity.applicable
    with torch.no_grad():
        predictor.network.disease.weight.zero_()
        predictor.network.disease.bias[3] = 5
    fracture = predictor(image).severity
    assert not fracture.applicable
    assert fracture.score is None
    assert "fracture" in fracture.reason
    assert "switched off" in make_predictor(settings=InferenceConfig(severity_scoring=False))(image).severity.reason


def test_without_explanations_there_are_no_maps():
    prediction = make_predictor(settings=InferenceConfig(explainability=False))(noise(1, 40, 60))
    assert prediction.maps is None
    assert prediction.heat_maps == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"modality": "MR"}, "unfamiliar_modality"),
        ({"modality": "CR", "body_part": "SKULL"}, "unfamiliar_body_part"),
        ({"modality": "CT"}, "unknown_body_part"),
    ],
)
def test_unfamiliar_studies_are_left_to_a_human(facts, code):
    certainty = make_predictor()(noise(1, 40, 60, **facts)).certainty
    assert certainty.deferred
    assert certainty.reasons[0].code == code


def test_familiar_study_is_not_deferred():
    certainty = make_predictor()(smooth(1, 40, 60, modality="DX", body_part="thorax")).certainty
    assert not certainty.deferred, certainty


@pytest.mark.parametrize("value", [0.0, 255.0, -1000.0])
def test_blank_image_is_left_to_a_human_and_gives_no_map(value):
    blank = MedicalImage(pixels=np.full((1, 40, 60), value), source="blank")
    prediction = make_predictor()(blank)
    assert prediction.certainty.reasons[0].code == "blank_image"
    assert prediction.maps.on_image("pneumonia").max() == 0


def bright_is_known(spatial_dims: int = 2):
    """A predictor whose training images were all bright."""
    limit = Limit(threshold=0.4, accepted=0.98, fitted_on="nothing")
    predictor = make_predictor(spatial_dims, (64,) * spatial_dims, novelty=limit)
    predictor.network.novelty = Novelty(torch.zeros(1), torch.ones(1, 1), torch.tensor([[1.0]]), 1)
    return predictor


def half_bright(share: float, slices: int = 1) -> MedicalImage:
    pixels = np.zeros((slices, 40, 40), dtype=np.float32)
    pixels[:, : round(40 * share)] = 1
    return MedicalImage(pixels=pixels, spacing=(1.0, 1.0, 2.0), source="half", modality="CR", body_part="CHEST")


def test_an_image_unlike_the_training_images_is_left_to_a_human():
    known, unknown = bright_is_known()(half_bright(0.9)), bright_is_known()(half_bright(0.2))
    assert known.certainty.novelty == pytest.approx(0.25, abs=0.03)  # at distance 0.1, the limit being 0.4
    assert "unlike_training" not in [reason.code for reason in known.certainty.reasons]
    assert unknown.certainty.novelty == pytest.approx(2, abs=0.05)
    (reason,) = (reason for reason in unknown.certainty.reasons if reason.code == "unlike_training")
    assert "times as far" in reason.message


def test_novelty_is_asked_of_batches_and_volumes_too():
    predictor = bright_is_known()
    batch = predictor.predict_batch([(half_bright(0.9), None), (half_bright(0.2), None)])
    assert [prediction.certainty.novelty > 1 for prediction in batch] == [False, True]
    assert predictor(half_bright(0.2, slices=4)).certainty.novelty > 1
    assert bright_is_known(3)(half_bright(0.2, slices=40)).certainty.novelty > 1
    assert make_predictor()(half_bright(0.2)).certainty.novelty is None


def test_one_pixel_image():
    prediction = make_predictor()(MedicalImage(pixels=np.ones((1, 1, 1)), source="dot"))
    assert prediction.certainty.deferred


def test_cancel_between_batches():
    progress = CallbackProgress(lambda *_: None, lambda: True)
    with pytest.raises(CancelledError):
        make_predictor()(noise(20, 32, 32), progress=progress)


def test_progress_reaches_the_end():
    heard = []
    make_predictor()(noise(20, 32, 32), progress=CallbackProgress(lambda *step: heard.append(step)))
    assert heard[0] == ("slices", 0, 20)
    assert heard[-1] == ("slices", 20, 20)


def test_slice_that_is_not_there():
    with pytest.raises(UsageError, match="no slice 3"):
        make_predictor()(noise(3, 32, 32), slices=[3])


@pytest.mark.parametrize("head", ["disease", "severity"])
def test_result_that_is_no_number_is_an_error(head):
    predictor = make_predictor()
    with torch.no_grad():
        getattr(predictor.network, head).bias.fill_(float("nan"))
    with pytest.raises(BundleError, match="not a number"):
        predictor(noise(1, 32, 32))


def test_network_stays_untouched():
    predictor = make_predictor()
    network = predictor.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predictor(noise(1, 40, 60))
    assert not network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_missing_device_lists_those_there_are():
    assert resolve_device("auto").type == available_devices()[0].split(":")[0]
    with pytest.raises(DeviceError, match=r"no device 'cuda:99'.*cpu"):
        resolve_device("cuda:99")
    with pytest.raises(DeviceError, match="no device 'gpu'"):
        resolve_device("gpu")


def test_out_of_memory_halves_the_batch_then_goes_to_the_cpu(monkeypatch):
    """A device that takes no more than two images at first and then none, without a GPU to fill."""
    predictor = make_predictor()
    expected = predictor(noise(8, 32, 32))
    network, tried = predictor.network, []
    real = network.features

    def features(tensor):
        tried.append((predictor.device.type, len(tensor)))
        if predictor.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(tensor)

    monkeypatch.setattr(network, "features", features)
    monkeypatch.setattr(network, "to", lambda *_, **__: network)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    predictor.device = torch.device("meta")  # stands for an accelerator
    prediction = predictor(noise(8, 32, 32))
    assert [size for device, size in tried if device == "meta"] == [8, 4, 2, 1]
    assert prediction.provenance.device == "cpu"
    assert len(prediction.provenance.notes) == 4
    assert "CPU was used instead" in prediction.provenance.notes[-1]
    assert prediction.probabilities == pytest.approx(expected.probabilities)


def test_a_volume_of_unknown_kind_is_left_to_a_human():
    assert make_predictor()(smooth(4, 40, 60)).certainty.reasons[0].code == "unknown_modality"
    assert not make_predictor()(smooth(1, 40, 60)).certainty.deferred, "a picture has no modality to state"


def test_sagittal_ct_under_a_model_of_axial_slices_is_left_to_a_human():
    sagittal = (0, 0, 1, 1, 0, 0, 0, -1, 0)
    image = smooth(4, 40, 60, modality="CT", body_part="CHEST", direction=sagittal)
    certainty = make_predictor()(image).certainty
    assert [reason.code for reason in certainty.reasons] == ["not_axial"]
