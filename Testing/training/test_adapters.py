"""Adapters, each on small files in the exact layout of its set."""

from __future__ import annotations

import csv
import gzip
import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from MediScanLib.commands.data import _KINDS, data
from MediScanLib.errors import DataError
from MediScanLib.training.adapters import ADAPTERS, Choices
from MediScanLib.training.adapters.chexpert_labels import OBSERVATIONS, finding_text, manifest_label
from MediScanLib.training.checking import check_manifest
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.manifest import BOX_COLUMNS

CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def write(path, *lines, gz=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if gz else content)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def dicom(path, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = 1024, 512
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(1024 * 512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the set writes ages as "51" and not as "051Y"
        for name, value in elements.items():
            setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)


def by_image(imported):
    return {row["image"].rpartition("/")[2]: row for row in imported.rows}


def saved(imported, folder):
    """The studies as training would read them, and the cells of the boxes."""
    for row in imported.rows:
        row["split"] = row.get("split") or "train"  # as `mediscan data split` does
    imported.save(folder / "manifest.csv", folder / "boxes.csv")
    boxes = []
    if (folder / "boxes.csv").exists():
        with (folder / "boxes.csv").open(newline="") as stream:
            reader = csv.DictReader(stream)
            boxes = list(reader)
            assert tuple(reader.fieldnames) == BOX_COLUMNS
    return {study.image.name: study for study in read_manifest(folder / "manifest.csv")}, boxes


@pytest.fixture
def nih(tmp_path):
    root = tmp_path / "nih"
    write(
        root / "Data_Entry_2017_v2020.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
        "00000001_000.png,No Finding,0,1,57,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,Infiltration|Pneumonia,1,1,58,M,AP,2894,2729,0.143,0.143,",
        "00000002_000.png,Effusion|Mass,0,2,414,F,PA,2500,2048,0.168,0.168,",
        "00000003_000.png,Pneumonia,0,3,414,F,PA,2500,2048,0.168,0.168,",
        "00000004_000.png,No Finding,0,4,60,F,PA,2500,2048,0.168,0.168,",
    )
    write(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000001_001.png,Infiltrate,256,512,128,64.5,,,",
        "00000002_000.png,Mass,1,2,3,4,,,",
    )
    write(root / "train_val_list.txt", "00000001_000.png", "00000001_001.png", "00000002_000.png")
    write(root / "test_list.txt", "00000003_000.png", "00000004_000.png")
    for name, folder in (("00000001_000", 1), ("00000001_001", 1), ("00000002_000", 1), ("00000003_000", 2)):
        picture(root / f"images_{folder:03}" / "images" / f"{name}.png")
    return root


def test_nih(nih, tmp_path):
    imported = ADAPTERS["nih"](nih, Choices())
    assert imported.left_out == {"findings that are none of ours": 1, "the image file is not there": 1}
    assert sum(imported.notes.values()) == 1, "an age of 414 is unknown"
    studies, boxes = saved(imported, tmp_path / "out")
    assert {name: (s.label, s.split) for name, s in studies.items()} == {
        "00000001_000.png": ("normal", "train"),
        "00000001_001.png": ("pneumonia", "train"),
        "00000003_000.png": ("pneumonia", "test"),
    }
    study = studies["00000001_001.png"]
    assert (study.source, study.patient, study.view, study.follow_up) == ("nih", "1", "AP", 1)
    assert (study.finding, study.record.age_years, study.record.sex) == ("Infiltration|Pneumonia", 58, "M")
    assert (study.modality, study.body_part) == ("CR", "CHEST")
    assert studies["00000003_000.png"].record.age_years is None
    (box,) = boxes
    assert box["image"] == "../nih/images_001/images/00000001_001.png"
    assert (box["label"], box["reader"]) == ("infiltrate", "NIH")
    assert [float(box[side]) for side in ("x", "y", "width", "height")] == pytest.approx(
        [0.25, 0.5, 0.125, 64.5 / 1024], abs=1e-5
    )


def test_nih_other_findings_as_negatives(nih):
    imported = ADAPTERS["nih"](nih, Choices(others="negative"))
    assert by_image(imported)["00000002_000.png"]["label"] == "no_pneumonia"
    assert len(imported.boxes) == 2


def test_nih_of_2017_with_padded_ages(nih):
    table = nih / "Data_Entry_2017_v2020.csv"
    text = table.read_text().replace(",0,1,57,", ",000,00000001,057Y,").replace("Patient Gender", "Patient Sex")
    table.unlink()
    (nih / "Data_Entry_2017.csv").write_text(text)
    row = by_image(ADAPTERS["nih"](nih, Choices()))["00000001_000.png"]
    assert (row["patient"], row["follow_up"], row["age_years"], row["sex"]) == ("1", "0", "57", "M")


def test_nih_without_the_lists_has_no_split(nih):
    for name in ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"):
        (nih / name).unlink()
    imported = ADAPTERS["nih"](nih, Choices())
    assert {row["split"] for row in imported.rows} == {""}
    assert not imported.boxes


def chexpert_row(path, sex="Male", age="68", frontal="Frontal", projection="AP", **labels):
    cells = [str(labels.get(name.replace(" ", "_"), "")) for name in OBSERVATIONS]
    return ",".join([path, sex, age, frontal, projection, *cells])


@pytest.fixture
def chexpert(tmp_path):
    root = tmp_path / "CheXpert-v1.0-small"
    rows = [
        chexpert_row("p/train/patient00001/study1/view1_frontal.jpg", No_Finding="1.0", Support_Devices="1.0"),
        chexpert_row("p/train/patient00001/study3/view2_lateral.jpg", "Female", "0", "Lateral", "", Pneumonia="1.0"),
        chexpert_row("p/train/patient00002/study1/view1_frontal.jpg", Pneumonia="-1.0", Edema="1.0"),
        chexpert_row("p/train/patient00003/study1/view1_frontal.jpg", "Unknown", Edema="1.0", Pneumonia="0.0"),
    ]
    write(root / "train.csv", CHEXPERT_HEADER, *(row.replace("p/", "CheXpert-v1.0-small/", 1) for row in rows))
    valid = chexpert_row("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg", Fracture="1.0")
    write(root / "valid.csv", CHEXPERT_HEADER, valid)
    for line in (*rows, valid):
        picture(root / line.split(",")[0].partition("/")[2])
    return root


@pytest.mark.parametrize(
    ("uncertain", "others", "expected"),
    [
        ("unknown", "skip", ["normal", "pneumonia", "unknown", "fracture"]),
        ("ones", "skip", ["normal", "pneumonia", "pneumonia", "fracture"]),
        ("zeros", "skip", ["normal", "pneumonia", "fracture"]),
        ("zeros", "negative", ["normal", "pneumonia", "no_pneumonia", "no_pneumonia", "fracture"]),
        ("ignore", "negative", ["normal", "pneumonia", "no_pneumonia", "fracture"]),
    ],
)
def test_chexpert_policies(chexpert, uncertain, others, expected):
    imported = ADAPTERS["chexpert"](chexpert, Choices(uncertain=uncertain, others=others))
    assert [row["label"] for row in imported.rows] == expected
    assert sum(imported.left_out.values()) == 5 - len(expected)


def test_chexpert_cells(chexpert, tmp_path):
    imported = ADAPTERS["chexpert"](chexpert, Choices())
    assert [row["split"] for row in imported.rows] == ["train"] * 3 + ["val"]
    normal, lateral, uncertain, _ = imported.rows
    assert (normal["view"], normal["sex"], normal["age_years"]) == ("AP", "M", "68")
    assert (lateral["view"], lateral["sex"], lateral["age_years"]) == ("LATERAL", "F", "")
    assert (lateral["patient"], lateral["follow_up"]) == ("patient00001", "2")
    assert uncertain["finding"] == "Edema|Pneumonia?"
    studies, boxes = saved(imported, tmp_path / "out")
    assert not boxes
    assert studies


def test_chexpert_in_batches(chexpert, tmp_path):
    root = tmp_path / "chexpertchestxrays-u20210408"
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir(parents=True)
    for name in ("train.csv", "valid.csv", "valid"):
        (chexpert / name).rename(first / name)
    for batch, patients in (("2 (train 1)", ("patient00001", "patient00002")), ("3 (train 2)", ("patient00003",))):
        for patient in patients:
            (root / f"CheXpert-v1.0 batch {batch}").mkdir(exist_ok=True)
            (chexpert / "train" / patient).rename(root / f"CheXpert-v1.0 batch {batch}" / patient)
    imported = ADAPTERS["chexpert"](root, Choices(others="negative"))
    assert [row["patient"] for row in imported.rows] == [
        *("patient00001", "patient00001", "patient00002", "patient00003", "patient64541")
    ]


@pytest.mark.parametrize(
    ("row", "uncertain", "label"),
    [
        ({"Pneumonia": "1.0", "Fracture": "1.0"}, "unknown", "pneumonia|fracture"),
        ({"Pneumonia": "-1.0", "Fracture": "1.0"}, "unknown", "pneumonia|fracture"),
        ({"Pneumonia": "-1.0", "Fracture": "1.0"}, "zeros", "fracture"),
        ({"Pneumonia": "-1.0", "Fracture": "1.0"}, "ignore", None),
        ({"Pneumonia": "-1.0", "Fracture": "-1.0"}, "ones", "pneumonia|fracture"),
        ({"Pneumonia": "-1.0", "No Finding": ""}, "unknown", "unknown"),
        ({"Cardiomegaly": "-1.0", "Pneumonia": "1"}, "ignore", "pneumonia"),
        ({"Lung Opacity": "1.0", "Consolidation": "1.0", "Lung Lesion": "1.0"}, "unknown", None),
        ({}, "unknown", None),
    ],
)
def test_labels_of_several_observations(row, uncertain, label):
    assert manifest_label(row, Choices(uncertain=uncertain))[0] == label


def test_observations_that_are_no_numbers():
    with pytest.raises(DataError, match="Pneumonia is 'yes'"):
        manifest_label({"Pneumonia": "yes"}, Choices())
    with pytest.raises(DataError, match="Edema is '2'"):
        finding_text({"Edema": "2"})


def test_chexpert_names_the_bad_row(chexpert):
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace(",-1.0", ",-2.0"))
    with pytest.raises(DataError, match=r"train\.csv, row 4: Pneumonia is '-2\.0'"):
        ADAPTERS["chexpert"](chexpert, Choices())


@pytest.fixture(params=[True, False], ids=["gzipped", "unpacked"])
def mimic(tmp_path, request):
    root, gz = tmp_path / "mimic-cxr-jpg", request.param
    ending = ".csv.gz" if gz else ".csv"
    names = sorted(OBSERVATIONS)

    def labels(subject, study, **values):
        return ",".join([subject, study, *(values.get(name.replace(" ", "_"), "") for name in names)])

    write(
        root / f"mimic-cxr-2.0.0-chexpert{ending}",
        "subject_id,study_id," + ",".join(names),
        labels("10000032", "50414267", No_Finding="1.0"),
        labels("10000032", "53189527", Pneumonia="-1.0"),
        labels("10000764", "57375967", Pneumonia="1.0"),
        gz=gz,
    )
    write(
        root / f"mimic-cxr-2.0.0-split{ending}",
        "dicom_id,study_id,subject_id,split",
        "aaa,50414267,10000032,train",
        "bbb,53189527,10000032,train",
        "ccc,57375967,10000764,validate",
        "ddd,99999999,10000764,test",
        gz=gz,
    )
    write(
        root / f"mimic-cxr-2.0.0-metadata{ending}",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
        "aaa,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800626,81556.875,CHEST,postero-anterior,Erect",
        "bbb,10000032,53189527,CHEST (PA AND LAT),LATERAL,3056,2544,21800626,165500.312,CHEST,lateral,Erect",
        "ccc,10000764,57375967,CHEST (PORTABLE AP),AP,3056,2544,21321015,130042.531,CHEST,antero-posterior,",
        "ddd,10000764,99999999,CHEST (PORTABLE AP),AP,3056,2544,21321015,130042.531,CHEST,antero-posterior,",
        gz=gz,
    )
    for image in ("p10000032/s50414267/aaa", "p10000032/s53189527/bbb", "p10000764/s57375967/ccc"):
        picture(root / "files" / "p10" / f"{image}.jpg")
    return root


def test_mimic(mimic, tmp_path):
    imported = ADAPTERS["mimic"](mimic, Choices())
    assert imported.left_out == {"no labels for the study": 1}
    studies, _ = saved(imported, tmp_path / "out")
    facts = {name: (s.label, s.split, s.view, s.follow_up, s.patient) for name, s in studies.items()}
    assert facts == {
        "aaa.jpg": ("normal", "train", "PA", 0, "10000032"),
        "bbb.jpg": ("unknown", "train", "LATERAL", 1, "10000032"),
        "ccc.jpg": ("pneumonia", "val", "AP", 0, "10000764"),
    }
    assert imported.rows[0]["original_height"] == "3056"


@pytest.fixture
def covidx(tmp_path):
    root = tmp_path / "covidx"
    write(
        root / "train.txt",
        "3 SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg pneumonia cohen",
        "COVID-19(69) COVID-19(69).png COVID-19 sirm",
        "003d8fa0-6bf1 003d8fa0-6bf1.png normal rsna",
    )
    write(root / "test.txt", "419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png COVID-19 ricord")
    for line in (*(root / "train.txt").read_text().splitlines(), *(root / "test.txt").read_text().splitlines()):
        picture(root / ("test" if "RICORD" in line else "train") / line.split()[1])
    return root


def test_covidx(covidx, tmp_path):
    studies, _ = saved(ADAPTERS["covidx"](covidx, Choices()), tmp_path / "out")
    facts = sorted((s.source, s.patient, s.label, s.split) for s in studies.values())
    assert facts == [
        ("covidx_cohen", "3", "pneumonia", "train"),
        ("covidx_ricord", "419639-003251", "covid", "test"),
        ("covidx_rsna", "003d8fa0-6bf1", "normal", "train"),
        ("covidx_sirm", "COVID-19(69)", "covid", "train"),
    ]


def test_covidx_of_two_classes(covidx):
    (covidx / "train.txt").unlink()
    write(
        covidx / "labels" / "train_COVIDx9B.txt",
        "3 SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg negative cohen",
        "COVID-19(69) COVID-19(69).png positive sirm",
    )
    assert [row["label"] for row in ADAPTERS["covidx"](covidx, Choices()).rows] == [
        "normal|pneumonia",
        "covid",
        "covid",
    ]


def test_covidx_lists(covidx):
    write(covidx / "train.txt", "3 a.png pneumonia cohen", "4 b.png flu cohen")
    with pytest.raises(DataError, match=r"train\.txt, line 2: '4 b\.png flu cohen'"):
        ADAPTERS["covidx"](covidx, Choices())
    write(covidx / "labels" / "train_COVIDx8B.txt", "3 a.png positive cohen")
    with pytest.raises(DataError, match="several lists for train"):
        ADAPTERS["covidx"](covidx, Choices())
    with pytest.raises(DataError, match=r"no train\*\.txt"):
        ADAPTERS["covidx"](covidx / "train", Choices())


@pytest.fixture
def rsna(tmp_path):
    root = tmp_path / "rsna"
    write(
        root / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target",
        "aaaa,,,,,0",
        "bbbb,128.0,256.0,64.0,512.0,1",
        "bbbb,0.0,0.0,256.0,512.0,1",
        "cccc,,,,,0",
    )
    write(
        root / "stage_2_detailed_class_info.csv",
        "patientId,class",
        "aaaa,Normal",
        "bbbb,Lung Opacity",
        "bbbb,Lung Opacity",
        "cccc,No Lung Opacity / Not Normal",
    )
    for name in ("aaaa", "bbbb", "cccc"):
        dicom(
            root / "stage_2_train_images" / f"{name}.dcm",
            PatientID=name,
            PatientAge="51",
            PatientSex="F",
            ViewPosition="PA",
            Modality="CR",
            BodyPartExamined="CHEST",
        )
    return root


def test_rsna(rsna, tmp_path):
    imported = ADAPTERS["rsna"](rsna, Choices())
    assert imported.left_out == {"findings that are none of ours": 1}
    assert any("counts as a patient of its own" in note for note in imported.notes)
    assert {row["split"] for row in imported.rows} == {""}
    studies, boxes = saved(imported, tmp_path / "out")
    study = studies["bbbb.dcm"]
    assert (study.label, study.patient, study.view, study.modality) == ("pneumonia", "bbbb", "PA", "CR")
    assert (study.record.age_years, study.record.sex) == (51, "F")
    assert studies["aaaa.dcm"].label == "normal"
    assert [[float(box[side]) for side in ("x", "y", "width", "height")] for box in boxes] == [
        [0.25, 0.25, 0.125, 0.5],
        [0, 0, 0.5, 0.5],
    ]
    assert {(box["label"], box["reader"]) for box in boxes} == {("lung opacity", "RSNA")}


def test_a_damaged_image_does_not_stop_the_import(rsna, tmp_path):
    image = rsna / "stage_2_train_images" / "bbbb.dcm"
    image.write_bytes(b"")
    imported = ADAPTERS["rsna"](rsna, Choices())
    assert [row["label"] for row in imported.rows] == ["normal", "pneumonia"]
    assert any("is damaged" in note for note in imported.notes)
    (tmp_path / "set" / "normal").mkdir(parents=True)
    image.rename(tmp_path / "set" / "normal" / "b.dcm")
    imported = ADAPTERS["folders"](tmp_path / "set", Choices())
    assert any("is damaged" in note for note in imported.notes)
    imported.save(tmp_path / "m.csv", tmp_path / "b.csv")
    kinds = {problem.kind for problem in check_manifest(tmp_path / "m.csv").problems}
    assert "unreadable_image" in kinds


def test_rsna_patients_from_the_mapping(rsna):
    names = {"aaaa": "00000013_003.png", "bbbb": "00000013_004.png", "cccc": "00000014_000.png"}
    mapping = [{"subset_img_id": name, "img_id": image, "orig_labels": []} for name, image in names.items()]
    path = rsna / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(mapping))
    imported = ADAPTERS["rsna"](rsna, Choices(others="negative"))
    assert [(row["patient"], row["label"]) for row in imported.rows] == [
        ("13", "normal"),
        ("13", "pneumonia"),
        ("14", "no_pneumonia"),
    ]
    assert not imported.notes
    path.write_text("[{}]")
    with pytest.raises(DataError, match="is not the mapping"):
        ADAPTERS["rsna"](rsna, Choices())


@pytest.fixture
def mura(tmp_path):
    root = tmp_path / "MURA-v1.1"
    images = [
        "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png",
        "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image2.png",
        "MURA-v1.1/train/XR_HAND/patient00002/study2_negative/image1.png",
    ]
    write(root / "train_image_paths.csv", *images)
    write(
        root / "train_labeled_studies.csv",
        "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/,1",
        "MURA-v1.1/train/XR_HAND/patient00002/study2_negative/,0",
    )
    valid = "MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/image1.png"
    write(root / "valid_image_paths.csv", valid)
    write(root / "valid_labeled_studies.csv", valid.rpartition("/")[0] + "/,1")
    for image in (*images, valid):
        picture(tmp_path / image)
    return root


def test_mura(mura, tmp_path):
    imported = ADAPTERS["mura"](mura, Choices())
    assert [(row["label"], row["split"], row["patient"], row["body_part"]) for row in imported.rows] == [
        ("abnormal", "train", "patient00001", "SHOULDER"),
        ("abnormal", "train", "patient00001", "SHOULDER"),
        ("normal", "train", "patient00002", "HAND"),
        ("abnormal", "val", "patient11185", "WRIST"),
    ]
    imported.save(tmp_path / "m.csv", tmp_path / "b.csv")
    study = read_manifest(tmp_path / "m.csv")[0]
    assert not study.allowed[0], "abnormal is not normal"
    assert sum(study.allowed) == 4, "and not a fracture either, only possibly one"


def test_mura_image_without_a_study(mura):
    with (mura / "train_image_paths.csv").open("a") as stream:
        stream.write("MURA-v1.1/train/XR_HAND/patient00009/study1_negative/image1.png\n")
    with pytest.raises(DataError, match=r"train_image_paths\.csv, row 4"):
        ADAPTERS["mura"](mura, Choices())


@pytest.mark.parametrize("kind", ["nih", "chexpert", "mimic", "rsna", "mura", "covidx", "folders", "dicom"])
def test_a_folder_that_is_not_the_set(kind, tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        ADAPTERS[kind](tmp_path / "nothing", Choices())


def test_a_table_of_another_set(nih, chexpert):
    write(chexpert / "train.csv", "Path,Sex,Age", "a,b,c")
    with pytest.raises(DataError, match="lacks the columns Frontal/Lateral"):
        ADAPTERS["chexpert"](chexpert, Choices())


def test_class_folders(tmp_path):
    root = tmp_path / "chest_xray"
    for name in ("train/NORMAL/IM-0115-0001", "train/PNEUMONIA/person1_bacteria_1", "test/PNEUMONIA/person1_virus_6"):
        picture(root / f"{name}.jpeg")
    write(root / "train" / "NORMAL" / "readme.txt", "no image")
    studies = ADAPTERS["folders"](root, Choices(patient_pattern=r"^(person\d+)", source="kermany"))
    assert [(row["label"], row["split"], row["patient"], row["source"]) for row in studies.rows] == [
        ("pneumonia", "test", "person1", "kermany"),
        ("normal", "train", "NORMAL/IM-0115-0001.jpeg", "kermany"),
        ("pneumonia", "train", "person1", "kermany"),
    ]
    assert sum(studies.notes.values()) == 1


def test_class_folders_with_other_names(tmp_path):
    root = tmp_path / "busi"
    picture(root / "malignant" / "a.png")
    dicom(root / "benign" / "b.dcm", PatientID="7", PatientSex="F", Modality="US", BodyPartExamined="BREAST")
    with pytest.raises(DataError, match="no label is known for the class 'malignant'"):
        ADAPTERS["folders"](root, Choices())
    rows = by_image(ADAPTERS["folders"](root, Choices(labels={"malignant": "cancer"})))
    assert (rows["a.png"]["label"], rows["a.png"]["split"], rows["a.png"]["source"]) == ("cancer", "", "busi")
    row = rows["b.dcm"]
    assert (row["label"], row["modality"], row["body_part"], row["sex"]) == ("benign", "US", "BREAST", "F")
    assert len(row["patient"]) == 32, "a hash and not the plain identifier"


def test_table_of_dicom_studies(tmp_path):
    for name in "ab":
        dicom(
            tmp_path / "dicom" / f"{name}.dcm",
            PatientID="secret",
            PatientAge="063Y",
            PatientSex="M",
            Modality="DX",
            BodyPartExamined="CHEST",
            ViewPosition="AP",
        )
    picture(tmp_path / "c.png")
    write(
        tmp_path / "hospital.csv",
        "image,label,patient,age_years,temperature_c,crp_mg_per_l,split",
        "dicom/a.dcm,covid,,,101.3 F,2.3 mg/dL,train",
        "dicom/b.dcm,normal,,70,,,val",
        "c.png,PNA,x,,,,train",
    )
    imported = ADAPTERS["dicom"](tmp_path / "hospital.csv", Choices(labels={"PNA": "pneumonia"}))
    studies, _ = saved_without_leak(imported, tmp_path / "out")
    first, second, third = studies["a.dcm"], studies["b.dcm"], studies["c.png"]
    assert (first.record.age_years, first.record.sex, first.view) == (63, "M", "AP")
    assert first.record.temperature_c == pytest.approx(38.5)
    assert first.record.crp_mg_per_l == pytest.approx(23)
    assert second.record.age_years == 70, "the table comes before the header"
    assert first.patient == second.patient != "secret"
    assert (third.label, third.patient, third.source) == ("pneumonia", "x", "hospital")
    assert (first.modality, first.body_part) == ("DX", "CHEST")


def saved_without_leak(imported, folder):
    for row in imported.rows:
        row["split"] = "train"
    return saved(imported, folder)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("image,label,temprature_c", "a.png,normal,38", "unknown columns temprature_c"),
        ("image,label,patient", "a.png,flu,1", "row 2: no label is known for 'flu'"),
        ("image,label,patient,spo2_percent", "a.png,normal,1,0.97", "row 2: .*0.97"),
        ("image,label", "a.png,normal", "row 2: .*names the patient"),
        ("file,label", "a.png,normal", "lacks the columns image"),
    ],
)
def test_tables_that_are_refused(tmp_path, header, row, message):
    picture(tmp_path / "a.png")
    write(tmp_path / "t.csv", header, row)
    with pytest.raises(DataError, match=message):
        ADAPTERS["dicom"](tmp_path / "t.csv", Choices())


def test_choices_are_checked():
    with pytest.raises(DataError, match="label 'flu' is unknown"):
        Choices(labels={"a": "flu"})
    with pytest.raises(DataError, match="has no group"):
        Choices(patient_pattern=r"\d+")
    with pytest.raises(DataError, match="no regular expression"):
        Choices(patient_pattern="(")


def test_nothing_imported_is_an_error(covidx, tmp_path):
    for path in covidx.rglob("*.*g"):
        path.unlink()
    with pytest.raises(DataError, match=r"no study could be imported \(the image file is not there: 4\)"):
        ADAPTERS["covidx"](covidx, Choices()).save(tmp_path / "m.csv", tmp_path / "b.csv")
    assert not (tmp_path / "m.csv").exists()


def test_command(nih, tmp_path):
    assert set(_KINDS) == set(ADAPTERS)
    output = tmp_path / "out" / "manifest.csv"
    arguments = ["import", "nih", str(nih), "--output", str(output), "--others", "negative"]
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0, result.output
    assert "4 studies" in result.output
    assert "boxes.csv: 2 boxes" in result.output
    assert "the image file is not there: 1" in result.output
    assert [study.label for study in read_manifest(output)].count("no_pneumonia") == 1
    bad = CliRunner().invoke(data, ["import", "folders", str(nih), "--output", str(output), "--label", "x"])
    assert bad.exit_code == 2
    assert "CLASS=LABEL" in bad.output


def test_command_says_when_splits_are_missing(rsna, tmp_path):
    result = CliRunner().invoke(data, ["import", "rsna", str(rsna), "--output", str(tmp_path / "m.csv")])
    assert result.exit_code == 0, result.output
    assert "mediscan data split" in result.output
    assert "patient of its own" in result.output
