"""Predictions for many inputs: order, and what one bad input does to the others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError, ReadError
from MediScanLib.prediction import batch
from MediScanLib.prediction.batch import predict_inputs, shown
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord
from toys import make_predictor


@pytest.fixture
def studies(monkeypatch) -> dict[str, MedicalImage | Exception]:
    """What `read_image` finds under a name; fill it in the test."""
    content: dict[str, MedicalImage | Exception] = {}

    def read(path, *, series=None, name=None):
        found = content[path.name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(batch, "read_image", read)
    return content


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Sizes of the batches that went through the network, over all predictors."""
    sizes: list[int] = []
    forward = Predictor._forward

    def counted(self, tensor, *rest):
        sizes.append(len(tensor))
        return forward(self, tensor, *rest)

    monkeypatch.setattr(Predictor, "_forward", counted)
    return sizes


def noise(name: str, *shape: int) -> MedicalImage:
    pixels = np.random.default_rng(len(name)).random(shape, dtype=np.float32)
    return MedicalImage(pixels=pixels, spacing=(1, 1, 1), source=name)


def unknown(_path: Path) -> ClinicalRecord:
    return ClinicalRecord()


def outcomes(predictor: Predictor, names, record_of=unknown, **options):
    return list(predict_inputs(predictor, [Path(name) for name in names], record_of, **options))


def test_order_is_kept_and_single_images_go_together(studies, passes):
    names = [f"{number}" for number in range(7)]
    studies.update({name: noise(name, 1, 30, 40) for name in names})
    predictor = make_predictor(settings=InferenceConfig(max_batch_size=3))
    found = outcomes(predictor, names)
    assert [outcome.source for outcome in found] == names
    assert [outcome.prediction.input for outcome in found] == names
    assert [outcome.image.source for outcome in found] == names
    assert passes == [3, 3, 1]


def test_together_is_the_same_as_alone(studies):
    names = ["a", "bb", "ccc"]
    studies.update({name: noise(name, 1, 20 + 9 * i, 40) for i, name in enumerate(names)})
    records = {name: ClinicalRecord(age_years=20 * i) for i, name in enumerate(names)}
    predictor = make_predictor()
    for outcome in outcomes(predictor, names, lambda path: records[path.name]):
        alone = predictor(studies[outcome.source], records[outcome.source])
        assert outcome.prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
        assert outcome.prediction.clinical == alone.clinical


def test_what_cannot_be_read_keeps_its_place(studies, passes):
    studies.update(
        a=noise("a", 1, 30, 40),
        b=ReadError("b", "is an empty file", "Copy it again", code="empty"),
        c=ValueError("surprise"),
        d=MemoryError(),
        e=noise("e", 1, 30, 40),
    )
    found = outcomes(make_predictor(), "abcde")
    assert [outcome.error_code for outcome in found] == [None, "empty", "internal", "out_of_memory", None]
    assert found[1].error_message == "b: is an empty file. Copy it again"
    assert "ValueError: surprise" in found[2].error_message
    assert "--debug" in found[2].error_message
    assert "not enough memory" in found[3].error_message
    assert all(found[i].prediction is None and found[i].image is None for i in (1, 2, 3))
    assert passes == [2], "the good ones went together all the same"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("not a number"), "bundle"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), "out_of_memory"),
        (RuntimeError("mat1 and mat2"), "internal"),
    ],
)
def test_one_image_of_a_batch_fails_in_the_network(studies, monkeypatch, error, code):
    studies.update({name: noise(name, 1, 30, 40) for name in "abc"})
    studies["b"] = MedicalImage(pixels=np.zeros((1, 64, 64)), source="b")
    forward = Predictor._forward

    def failing(self, tensor, *rest):
        if (tensor.flatten(1).amax(1) == 0).any():
            raise error
        return forward(self, tensor, *rest)

    monkeypatch.setattr(Predictor, "_forward", failing)
    found = outcomes(make_predictor(), "abc")
    assert [outcome.error_code for outcome in found] == [None, code, None]


def test_a_volume_among_single_images(studies, passes):
    studies.update(a=noise("a", 1, 30, 40), b=noise("b", 1, 30, 40), v=noise("v", 5, 30, 40), c=noise("c", 1, 30, 40))
    predictor = make_predictor(settings=InferenceConfig(max_batch_size=4))
    found = outcomes(predictor, "abvc")
    assert [outcome.source for outcome in found] == list("abvc")
    assert passes == [2, 4, 1, 1], "the two before it, its slices, the one after it"
    assert [len(outcome.prediction.slices) for outcome in found] == [0, 0, 5, 0]


def test_large_images_do_not_pile_up(studies, passes, monkeypatch):
    studies.update({name: noise(name, 1, 100, 100) for name in "abcdef"})
    monkeypatch.setattr(batch, "_MOST_HELD_BYTES", 2 * studies["a"].pixels.nbytes)
    assert len(outcomes(make_predictor(), "abcdef")) == 6
    assert passes == [3, 3], "the third goes beyond the limit and is not followed by more"


def test_results_come_before_the_next_images_are_read(studies):
    studies.update({name: noise(name, 1, 30, 40) for name in "ab"})
    stream = predict_inputs(make_predictor(settings=InferenceConfig(max_batch_size=2)), [*map(Path, "abz")], unknown)
    assert [next(stream).source for _ in "ab"] == ["a", "b"], "z does not exist and was not asked for yet"
    with pytest.raises(StopIteration):
        assert next(stream).error_code == "internal"
        next(stream)


def test_one_slice_of_each(studies):
    studies.update(a=noise("a", 1, 30, 40), v=noise("v", 5, 30, 40))
    single, volume = outcomes(make_predictor(), "av", slice_index=3)
    assert single.error_code == "usage"
    assert "no slice 3; it has 1, counted from 0" in single.error_message
    assert volume.prediction.slices == [], "one slice has no rule over several"
    alone = make_predictor()(studies["v"], slices=[3])
    assert volume.prediction.probabilities == pytest.approx(alone.probabilities)
    assert [outcome.error_code for outcome in outcomes(make_predictor(), "av", slice_index=0)] == [None, None]


def test_ctrl_c_is_not_taken_for_a_failure(studies, monkeypatch):
    studies.update(a=noise("a", 1, 30, 40))
    monkeypatch.setattr(Predictor, "_forward", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        outcomes(make_predictor(), "a")


def test_nothing_to_do():
    assert outcomes(make_predictor(), []) == []


def test_series_is_for_folders_only(monkeypatch, tmp_path):
    asked = {}

    def read(path, *, series=None, name=None):
        asked[path.name] = series
        return noise("x", 1, 9, 9)

    monkeypatch.setattr(batch, "read_image", read)
    (tmp_path / "folder").mkdir()
    outcomes(make_predictor(), [tmp_path / "folder", tmp_path / "file"], series="1.2.3")
    assert asked == {"folder": "1.2.3", "file": None}


@pytest.mark.skipif(os.name != "posix", reason="bytes as file names")
def test_names_that_are_no_text_are_shown_as_escapes(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(path)
    (outcome,) = outcomes(make_predictor(), [path])
    assert outcome.source == outcome.prediction.input == f"{tmp_path}/\\xff.png" == shown(path)
    assert shown(Path("ä/胸.png")) == str(Path("ä/胸.png"))
