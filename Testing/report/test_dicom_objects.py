"""What a prediction becomes in DICOM, read back by other software than wrote it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image

from dicom_files import write_series, write_study
from MediScanLib.errors import ReportError, UsageError, WriteError
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.prediction.result import Prediction
from MediScanLib.report.dicom import codes
from MediScanLib.report.dicom.source import load_sources, source_files
from MediScanLib.report.dicom.uids import content_digest
from MediScanLib.report.dicom.writing import make_dicom_results, save_dicom_results, write_dicom_results
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord
from toys import make_predictor

hd = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install mediscan[dicom]")

WHEN = datetime(2024, 5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def results_of(path: Path, predictor, record: ClinicalRecord | None = None, **options):
    prediction = predictor(read_image(path), record)
    return prediction, make_dicom_results(prediction, None, source_files(path), when=WHEN, **options)


def read_back(results, folder: Path) -> dict[str, pydicom.Dataset]:
    return {path.stem: pydicom.dcmread(path) for path in save_dicom_results(results, folder)}


def oblique(count: int = 6, *, step: float = 2.5, tilt: float = 0.0) -> tuple[list[list[float]], list[float]]:
    """Positions and orientation of a stack that lies across all axes; `tilt` moves slices along their rows, mm."""
    along = np.array([0.8, 0.6, 0.0])
    down = np.array([-0.36, 0.48, 0.8])
    normal = np.cross(along, down)
    start = np.array([-37.5, 12.25, 101.0])
    return [list(start + step * i * normal + tilt * i * down) for i in range(count)], [*along, *down]


def ct_volume(count: int = 6) -> np.ndarray:
    volume = np.full((count, 48, 40), -900.0)
    volume[2:4, 10:20, 24:34] = 700
    return volume


class TestReport:
    def test_says_what_the_prediction_says(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        record = ClinicalRecord(age_years=67, sex="F", crp_mg_per_l=120)
        prediction, results = results_of(path, predictor, record)
        save_dicom_results(results, tmp_path / "out")
        report = hd.sr.srread(tmp_path / "out" / "sr.dcm")

        assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        assert (report.VerificationFlag, report.PreliminaryFlag, report.CompletionFlag) == (
            "UNVERIFIED",
            "PRELIMINARY",
            "COMPLETE",
        )
        groups = {group.tracking_identifier: group for group in groups_of(report)}
        for finding in prediction.findings:
            group = groups[f"MediScan {finding.label}"]
            assert group.finding_type.value == codes.finding_term(finding.label).value
            (certainty,) = group.get_measurements(name=code(codes.CERTAINTY_OF_FINDING))
            assert certainty.value == pytest.approx(100 * finding.probability, abs=0.001)
            assert certainty.unit.value == "%"
            (decision,) = group.get_qualitative_evaluations(name=code(codes.PRESENCE))
            assert decision.value.value == codes.DECISIONS[finding.decision].value
        study = groups["MediScan study"]
        assert study.get_measurements(name=code(codes.SEVERITY_VALUE))[0].value == pytest.approx(
            prediction.severity.value, rel=1e-4
        )
        clinical = {item.name.value: item.value for item in groups["MediScan clinical"].get_measurements()}
        assert clinical == {"30525-0": 67, "1988-5": 120}
        text = report.to_json()
        assert prediction.provenance.model_sha256 in text
        assert prediction.provenance.model_version in text
        assert RESEARCH_USE_NOTICE in text

    def test_pneumonia_has_its_radlex_code_too(self, tmp_path, predictor):
        _, results = results_of(write_study(tmp_path / "chest.dcm"), predictor, kinds=("sr",))
        found = {
            (concept.CodeValue, concept.EquivalentCodeSequence[0].CodeValue)
            for item in items_of(results.objects["sr"])
            for concept in item.get("ConceptCodeSequence", ())
            if "EquivalentCodeSequence" in concept
        }
        assert found == {("233604007", "RID5350"), ("125605004", "RID4650")}

    def test_interval_is_in_percent(self, tmp_path, predictor):
        prediction, results = results_of(write_study(tmp_path / "chest.dcm"), predictor, kinds=("sr",))
        low, high = prediction.findings[1].interval
        ranges = [
            item.MeasuredValueSequence[0]
            for item in items_of(results.objects["sr"])
            if item.get("ConceptNameCodeSequence", [{}])[0].get("CodeValue") in ("371886008", "371885007")
        ]
        assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in ranges} == {"%"}
        assert float(ranges[2].NumericValue) == pytest.approx(
            100 * (high - prediction.findings[1].probability), abs=1e-2
        )
        assert float(ranges[3].NumericValue) == pytest.approx(
            100 * (prediction.findings[1].probability - low), abs=1e-2
        )

    def test_refers_to_its_images_and_its_segment(self, tmp_path, predictor):
        positions, orientation = oblique()
        folder = write_series(tmp_path / "ct", ct_volume(), positions, orientation)
        _, results = results_of(folder, predictor)
        report = results.objects["sr"]
        evidence = {
            item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        images = {f"1.2.826.0.1.3680043.8.498.2.{i + 1}": "1.2.840.10008.5.1.4.1.1.2" for i in range(6)}
        others = {o.SOPInstanceUID: o.SOPClassUID for name, o in results.objects.items() if name != "sr"}
        assert evidence == {**images, **others}
        referred = [
            (
                item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
                item.ReferencedSOPSequence[0].ReferencedSegmentNumber,
            )
            for item in items_of(report)
            if item.get("ValueType") == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
        ]
        assert referred == [(results.objects["seg"].SOPInstanceUID, 1)]

    def test_label_without_a_standard_code_gets_one_of_ours(self):
        term = codes.finding_term("pleural effusion, left")
        assert term.scheme == "99MEDISCAN"
        assert len(term.value) <= 16
        assert term.meaning == "pleural effusion, left"
        assert codes.finding_term("pleural effusion, right").value != term.value


class TestGeometry:
    def test_segmentation_lies_on_the_source_slices(self, tmp_path, predictor):
        positions, orientation = oblique()
        folder = write_series(tmp_path / "ct", ct_volume(), positions, orientation, spacing=(0.7, 0.9))
        prediction, results = results_of(folder, predictor)
        back = read_back(results, tmp_path / "out")["seg"]
        assert back.SegmentationType == "FRACTIONAL"
        assert back.SegmentationFractionalType == "PROBABILITY"
        shared = back.SharedFunctionalGroupsSequence[0]
        assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, (0.7, 0.9))
        assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation, atol=1e-6)
        for frame, values in zip(back.PerFrameFunctionalGroupsSequence, back.pixel_array, strict=True):
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            index = int(source.ReferencedSOPInstanceUID.rpartition(".")[2]) - 1
            assert source.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
            assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, positions[index], atol=1e-4)
            expected = prediction.maps.normalized("pneumonia", index)[0]
            assert np.abs(values / 255 - expected).max() <= 0.5 / 255 + 1e-5
        assert back.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.2"

    def test_parametric_map_is_the_volume_that_itk_reads(self, tmp_path, predictor):
        positions, orientation = oblique()
        folder = write_series(tmp_path / "ct", ct_volume(), positions, orientation, spacing=(0.7, 0.9))
        prediction, results = results_of(folder, predictor)
        back = read_back(results, tmp_path / "out")["pm-pneumonia"]
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        source = reader.Execute()
        shared = back.SharedFunctionalGroupsSequence[0]
        spacing = [*map(float, shared.PixelMeasuresSequence[0].PixelSpacing[::-1])]
        spacing.append(float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices))
        assert np.allclose(spacing, source.GetSpacing(), atol=1e-4)
        direction = np.reshape(source.GetDirection(), (3, 3))
        stated = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        assert np.allclose(stated, direction[:, :2].T, atol=1e-5)
        assert back.NumberOfFrames == source.GetDepth()
        values = np.frombuffer(back.FloatPixelData, "<f4").reshape(source.GetDepth(), 48, 40)
        heat = prediction.maps.on_image("pneumonia") / prediction.maps.scale("pneumonia")
        for frame, plane in zip(back.PerFrameFunctionalGroupsSequence, values, strict=True):
            place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            index = source.TransformPhysicalPointToContinuousIndex(place)
            assert np.allclose(index[:2], 0, atol=1e-3)
            assert abs(index[2] - round(index[2])) < 1e-3
            assert np.array_equal(plane, heat[round(index[2])])

    def test_highdicom_makes_the_same_volume_of_the_map(self, tmp_path, predictor):
        folder = write_series(tmp_path / "ct", ct_volume(), [[-10, -20, 30 + 2.5 * i] for i in range(6)])
        prediction, results = results_of(folder, predictor)
        save_dicom_results(results, tmp_path / "out")
        volume = hd.imread(tmp_path / "out" / "pm-pneumonia.dcm").get_volume()
        heat = prediction.maps.on_image("pneumonia") / prediction.maps.scale("pneumonia")
        assert np.allclose(volume.spacing, (2.5, 1, 1))
        for index, plane in enumerate(volume.array):
            x, y, z = volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0]
            assert (x, y) == pytest.approx((-10, -20))
            assert np.allclose(plane, heat[round((z - 30) / 2.5)])

    def test_tilted_slices_keep_their_own_pixels(self, tmp_path, predictor):
        """The image that was looked at was straightened; the segmentation must not be."""
        positions, orientation = oblique(tilt=1.3)
        folder = write_series(tmp_path / "ct", ct_volume(), positions, orientation)
        image = read_image(folder)
        assert image.shape[1] > 48  # moved within their planes
        prediction, results = results_of(folder, predictor)
        seg, pm = results.objects["seg"], results.objects["pm-pneumonia"]
        assert (seg.Rows, seg.Columns) == (48, 40)
        assert (pm.Rows, pm.Columns) == image.shape[1:]
        heat = np.zeros((6, 48, 40))
        for frame, values in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
            uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            heat[int(uid.rpartition(".")[2]) - 1] = values / 255
        for place in ((2, 14, 28), (3, 17, 26), (2, 5, 5)):  # the same points of the patient in both
            point = (
                np.array(positions[place[0]])
                + place[1] * np.array(orientation[3:])
                + place[2] * np.array(orientation[:3])
            )
            slice_, row, column = image.to_index(tuple(point))
            full = prediction.maps.normalized("pneumonia", round(slice_))[0]
            low = int(row)
            part = row - low
            expected = (1 - part) * full[low, round(column)] + part * full[low + 1, round(column)]
            assert heat[place] == pytest.approx(expected, abs=0.01)

    def test_interpolated_slices(self, tmp_path, predictor):
        positions, orientation = oblique()
        gaps = [0, 2.0, 4.0, 7.0, 9.0, 12.0]
        normal = np.cross(orientation[:3], orientation[3:])
        places = [list(np.array(positions[0]) + gap * normal) for gap in gaps]
        folder = write_series(tmp_path / "ct", ct_volume(), places, orientation)
        image = read_image(folder)
        assert image.shape[0] == 7
        prediction, results = results_of(folder, predictor)
        sources = load_sources(source_files(folder), prediction)
        assert [place.slice_index for place in sources.places] == pytest.approx([0, 1, 2, 3.5, 4.5, 6], abs=1e-3)
        seg = results.objects["seg"]
        at = next(
            index
            for index, frame in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID.endswith("498.2.4")
        )
        both = prediction.maps.on_image("pneumonia", 3) + prediction.maps.on_image("pneumonia", 4)
        expected = np.minimum(both[0] / 2 / prediction.maps.scale("pneumonia"), 1)
        assert np.abs(seg.pixel_array[at] / 255 - expected).max() < 0.01
        assert results.objects["pm-pneumonia"].NumberOfFrames == image.shape[0]

    def test_one_slice_of_a_volume(self, tmp_path, predictor):
        positions, orientation = oblique()
        folder = write_series(tmp_path / "ct", ct_volume(), positions, orientation)
        path = next(p for p in folder.iterdir() if pydicom.dcmread(p).SOPInstanceUID.endswith("2.3"))
        _, results = results_of(path, predictor)
        assert set(results.objects) == {"sr", "seg", "pm-pneumonia", "sc-pneumonia"}
        frame = results.objects["pm-pneumonia"].PerFrameFunctionalGroupsSequence[0]
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, positions[2], atol=1e-4)

    def test_series_without_frame_of_reference(self, tmp_path, predictor):
        folder = write_series(
            tmp_path / "ct", ct_volume(), [[0, 0, 2.0 * i] for i in range(6)], FrameOfReferenceUID=None
        )
        _, first = results_of(folder, predictor)
        _, second = results_of(folder, predictor)
        assert first.objects["seg"].FrameOfReferenceUID == first.objects["pm-pneumonia"].FrameOfReferenceUID
        assert first.objects["seg"].FrameOfReferenceUID == second.objects["seg"].FrameOfReferenceUID

    def test_multiframe_with_places(self, tmp_path, predictor):
        """An enhanced CT whose frames run downwards while the volume that is read runs upwards."""
        volume = np.rint(ct_volume() + 1024).astype(np.uint16)
        path = write_study(
            tmp_path / "enhanced.dcm",
            volume,
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
            Modality="CT",
            FrameOfReferenceUID="1.2.3.4.5",
            PixelSpacing=None,
            ImagerPixelSpacing=None,
            **functional_groups([[-5, -6, 50 - 3.0 * i] for i in range(6)]),
        )
        prediction, results = results_of(path, predictor)
        seg = results.objects["seg"]
        for frame, values in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            number = source.ReferencedFrameNumber
            assert frame.PlanePositionSequence[0].ImagePositionPatient[2] == pytest.approx(50 - 3.0 * (number - 1))
            expected = prediction.maps.normalized("pneumonia", 6 - number)[0]
            assert np.abs(values / 255 - expected).max() <= 0.5 / 255 + 1e-5

    def test_loose_frames_have_a_report_and_pictures(self, tmp_path, predictor):
        path = write_study(
            tmp_path / "cine.dcm",
            np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8),
            SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
            Modality="US",
            ImagerPixelSpacing=None,
        )
        prediction, results = results_of(path, predictor)
        assert set(results.objects) == {"sr", f"sc-{prediction.top.label}"}
        assert any(note.startswith("No segmentation") for note in results.notes)


class TestRadiograph:
    def test_planar_image_has_segmentation_and_picture_but_no_parametric_map(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        prediction, results = results_of(path, predictor)
        back = read_back(results, tmp_path / "out")
        assert set(back) == {"sr", "seg", "sc-pneumonia"}
        assert any("No parametric map" in note for note in results.notes)
        seg = back["seg"]
        assert "FrameOfReferenceUID" not in seg
        reference = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.1.1"
        assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.1"
        expected = prediction.maps.normalized("pneumonia")[0]
        assert np.abs(seg.pixel_array / 255 - expected).max() <= 0.5 / 255 + 1e-5
        assert hd.seg.segread(tmp_path / "out" / "seg.dcm").number_of_segments == 1

    def test_stretched_pixels(self, tmp_path, predictor):
        """Pixels that were made square on reading: the segmentation has the file's own rows."""
        path = write_study(tmp_path / "chest.dcm", PixelSpacing=None, ImagerPixelSpacing=None, PixelAspectRatio=[2, 1])
        image = read_image(path)
        assert image.shape == (1, 240, 100)
        prediction, results = results_of(path, predictor)
        seg = results.objects["seg"]
        assert (seg.Rows, seg.Columns) == (120, 100)
        full = prediction.maps.normalized("pneumonia")[0]
        expected = (full[0::2] + full[1::2]) / 2  # centre of a file's pixel: between two stretched ones
        assert np.abs(seg.pixel_array / 255 - expected).max() < 0.02

    @pytest.mark.parametrize(
        "elements",
        [
            {"PhotometricInterpretation": "MONOCHROME1"},
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6", "Modality": "US"},  # a retired class
            {"SOPClassUID": "1.2.3.4.5.6.7"},  # a private one
            {"FrameOfReferenceUID": "1.2.3"},  # without a place in it
            {"PatientID": None, "PatientName": None, "PatientBirthDate": None, "StudyDate": None, "StudyID": None},
            {"PatientBirthDate": "1957", "StudyTime": "noon", "PatientSex": "X", "PatientAge": "67"},
            {"LossyImageCompression": "01", "LossyImageCompressionRatio": 12.5},
        ],
    )
    def test_awkward_headers(self, tmp_path, predictor, elements):
        path = write_study(tmp_path / "chest.dcm", **elements)
        _, results = results_of(path, predictor)
        back = read_back(results, tmp_path / "out")
        assert set(back) == {"sr", "seg", "sc-pneumonia"}
        for dataset in back.values():
            assert dataset.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.1.3"
            for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyDate"):
                assert keyword in dataset
        classes = {
            item.ReferencedSOPClassUID
            for item in items_of(back["seg"])
            if item.get("ReferencedSOPInstanceUID") == "1.2.826.0.1.3680043.8.498.1.1"
        }
        assert classes == {elements.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1")}

    def test_monochrome1_is_shown_the_right_way_round(self, tmp_path, predictor):
        pixels = np.full((120, 100), 20, np.uint8)
        pixels[:60, :50] = 220
        plain = write_study(tmp_path / "a.dcm", pixels, BurnedInAnnotation="NO")
        inverse = write_study(tmp_path / "b.dcm", 255 - pixels, PhotometricInterpretation="MONOCHROME1")
        shown = [results_of(path, predictor)[1].objects["sc-pneumonia"] for path in (plain, inverse)]
        left = [picture.pixel_array[60:500, 20:400].astype(float) for picture in shown]
        assert np.abs(left[0] - left[1]).mean() < 2
        assert shown[0].BurnedInAnnotation == "NO"
        assert "BurnedInAnnotation" not in shown[1]  # nobody knows

    def test_picture_shows_image_heat_and_notice(self, tmp_path, predictor, output_folder):
        _, results = results_of(write_study(tmp_path / "Doe Jane.dcm"), predictor)
        picture = results.objects["sc-pneumonia"]
        assert picture.PhotometricInterpretation == "RGB"
        assert picture.ImageType[:2] == ["DERIVED", "SECONDARY"]
        pixels = picture.pixel_array
        assert np.abs(pixels[..., 0].astype(int) - pixels[..., 2]).max() > 100  # color
        assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.1.1"
        (output_folder / "report").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(output_folder / "report" / "dicom-secondary-capture.png")

    def test_compressed_source(self, shared_data, tmp_path, predictor):
        path = shared_data / "dicom" / "files" / "pydicom_data__RG1_J2KR.dcm"
        _, results = results_of(path, predictor)
        assert set(results.objects) == {"sr", "seg", "sc-pneumonia"}
        source = pydicom.dcmread(path, stop_before_pixels=True)
        assert (results.objects["seg"].Rows, results.objects["seg"].Columns) == (source.Rows, source.Columns)


class TestIdentity:
    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("ISO_IR 100", "Müßig^Zoë"),
            ("ISO_IR 127", "قباني^لنزار"),
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
            ("ISO_IR 192", "Þórsdóttir^Ærún=王^小东"),
        ],
    )
    def test_names_survive_their_character_set(self, tmp_path, predictor, charset, name):
        path = write_study(tmp_path / "chest.dcm", SpecificCharacterSet=charset, PatientName=name)
        _, results = results_of(path, predictor)
        for dataset in read_back(results, tmp_path / "out").values():
            assert str(dataset.PatientName) == name
            assert dataset.SpecificCharacterSet == "ISO_IR 192"

    def test_same_study_and_patient(self, tmp_path, predictor):
        _, results = results_of(write_study(tmp_path / "chest.dcm"), predictor)
        for dataset in read_back(results, tmp_path / "out").values():
            assert dataset.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.1.3"
            assert (dataset.PatientID, dataset.IssuerOfPatientID) == ("SECRET-4711", "HOSPITAL-X")
            assert (dataset.AccessionNumber, dataset.StudyDate) == ("ACC987654", "20240506")
            assert dataset.SeriesInstanceUID != "1.2.826.0.1.3680043.8.498.1.2"
        assert len({dataset.SeriesInstanceUID for dataset in results.objects.values()}) == 3

    def test_same_again_is_byte_for_byte_the_same(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        for name in ("a", "b"):
            save_dicom_results(results_of(path, predictor)[1], tmp_path / name)
        for first in (tmp_path / "a").iterdir():
            assert first.read_bytes() == (tmp_path / "b" / first.name).read_bytes()

    def test_other_values_are_another_result(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        uids = {
            results_of(path, predictor, record, kinds=("sr",))[1].objects["sr"].SOPInstanceUID
            for record in (None, ClinicalRecord(crp_mg_per_l=5), ClinicalRecord(crp_mg_per_l=300))
        }
        assert len(uids) == 3

    def test_other_image_or_other_weights_are_another_result(self, tmp_path, predictor):
        uids = set()
        for number, weights in ((1, "0" * 64), (2, "0" * 64), (1, "1" * 64)):
            path = write_study(tmp_path / "chest.dcm", SOPInstanceUID=f"1.2.3.{number}")
            prediction = predictor(read_image(path))
            prediction.provenance = prediction.provenance.model_copy(update={"model_sha256": weights})
            results = make_dicom_results(prediction, None, [path], kinds=("sr", "seg"))
            uids |= {dataset.SOPInstanceUID for dataset in results.objects.values()}
            uids |= {dataset.SeriesInstanceUID for dataset in results.objects.values()}
        assert len(uids) == 12

    def test_digest_ignores_where_and_when(self, tmp_path, predictor):
        prediction = predictor(read_image(write_study(tmp_path / "chest.dcm")))
        moved = Prediction.from_json(prediction.to_json())
        moved.input = "elsewhere.dcm"
        moved.provenance = moved.provenance.model_copy(update={"device": "cuda:0", "seconds": {"read": 9.0}})
        assert content_digest(moved) == content_digest(prediction)


class TestRefusals:
    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
    def test_missing_uid(self, tmp_path, predictor, keyword):
        path = write_study(tmp_path / "chest.dcm", **{keyword: None})
        with pytest.raises(ReportError, match=f"no {keyword}") as caught:
            results_of(path, predictor)
        assert caught.value.code == "missing_uid"

    def test_png(self, tmp_path, predictor):
        path = tmp_path / "chest.png"
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
        with pytest.raises(ReportError, match="is not DICOM") as caught:
            results_of(path, predictor)
        assert caught.value.code == "not_dicom"

    def test_files_of_another_patient(self, tmp_path, predictor):
        prediction = predictor(read_image(write_study(tmp_path / "a.dcm")))
        other = write_study(tmp_path / "b.dcm", PatientID="4712")
        with pytest.raises(ReportError, match="another patient") as caught:
            make_dicom_results(prediction, None, [other])
        assert caught.value.code == "source_mismatch"
        assert "4712" not in str(caught.value)

    def test_part_of_a_series(self, tmp_path, predictor):
        folder = write_series(tmp_path / "ct", ct_volume(), [[0, 0, 2.0 * i] for i in range(6)])
        prediction = predictor(read_image(folder))
        sources = load_sources(sorted(folder.iterdir())[:4], prediction)  # allowed: results on some of the slices
        assert len(sources.places) == 4
        other = write_series(tmp_path / "far", ct_volume(), [[0, 0, 500 + 2.0 * i] for i in range(6)])
        with pytest.raises(ReportError, match="not the image that was predicted"):
            load_sources(sorted(other.iterdir()), prediction)

    def test_unknown_kind(self, tmp_path, predictor):
        with pytest.raises(UsageError, match="gsps"):
            results_of(write_study(tmp_path / "chest.dcm"), predictor, kinds=("gsps",))

    def test_without_maps_there_is_a_report(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        prediction = Prediction.from_json(predictor(read_image(path)).to_json())
        results = make_dicom_results(prediction, None, [path])
        assert set(results.objects) == {"sr"}
        assert "no heat maps" in results.notes[0]

    def test_hostile_header(self, tmp_path, predictor):
        path = write_study(tmp_path / "chest.dcm")
        prediction = predictor(read_image(path))
        content = bytearray(path.read_bytes())
        (tmp_path / "cut.dcm").write_bytes(content[:700])
        with pytest.raises(Exception) as caught:
            make_dicom_results(prediction, None, [tmp_path / "cut.dcm"])
        assert type(caught.value).__module__ == "MediScanLib.errors"

    def test_full_disk_leaves_nothing(self, tmp_path, predictor, monkeypatch):
        path = write_study(tmp_path / "chest.dcm")
        prediction = predictor(read_image(path))
        out = tmp_path / "out"
        out.mkdir()
        (out / "seg.dcm").write_bytes(b"before")
        real, calls = os.fsync, []

        def full(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) > 2:  # the second object: the first takes a file and its folder
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="No space left"):
            write_dicom_results(prediction, None, [path], out)
        assert [entry.name for entry in out.iterdir()] == ["seg.dcm"]
        assert (out / "seg.dcm").read_bytes() == b"before"

    def test_highdicom_is_asked_for(self, tmp_path):
        path = write_study(tmp_path / "chest.dcm")
        script = (
            "import sys; sys.modules['highdicom'] = None\n"
            "from toys import make_predictor\n"
            "from MediScanLib.study.reading import read_image\n"
            "from MediScanLib.report.dicom.writing import make_dicom_results\n"
            f"make_dicom_results(make_predictor()(read_image({str(path)!r})), None, [])\n"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(("Testing", "."))}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=ROOT)
        assert 'pip install "mediscan[dicom]"' in done.stderr

    def test_names_do_not_leak_into_warnings(self, tmp_path, predictor, recwarn, caplog):
        path = write_study(tmp_path / "chest.dcm", PatientName="Whistleblower", ReferringPhysicianName="Confidant")
        results_of(path, predictor)
        said = " ".join([*(str(one.message) for one in recwarn), caplog.text])
        assert "Whistleblower" not in said
        assert "Confidant" not in said


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.shared_data
@pytest.mark.parametrize("case", ["ct_ge_variable_gap", "ct_philips_tilt", "radiograph", "jpeg"])
class TestValidators:
    """What others say about objects made of real images."""

    @pytest.fixture
    def folder(self, case, shared_data, tmp_path, predictor) -> Path:
        source = shared_data / "dicom" / case
        if case == "radiograph":
            source = next((shared_data / "dicom" / "files").glob("txrv__1.2.276*.dcm"))
        if case == "jpeg":  # a real radiograph, wrapped
            picture = np.asarray(Image.open(min((shared_data / "images" / "nih").glob("*.jpg"))).convert("L"))
            source = write_study(tmp_path / "wrapped.dcm", picture)
        out = tmp_path / "out"
        save_dicom_results(results_of(source, predictor)[1], out)
        return out

    def test_dciodvfy_finds_no_error(self, folder):
        for path in folder.iterdir():
            done = run("dciodvfy", "-new", str(path))
            errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
            assert not errors, path.name

    def test_dcmtk_reads_the_report(self, folder):
        dump = run("dsrdump", "+Pl", str(folder / "sr.dcm"))
        assert dump.returncode == 0
        assert "E:" not in dump.stderr
        assert "Certainty of Finding" in dump.stdout
        page = run("dsr2html", str(folder / "sr.dcm"), str(folder / "sr.html"))
        assert page.returncode == 0
        text = (folder / "sr.html").read_text(encoding="utf-8")
        assert "Pneumonia" in text
        assert RESEARCH_USE_NOTICE in text

    def test_highdicom_reads_them_back(self, folder):
        assert hd.sr.srread(folder / "sr.dcm").VerificationFlag == "UNVERIFIED"
        seg = hd.seg.segread(folder / "seg.dcm")
        assert seg.segmentation_fractional_type == hd.seg.SegmentationFractionalTypeValues.PROBABILITY
        assert hashlib.sha256(seg.PixelData).digest() != hashlib.sha256(bytes(len(seg.PixelData))).digest()


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(tool) is None:
        package = "dicom3tools" if tool == "dciodvfy" else "dcmtk"
        pytest.skip(f"{tool} is not installed (package {package})")
    return subprocess.run([tool, *arguments], capture_output=True, text=True)


def code(term: codes.Term):
    return hd.sr.CodedConcept(term.value, term.scheme, term.meaning)


def items_of(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    below = [item for element in dataset if element.VR == "SQ" for item in element.value]
    return [*below, *(deeper for item in below for deeper in items_of(item))]


def groups_of(report) -> list:
    return report.content.get_image_measurement_groups()


def functional_groups(positions: list[list[float]]) -> dict[str, list[pydicom.Dataset]]:
    def item(**elements) -> pydicom.Dataset:
        dataset = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        return dataset

    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[1.0, 1.0], SliceThickness=3.0)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")],
    )
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=position)]) for position in positions]
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
