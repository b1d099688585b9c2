"""From stored values to image values: every step of the grey-scale pipeline, once and only once."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from MediScanLib.study.reading import read_image

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64  # 12 bits, 0..4032
TWELVE = {"BitsStored": 12, "HighBit": 11}


def lut(first: int, values: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = values
    for keyword in ("LUTDescriptor", "LUTData"):
        item[keyword].VR = "US"
    return item


def test_stored_values_are_values_where_nothing_else_is_said(make_dicom):
    image = read_image(make_dicom(RAMP, **TWELVE))
    assert image.shape == (1, 8, 8)
    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert (image.units, image.window, image.color, image.inverted) == ("intensity", None, False, False)


@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_inverted_once(make_dicom, shape):
    image = read_image(
        make_dicom(
            RAMP,
            **TWELVE,
            Modality="DX",
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape=shape or "",
            WindowCenter=1000,
            WindowWidth=300,
        )
    )
    np.testing.assert_array_equal(image.pixels[0], 4095 - RAMP)
    assert image.inverted
    assert image.window == (3095, 300)
    assert not any("contradicts" in note for note in image.warnings)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")])
def test_contradicting_presentation_is_inverted_and_said(make_dicom, photometric, shape):
    image = read_image(make_dicom(RAMP, **TWELVE, PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    np.testing.assert_array_equal(image.pixels[0], 4095 - RAMP)
    assert any("contradicts itself" in note for note in image.warnings)


def test_monochrome2_identity_is_left_alone(make_dicom):
    image = read_image(make_dicom(RAMP, **TWELVE, PresentationLUTShape="IDENTITY"))
    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert not image.inverted


def test_signed_monochrome1(make_dicom):
    values = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    image = read_image(make_dicom(values, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(image.pixels[0], -1 - values)


@pytest.mark.parametrize("frame", ["JPEG", "RLE"])
def test_monochrome1_is_inverted_once_when_gdcm_decodes(make_dicom, make_dataset, frame):
    values = (RAMP // 16).astype(np.uint8)
    if frame == "RLE":
        ds = make_dataset(values, PhotometricInterpretation="MONOCHROME1")
        ds.compress(uid.RLELossless, generate_instance_uid=False)
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, ds, enforce_file_format=True)
        content = stream.getvalue()
    else:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG", quality=100)
        content = make_dicom(
            values,
            [stream.getvalue()],
            TransferSyntaxUID=uid.JPEGBaseline8Bit,
            PhotometricInterpretation="MONOCHROME1",
        )
    image = read_image(content)
    assert "GDCM" in image.reader
    np.testing.assert_allclose(image.pixels[0], 255 - values.astype(float), atol=3 if frame == "JPEG" else 0)


def test_hounsfield_units(make_dicom):
    values = np.array([[0, 1024], [2024, 64]], np.uint16)
    image = read_image(make_dicom(values, Modality="CT", RescaleSlope="1", RescaleIntercept="-1024"))
    np.testing.assert_array_equal(image.pixels[0], [[-1024, 0], [1000, -960]])
    assert image.units == "HU"


@pytest.mark.parametrize(
    "element", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}]
)
def test_hounsfield_units_are_never_inverted(make_dicom, element):
    values = np.array([[0, 1024], [2024, 64]], np.uint16)
    image = read_image(make_dicom(values, Modality="CT", RescaleSlope="1", RescaleIntercept="-1024", **element))
    np.testing.assert_array_equal(image.pixels[0], [[-1024, 0], [1000, -960]])
    assert image.units == "HU" and not image.inverted
    assert any("inverted display" in note for note in image.warnings)


def test_rescale_type_other_than_hu_is_intensity(make_dicom):
    image = read_image(make_dicom(RAMP, Modality="CT", RescaleSlope=1, RescaleIntercept=0, RescaleType="US"))
    assert image.units == "intensity"


def test_outside_of_the_scanner_is_air(make_dicom):
    values = np.array([[-2000, 0], [40, -1024]], np.int16)
    image = read_image(make_dicom(values, Modality="CT", RescaleSlope=1, RescaleIntercept=0, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(image.pixels[0], [[-1024, 0], [40, -1024]])


def test_padding_that_would_be_tissue_is_not_believed_in_ct(make_dicom):
    values = np.array([[0, 5], [40, -1000]], np.int16)
    image = read_image(make_dicom(values, Modality="CT", RescaleSlope=1, RescaleIntercept=0, PixelPaddingValue=0))
    np.testing.assert_array_equal(image.pixels[0], values)


def test_bright_padding_of_a_radiograph_becomes_its_darkest_value(make_dicom):
    values = RAMP + 10
    values[0] = 4095
    image = read_image(make_dicom(values, **TWELVE, Modality="MG", PixelPaddingValue=4095))
    assert (image.pixels[0, 0] == values[1:].min()).all()
    np.testing.assert_array_equal(image.pixels[0, 1:], values[1:])


def test_padding_range(make_dicom):
    values = RAMP + 10
    values[0] = np.arange(4000, 4008)
    ds = make_dicom(values, **TWELVE, Modality="MG", PixelPaddingValue=4000, PixelPaddingRangeLimit=4095)
    assert (read_image(ds).pixels[0, 0] == values[1:-1].min()).all()


def test_overlay_bits_are_cleared(make_dicom):
    image = read_image(make_dicom(RAMP | 0xF000, **TWELVE))
    np.testing.assert_array_equal(image.pixels[0], RAMP)


def test_bits_in_the_upper_part_of_the_word(make_dicom):
    image = read_image(make_dicom(RAMP << 4, BitsStored=12, HighBit=15))
    np.testing.assert_array_equal(image.pixels[0], RAMP)


def test_signed_12_bits_are_extended(make_dicom):
    values = np.array([[-1, -2048], [2047, 0]], np.int16)
    image = read_image(make_dicom((values & 0x0FFF).astype(np.uint16), **TWELVE, PixelRepresentation=1))
    np.testing.assert_array_equal(image.pixels[0], values)


def test_modality_lut_as_pydicom_applies_it(make_dataset, make_dicom):
    table = [int(value) for value in np.linspace(0, 65535, 4000) ** 2 // 65535]
    elements = {**TWELVE, "ModalityLUTSequence": [lut(10, table, 16)]}
    expected = apply_modality_lut(RAMP, make_dataset(RAMP, **elements))
    np.testing.assert_array_equal(read_image(make_dicom(RAMP, **elements)).pixels[0], expected)


def test_empty_lut_item_counts_as_none(make_dicom):
    image = read_image(make_dicom(RAMP, **TWELVE, ModalityLUTSequence=[Dataset()]))
    np.testing.assert_array_equal(image.pixels[0], RAMP)


def test_voi_lut_bends_the_values_of_a_radiograph(make_dicom):
    table = list(range(0, 4096, 16))
    table.reverse()
    elements = {**TWELVE, "VOILUTSequence": [lut(100, table, 12)]}
    image = read_image(make_dicom(RAMP, Modality="DX", **elements))
    np.testing.assert_array_equal(image.pixels[0], np.asarray(table)[np.clip(RAMP.astype(int) - 100, 0, 255)])
    assert image.window == (2047.5, 4095)
    other = read_image(make_dicom(RAMP, Modality="OT", **elements))
    np.testing.assert_array_equal(other.pixels[0], RAMP)
    assert other.window == (100 + 255 / 2, 255)


def test_voi_lut_of_a_monochrome1_radiograph_is_inverted_in_the_units_of_the_table(make_dicom):
    table = list(range(256))
    image = read_image(
        make_dicom(
            RAMP,
            **TWELVE,
            Modality="CR",
            PhotometricInterpretation="MONOCHROME1",
            VOILUTSequence=[lut(0, table, 8)],
        )
    )
    np.testing.assert_array_equal(image.pixels[0], 255 - np.clip(RAMP.astype(int), 0, 255))
    assert image.window == (127.5, 255)


def test_sigmoid_of_a_radiograph(make_dicom):
    image = read_image(
        make_dicom(RAMP, **TWELVE, Modality="DX", WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID")
    )
    np.testing.assert_allclose(image.pixels[0], 4095 / (1 + np.exp(-4 * (RAMP - 2048.0) / 1000)), rtol=1e-3, atol=1e-2)
    assert image.window == (2047.5, 4095)


def test_first_usable_window_is_kept_in_units_of_the_pixels(make_dicom):
    image = read_image(
        make_dicom(
            RAMP,
            **TWELVE,
            Modality="CT",
            RescaleSlope=2,
            RescaleIntercept=-1024,
            WindowCenter=[1, 40, 500],
            WindowWidth=[0, 400, 2000],
        )
    )
    assert image.window == (40, 400)
    assert image.pixels.max() == 2 * 4032 - 1024


def test_window_that_shows_nothing_is_dropped(make_dicom):
    image = read_image(make_dicom(RAMP, **TWELVE, WindowCenter=-9000, WindowWidth=100))
    assert image.window is None
    assert any("window" in note for note in image.warnings)


def test_palette(make_dicom):
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    red, green, blue = [0, 255, 0, 255], [0, 0, 255, 255], [0, 0, 0, 255]
    palette = {}
    for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = (np.array(entries, np.uint16) * 257).astype("<u2").tobytes()
    image = read_image(make_dicom(indices, PhotometricInterpretation="PALETTE COLOR", **palette))
    np.testing.assert_allclose(image.pixels[0], [[0, 0.299 * 255], [0.587 * 255, 255]], atol=0.01)
    assert image.color


COLORS = np.zeros((64, 64, 3), np.uint8)
COLORS[:32, :32] = 255, 0, 0
COLORS[:32, 32:] = 0, 255, 0
COLORS[32:, :32] = 0, 0, 255
COLORS[32:, 32:] = 200, 150, 100
LUMINANCE = COLORS @ np.array([0.299, 0.587, 0.114])


def jpeg(**options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLORS).save(stream, "JPEG", quality=100, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("frame", "photometric"),
    [
        (jpeg(subsampling=0), "YBR_FULL"),
        (jpeg(subsampling=1), "YBR_FULL_422"),
        (jpeg(subsampling=2), "YBR_FULL_422"),
        (jpeg(subsampling=0), "RGB"),  # the header is wrong: a JFIF file is YCbCr
        (jpeg(keep_rgb=True), "RGB"),
        (jpeg(keep_rgb=True), "YBR_FULL"),  # the header is wrong: the components are named R, G and B
    ],
)
def test_color_jpeg_is_true_to_its_codestream(make_dicom, frame, photometric):
    content = make_dicom(
        COLORS, [frame], TransferSyntaxUID=uid.JPEGBaseline8Bit, PhotometricInterpretation=photometric
    )
    image = read_image(content)
    inner = np.s_[4:28], np.s_[36:60]
    for rows in inner:
        for columns in inner:
            np.testing.assert_allclose(image.pixels[0][rows, columns], LUMINANCE[rows, columns], atol=2)
    assert image.color


@pytest.mark.parametrize("planar", [0, 1])
def test_uncompressed_rgb(make_dicom, planar):
    content = np.ascontiguousarray(COLORS if planar == 0 else COLORS.transpose(2, 0, 1))
    data = content.tobytes()
    image = read_image(make_dicom(COLORS, PlanarConfiguration=planar, PixelData=data))
    np.testing.assert_allclose(image.pixels[0], LUMINANCE, atol=0.01)


@pytest.mark.parametrize("compressed", [False, True])
def test_ybr_full_without_jpeg(make_dataset, compressed):
    ybr = np.asarray(Image.fromarray(COLORS).convert("YCbCr"))
    ds = make_dataset(ybr, PhotometricInterpretation="YBR_FULL")
    if compressed:
        ds.compress(uid.RLELossless, generate_instance_uid=False)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    np.testing.assert_allclose(read_image(stream.getvalue()).pixels[0], LUMINANCE, atol=2)


def test_16_bit_color_is_scaled_to_255(make_dicom):
    image = read_image(make_dicom(COLORS.astype(np.uint16) * 257))
    np.testing.assert_allclose(image.pixels[0], LUMINANCE, atol=0.01)


def test_big_endian(make_dataset):
    ds = make_dataset(RAMP, TransferSyntaxUID=uid.ExplicitVRBigEndian, **TWELVE, WindowCenter=5, WindowWidth=9)
    ds.PixelData = RAMP.astype(">u2").tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True, little_endian=False, implicit_vr=False)
    image = read_image(stream.getvalue())
    np.testing.assert_array_equal(image.pixels[0], RAMP)
    assert image.window == (5, 9)


def test_without_preamble(make_dataset):
    ds = make_dataset(RAMP)
    stream = io.BytesIO()
    del ds.file_meta
    pydicom.dcmwrite(stream, ds, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_image(stream.getvalue()).pixels[0], RAMP)


def test_float_pixel_data_with_nan(make_dataset):
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1] = np.nan, np.inf
    ds = make_dataset(RAMP, BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=None)
    ds.FloatPixelData = values.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    image = read_image(stream.getvalue())
    np.testing.assert_array_equal(image.pixels[0, 1:], values[1:])
    assert image.pixels[0, 0, 0] == values[0, 2] and image.pixels[0, 0, 1] == 1
    assert any("NaN" in note for note in image.warnings)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_free_text_is_no_body_part(make_dicom):
    image = read_image(make_dicom(RAMP, BodyPartExamined="Chest of Jane Doe, room 7"))
    assert image.body_part is None


# spacing, facts and identity


@pytest.mark.parametrize(
    ("elements", "spacing", "words"),
    [
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.3, 0.2]}, (0.2, 0.3), "at the detector"),
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.4, 0.4]}, (0.2, 0.3), "calibrated"),
        (
            {"PixelSpacing": [0.3, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.3),
            "calibrated (fiducial)",
        ),
        ({"PixelSpacing": [0.3, 0.2]}, (0.2, 0.3), "does not say whether"),
        (
            {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.1},
            (0.1, 0.1),
            "magnification 1.1",
        ),
        ({"NominalScannedPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "at the detector"),
        ({"PixelSpacing": [0.0, 0.0]}, None, "not positive"),
        ({}, None, None),
    ],
)
def test_what_the_spacing_of_a_radiograph_means(make_dicom, elements, spacing, words):
    image = read_image(make_dicom(RAMP, Modality="DX", **elements))
    assert image.spacing == (None if spacing is None else (*spacing, 1.0))
    assert (words is None and not image.warnings) or any(words in note for note in image.warnings)


def test_pixel_aspect_ratio_is_made_square(make_dicom):
    image = read_image(make_dicom(RAMP, Modality="US", PixelAspectRatio=[2, 1]))
    assert image.shape == (1, 16, 8)
    np.testing.assert_allclose(image.pixels[0, 4:12].mean(), RAMP[2:6].mean(), rtol=0.02)
    assert any("stretched" in note for note in image.warnings)


def test_facts_of_the_header(make_dicom):
    image = read_image(
        make_dicom(
            RAMP, Modality="DX", BodyPartExamined="CHEST", ViewPosition="PA", ImageLaterality="U", Laterality="L"
        )
    )
    assert (image.modality, image.body_part, image.view, image.laterality) == ("DX", "CHEST", "PA", None)


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "063Y"}, 63),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "003W"}, 21 / 365.2425),
        ({"PatientAge": "010D"}, 10 / 365.2425),
        ({"PatientAge": "62"}, 62),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientAge": "old"}, None),
        ({"PatientBirthDate": "19600101", "StudyDate": "20200101"}, 60),
        ({"PatientBirthDate": "18000101", "StudyDate": "20200101"}, None),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200101"}, None),
        ({"PatientAge": "030Y", "PatientBirthDate": "19600101", "StudyDate": "20200101"}, 30),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_age_prefill(make_dicom, elements, age):
    prefill = read_image(make_dicom(RAMP, **elements)).prefill
    assert prefill.get("age_years") == (None if age is None else pytest.approx(age, abs=0.01))


@pytest.mark.parametrize(("sex", "expected"), [("F", "F"), ("M", "M"), ("O", None), ("", None)])
def test_sex_prefill(make_dicom, sex, expected):
    assert read_image(make_dicom(RAMP, PatientSex=sex)).prefill.get("sex") == expected


def test_identifiers_are_hashed_stable_and_complete(make_dicom):
    content = make_dicom(RAMP, SOPInstanceUID="1.2.3.4.5")
    image = read_image(content)
    assert set(image.identifiers) == {"patient", "study", "series", "instance"}
    assert all(len(value) == 32 for value in image.identifiers.values())
    assert read_image(content).identifiers == image.identifiers
    other = read_image(make_dicom(RAMP, PatientID="SECRET-4712"))
    assert other.identifiers["patient"] != image.identifiers["patient"]
    assert other.identifiers["study"] == image.identifiers["study"]


def test_nothing_plain_about_the_patient_is_in_the_image(make_dicom):
    image = read_image(make_dicom(RAMP, PatientBirthDate="19600101", StudyDate="20200101"))
    shown = repr([getattr(image, name) for name in image.__dataclass_fields__ if name != "pixels"])
    for secret in ("Doe", "SECRET", "1.2.3", "19600101"):
        assert secret not in shown


# multi-frame


def test_frames_without_positions_are_loose(make_dicom):
    frames = np.stack([RAMP, RAMP + 1, RAMP + 2])
    image = read_image(make_dicom(frames, Modality="US"))
    np.testing.assert_array_equal(image.pixels, frames)
    assert image.slice_axis == "frame" and not image.is_volume
    assert any("3 frames" in note for note in image.warnings)


def functional_groups(positions, slopes) -> dict:
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.25], 2
    orientation.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    per_frame = []
    for position, slope in zip(positions, slopes, strict=True):
        frame, plane, transformation = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = list(position)
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, -10
        transformation.RescaleType = "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [plane], [transformation]
        per_frame.append(frame)
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": per_frame}


def test_enhanced_frames_are_sorted_and_rescaled_each_by_its_own(make_dicom):
    frames = np.stack([np.full((4, 6), value, np.uint16) for value in (1, 2, 3)])
    # the normal of this sagittal orientation points to -x
    groups = functional_groups([(2, 7, 8), (6, 7, 8), (4, 7, 8)], slopes=[1, 10, 100])
    image = read_image(make_dicom(frames, Modality="CT", **groups))
    assert image.pixels[:, 0, 0].tolist() == [2 * 10 - 10, 3 * 100 - 10, 1 - 10]
    assert image.units == "HU" and image.is_volume
    assert image.spacing == (0.25, 0.5, 2.0)
    assert image.origin == (6, 7, 8)
    np.testing.assert_allclose(image.to_physical((2, 0, 0)), (2, 7, 8))
    np.testing.assert_allclose(image.to_physical((0, 1, 2)), (6, 7.5, 7.5))


def test_enhanced_frames_at_the_same_place_are_loose(make_dicom):
    frames = np.stack([RAMP, RAMP + 1])
    groups = functional_groups([(2, 7, 8), (2, 7, 8)], slopes=[1, 1])
    image = read_image(make_dicom(frames, Modality="CT", **groups))
    assert image.slice_axis == "frame"


def test_enhanced_uneven_frames_are_resampled(make_dicom):
    frames = np.stack([np.full((4, 6), value, np.uint16) for value in (0, 10, 20, 40)])
    groups = functional_groups([(-x, 0, 0) for x in (0.0, 1.0, 2.0, 4.0)], slopes=[1] * 4)
    image = read_image(make_dicom(frames, Modality="CT", **groups))
    assert image.pixels[:, 0, 0].tolist() == [-10, 0, 10, 20, 30]
    assert any("interpolated" in note for note in image.warnings)


@pytest.mark.parametrize("syntax", [uid.RLELossless, None])
def test_multi_frame_agrees_with_simpleitk(make_dataset, tmp_path, syntax):
    frames = np.random.default_rng(0).integers(0, 4096, (3, 16, 24)).astype(np.uint16)
    ds = make_dataset(frames, Modality="MR", SOPClassUID=uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    if syntax is not None:
        ds.compress(syntax, generate_instance_uid=False)
    path = tmp_path / "frames.dcm"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(path).pixels, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
