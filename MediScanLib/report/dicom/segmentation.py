"""Heat maps as a fractional segmentation on the pixels of the source images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from ...prediction.heatmaps import HeatMaps
from ...prediction.result import Prediction
from ...study.guards import check_memory
from .codes import FINDING_CATEGORY, finding_term
from .heat import heat_on_sources
from .highdicom_objects import algorithm, code, equipment, finish, identity, load, stand_ins
from .source import SourceImages
from .uids import ResultUids

LEVELS = 255
"""Steps from nothing to as hot as the model's maps usually get."""


def make_segmentation(
    prediction: Prediction,
    maps: HeatMaps,
    labels: Sequence[str],
    sources: SourceImages,
    uids: ResultUids,
    *,
    when: datetime | None,
    memory_limit: int,
) -> Dataset:
    """A Segmentation object, type FRACTIONAL, one segment a finding.

    Its frames lie on the source images pixel by pixel and refer to them one by one. Frames without any heat are left
    out.

    Raises:
        ReadError: It would need too much memory.
        ValueError: highdicom cannot express it: several frames without places in the patient.
    """
    frames = len(sources.places)
    check_memory(sources.name, 10 * frames * sources.rows * sources.columns * len(labels), memory_limit)
    heat = np.empty((frames, sources.rows, sources.columns, len(labels)), np.float32)
    for index, label in enumerate(labels):
        # whole steps, so that what would be stored as nothing is nothing
        heat[..., index] = np.rint(heat_on_sources(maps, label, sources) * LEVELS) / LEVELS
    seg = load("highdicom.seg")
    methods = {summary.label: summary.method for summary in prediction.heat_maps}
    segments = [
        seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Heat map: {label}"[:64],
            segmented_property_category=code(FINDING_CATEGORY),
            segmented_property_type=code(finding_term(label)),
            algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm(prediction, method=methods.get(label, "gradcam")),
            tracking_uid=uids.of("heat map", label),
            tracking_id=f"MediScan heat map of {label}"[:64],
        )
        for number, label in enumerate(labels, start=1)
    ]
    made = seg.Segmentation(
        source_images=stand_ins(sources),
        pixel_array=heat,
        segmentation_type=seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=LEVELS,
        segment_descriptions=segments,
        instance_number=1,
        content_label="HEAT_MAP",
        content_description="Where the model looked: 1 is as hot as its maps usually get",
        series_description="MediScan heat maps (research use only)",
        **identity(uids, "seg"),
        **equipment(prediction),
    )
    made.ContentQualification = "RESEARCH"
    return finish(made, sources, uids, "seg", when)
