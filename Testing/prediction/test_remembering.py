"""The same image with another record asks the head only, and hears nothing else than a full look would say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import CancelledError, UsageError
from MediScanLib.network.card import Limit
from MediScanLib.network.novelty import Novelty
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.remembering import Encoded, LastStudy, Remembered
from MediScanLib.prediction.result import Prediction
from MediScanLib.progress import CallbackProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord
from toys import make_random_predictor

SICK = ClinicalRecord(age_years=81, sex="M", temperature_c=39.5, spo2_percent=84, crp_mg_per_l=210)
WELL = ClinicalRecord(age_years=30, temperature_c=36.7)


def image_of(slices: int = 1, seed: int = 0, **facts) -> MedicalImage:
    pixels = np.random.default_rng(seed).random((slices, 40, 48), dtype=np.float32)
    return MedicalImage(pixels, **{"spacing": (1.0, 1.0, 2.0), "source": "noise", **facts})


def predictor_of(fusion: str = "gated", spatial_dims: int = 2, *, settings=None) -> Predictor:
    """With everything that is told of the features: maps, contrast and novelty."""
    limit = Limit(threshold=0.4, accepted=0.98, fitted_on="nothing")
    predictor = make_random_predictor(fusion, spatial_dims, settings=settings, novelty=limit, volume_slices=3)
    torch.manual_seed(1)
    predictor.network.novelty = Novelty.fit(torch.randn(40, 12), dimensions=4)
    return predictor


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Sizes of the batches that went through an encoder."""
    sizes: list[int] = []
    encode = Predictor._encode

    def counted(self, tensor):
        sizes.append(len(tensor))
        return encode(self, tensor)

    monkeypatch.setattr(Predictor, "_encode", counted)
    return sizes


def same(one: Prediction, other: Prediction) -> bool:
    """To the last bit, but for the time it took."""
    told = [p.model_copy(update={"provenance": p.provenance.model_copy(update={"seconds": {}})}) for p in (one, other)]
    return told[0].to_json() == told[1].to_json() and np.array_equal(one.maps.values, other.maps.values)


@pytest.mark.parametrize(("spatial_dims", "slices"), [(2, 1), (2, 11), (3, 9)])
@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_another_record_costs_the_head_only(fusion, spatial_dims, slices, passes) -> None:
    image, predictor = image_of(slices), predictor_of(fusion, spatial_dims)
    first = predictor(image, SICK)
    before = list(passes)
    for record in (WELL, ClinicalRecord(), SICK):
        again = predictor(image, record)
        assert passes == before, "nothing went through the encoder"
        fresh = predictor_of(fusion, spatial_dims)(image, record)
        passes[:] = before
        assert same(again, fresh)
        assert again.certainty.novelty is not None
    assert same(again, first)
    assert not same(predictor(image, WELL), first)


def test_the_shipped_model_on_a_real_radiograph(shared_data, passes) -> None:
    image = read_image(sorted((shared_data / "images" / "nih").iterdir())[0])
    predictor = Predictor.load(device="cpu")
    predictor(image, SICK)
    again = predictor(image, WELL)
    assert passes == [1]
    assert same(again, Predictor.load(device="cpu")(image, WELL))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pixels_changed_under_a_frozen_image_are_seen(spatial_dims) -> None:
    pixels = np.random.default_rng(0).random((3, 40, 48), dtype=np.float32)
    image = MedicalImage(pixels, spacing=(1.0, 1.0, 2.0), source="noise")
    predictor = predictor_of("gated", spatial_dims)
    before = predictor(image, SICK)
    pixels[1, 10:30] = 0
    assert image.pixels[1, 10:30].max() == 0, "the image does not own its pixels"
    after = predictor(image, SICK)
    assert not same(after, before)
    assert same(after, predictor_of("gated", spatial_dims)(image, SICK))


def test_an_equal_image_is_the_same_image(passes) -> None:
    predictor = predictor_of()
    predictor(image_of(), SICK)
    copy = image_of(source="other", prefill={"sex": "F"}, identifiers={"study": "x"}, warnings=("careful",))
    again = predictor(copy, WELL)
    assert passes == [1]
    assert (again.input, again.image.warnings, again.clinical.prefilled) == ("other", ["careful"], ["sex"])


@pytest.mark.parametrize(
    "facts",
    [
        {"spacing": (1.0, 2.0, 2.0)},
        {"window": (0.5, 0.2)},
        {"modality": "CT"},
        {"units": "HU"},
        {"slice_axis": "frame"},
        {"modality": "CT", "direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_other_facts_are_another_image(facts, passes) -> None:
    predictor = predictor_of()
    predictor(image_of(2), SICK)
    image = image_of(2, **facts)
    assert same(predictor(image, SICK), predictor_of()(image, SICK))
    assert passes == [2, 2, 2]


def test_other_slices_another_shape_or_other_batches_are_looked_at(passes) -> None:
    predictor, image = predictor_of(), image_of(4)
    predictor(image, SICK, slices=[0, 1])
    for slices in ([1, 0], [0], [1, 2], None):
        passes.clear()
        assert same(predictor(image, SICK, slices=slices), predictor_of()(image, SICK, slices=slices))
        assert len(passes) == 2, slices
    passes.clear()
    predictor(image, WELL, slices=range(4))
    assert not passes, "all slices, by name"
    predictor(replace(image, pixels=image.pixels.reshape(4, 48, 40)), WELL)
    assert passes == [4]
    predictor.settings = InferenceConfig(max_batch_size=3)
    predictor(image, WELL)
    assert passes == [4, 3, 1]


def test_slices_that_are_not_looked_at_do_not_matter(passes) -> None:
    pixels = image_of(4).pixels.copy()
    image, predictor = MedicalImage(pixels, source="volume"), predictor_of()
    predictor(image, SICK, slices=[2])
    pixels[0] = 0
    predictor(image, WELL, slices=[2])
    assert passes == [1]


def test_changed_weights_are_noticed() -> None:
    predictor, image = predictor_of(), image_of()
    before = predictor(image, SICK)
    with torch.no_grad():
        predictor.network.encoder.layers.weight.mul_(-1)
    after = predictor(image, SICK)
    assert not same(after, before)
    predictor.network.standardize(torch.randn(20, 12))
    assert not same(predictor(image, SICK), after)


def test_the_head_may_change_without_looking_again(passes) -> None:
    predictor, image = predictor_of(), image_of()
    predictor(image, SICK)
    predictor.settings = InferenceConfig(explainability=False)
    assert predictor(image, SICK).maps is None
    assert passes == [1]


def test_a_batch_takes_the_memory(passes) -> None:
    predictor, image = predictor_of(), image_of()
    predictor(image, SICK)
    predictor.predict_batch([(image, SICK), (image, WELL)])
    assert predictor._last._study is None
    predictor(image, SICK)
    assert passes == [1, 2, 1]


def test_a_study_that_is_too_large_is_not_kept(passes) -> None:
    predictor, image = predictor_of(settings=InferenceConfig(max_batch_size=2)), image_of(6)
    sample = 4 * 12 * 4 * 4  # float32 features of a slice
    predictor._last = LastStudy(most_bytes=5 * sample)
    first = predictor(image, SICK)
    assert predictor._last._study is None
    assert predictor._last._batches is None
    assert same(predictor(image, SICK), first)
    assert passes == [2] * 6
    predictor._last = LastStudy(most_bytes=6 * sample)
    predictor(image, SICK)
    predictor(image, SICK)
    assert passes == [2] * 9


def test_what_is_kept_is_no_more_than_the_features() -> None:
    predictor = predictor_of()
    predictor(image_of(6), SICK)
    kept = predictor._last._study
    assert isinstance(kept, Remembered)
    assert kept.prepared.tensor.untyped_storage().nbytes() == 0
    assert [batch.features.shape for batch in kept.batches] == [(6, 12, 4, 4)]


def test_progress_and_cancel_work_as_in_a_full_look(passes) -> None:
    predictor, image = predictor_of(settings=InferenceConfig(max_batch_size=2)), image_of(5)
    full, again = [], []
    for heard in (full, again):
        predictor(image, SICK, progress=CallbackProgress(lambda *step, heard=heard: heard.append(step)))
    assert full == again == [("slices", done, 5) for done in (0, 2, 4, 5)]
    steps: list[int] = []
    stop_after_two = CallbackProgress(lambda _stage, done, _total: steps.append(done), lambda: 2 in steps)
    with pytest.raises(CancelledError, match="2 of 5"):
        predictor(image, WELL, progress=stop_after_two)
    assert same(predictor(image, WELL), predictor_of(settings=predictor.settings)(image, WELL))
    assert passes == [2, 2, 1] * 2, "once at first and once by the other predictor"


def test_a_cancelled_study_is_not_taken_for_a_whole_one() -> None:
    settings = InferenceConfig(max_batch_size=2)
    predictor, image, steps = predictor_of(settings=settings), image_of(6), []
    stop = CallbackProgress(lambda _stage, done, _total: steps.append(done), lambda: 4 in steps)
    with pytest.raises(CancelledError):
        predictor(image, SICK, progress=stop)
    assert same(predictor(image, SICK), predictor_of(settings=settings)(image, SICK))


def test_a_head_without_memory_is_asked_anew(monkeypatch) -> None:
    """A device that is full when it is asked again, without a GPU to fill."""
    predictor, image = predictor_of(), image_of(2)
    monkeypatch.setattr(predictor.network, "to", lambda *_, **__: predictor.network)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    predictor.device = torch.device("meta")  # stands for an accelerator
    expected = predictor(image, WELL)
    predictor(image, SICK)
    answer, failures = predictor._answer, [torch.OutOfMemoryError("CUDA out of memory")] * 2

    def failing(*arguments):
        if failures:
            raise failures.pop()
        return answer(*arguments)

    monkeypatch.setattr(predictor, "_answer", failing)
    prediction = predictor(image, WELL)
    assert "tried 1" in prediction.provenance.notes[0], "first the kept features, then a batch of two"
    assert prediction.probabilities == pytest.approx(expected.probabilities)
    assert predictor._last._study is None, "what went otherwise than asked is not kept"


@pytest.mark.parametrize("slices", [[3], [-1], [0, 9]])
def test_a_slice_that_is_not_there_is_refused(slices) -> None:
    predictor, image = predictor_of(), image_of(3)
    predictor(image, SICK)
    with pytest.raises(UsageError, match=f"no slice {slices[-1]}"):
        predictor(image, SICK, slices=slices)
    with pytest.raises(UsageError, match="no slice was chosen"):
        predictor(image, SICK, slices=[])


def test_only_a_finished_study_is_recalled() -> None:
    predictor, last = predictor_of(), LastStudy(most_bytes=100)
    predictor(image_of(), SICK)
    prepared = predictor._last._study.prepared
    last.begin("a")
    last.add(Encoded(torch.zeros(2, 1, 2, 2), np.ones(2, bool)))
    assert last.recall("a") is None
    last.finish(prepared)
    assert len(last.recall("a").batches) == 1
    assert last.recall("b") is None
    last.begin("b")
    assert last.recall("a") is None
    last.forget()
    last.add(Encoded(torch.zeros(2, 1, 2, 2), np.ones(2, bool)))
    last.finish(prepared)
    assert last.recall("b") is None
