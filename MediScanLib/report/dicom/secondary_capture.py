"""A picture of a result for viewers that show nothing else."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from ...prediction.result import Prediction
from ...study.image import MedicalImage
from ..picture import draw_prediction
from .codes import SOURCE_IMAGE
from .highdicom_objects import code, equipment, finish, identity, load
from .source import SourceImages
from .uids import ResultUids


def make_secondary_capture(
    prediction: Prediction,
    image: MedicalImage,
    label: str,
    number: int,
    sources: SourceImages,
    uids: ResultUids,
    *,
    when: datetime | None,
) -> Dataset:
    """An RGB Secondary Capture: the image beside itself under one finding's heat map, with what was said below.

    Args:
        prediction: What was said, with its heat maps.
        image: What was looked at.
        label: Finding.
        number: Instance number in the series, from 1.
        sources: The images.
        uids: UIDs of this result.
        when: Time of creation; see `finish`.
    """
    assert prediction.maps is not None
    highdicom, sc = load(), load("highdicom.sc")
    # the file's name may name the patient, and an archive has its own way to say which image it was
    anonymous = prediction.model_copy(update={"input": f"{prediction.image.modality or 'image'}"})
    picture = np.asarray(draw_prediction(image, anonymous, label))
    first = sources.datasets[0]
    made = sc.SCImage(
        pixel_array=picture,
        photometric_interpretation=highdicom.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),  # the constructor demands one; `finish` puts in the true one
        study_instance_uid=first.StudyInstanceUID,
        patient_id=first.PatientID,
        patient_name=first.PatientName,
        patient_birth_date=first.PatientBirthDate,
        patient_sex=first.PatientSex,
        accession_number=first.AccessionNumber,
        study_id=first.StudyID,
        study_date=first.StudyDate,
        study_time=first.StudyTime,
        referring_physician_name=first.ReferringPhysicianName,
        instance_number=number,
        series_description="MediScan pictures (research use only)",
        **identity(uids, "sc", label),
        **equipment(prediction),
    )
    made.copy_patient_and_study_information(_patient_of(first))
    made.DerivationDescription = (
        f"Heat map of {label} over the image, with the result of {prediction.provenance.model}"
    )
    made.SourceImageSequence = _references(prediction, label, sources)
    if "BurnedInAnnotation" in first:  # else nobody knows what is burnt into the image
        made.BurnedInAnnotation = first.BurnedInAnnotation
    if first.get("LossyImageCompression") == "01":
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in first:
                made[keyword] = first[keyword]
    return finish(made, sources, uids, "sc", when)


def _patient_of(first: Dataset) -> Dataset:
    dataset = deepcopy(first)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # any image class: all copy the same modules
    return dataset


def _references(prediction: Prediction, label: str, sources: SourceImages) -> list[Dataset]:
    """The source image of the slice that is shown: the one nearest to the map's peak."""
    assert prediction.maps is not None
    peak = prediction.maps.peak(label)[1][0]
    nearest = min(range(len(sources.places)), key=lambda index: abs(sources.places[index].slice_index - peak))
    dataset = sources.datasets[0 if sources.is_multiframe else nearest]
    reference = Dataset()
    reference.ReferencedSOPClassUID = dataset.SOPClassUID
    reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    if sources.is_multiframe:
        reference.ReferencedFrameNumber = nearest + 1
    reference.PurposeOfReferenceCodeSequence = [load("highdicom.sr").CodedConcept.from_code(code(SOURCE_IMAGE))]
    return [reference]
