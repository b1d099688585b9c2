"""Heat maps of a volume as parametric maps on the regular grid that was looked at."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from ...prediction.heatmaps import HeatMaps
from ...prediction.result import Prediction
from ...study.guards import check_memory
from .codes import NO_UNITS, map_term
from .highdicom_objects import code, equipment, finish, identity, load, stand_ins
from .source import SourceImages
from .uids import ResultUids


def make_parametric_map(
    prediction: Prediction,
    maps: HeatMaps,
    label: str,
    number: int,
    sources: SourceImages,
    uids: ResultUids,
    *,
    when: datetime | None,
    memory_limit: int,
) -> Dataset:
    """A Parametric Map of one finding in float32, not cut at 1.

    Its grid is the image's own. That is the grid of the source images, unless their slices had to be moved or
    interpolated to form an undistorted volume.

    Args:
        prediction: What was said.
        maps: Its heat maps.
        label: Finding.
        number: Instance number in the series, from 1.
        sources: The images; they must have places in the patient.
        uids: UIDs of this result.
        when: Time of creation; see `finish`.
        memory_limit: Bytes that this may need.

    Raises:
        ReadError: It would need too much memory.
    """
    assert sources.placed and prediction.image.spacing is not None
    slices, rows, columns = maps.shape
    check_memory(sources.name, 12 * slices * rows * columns, memory_limit)
    highdicom, pm = load(), load("highdicom.pm")
    summary = next((one for one in prediction.heat_maps if one.label == label), None)
    method = summary.method if summary else "gradcam"
    values = maps.on_image(label) / np.float32(maps.scale(label))
    direction = np.asarray(prediction.image.direction, dtype=np.float64).reshape(3, 3)
    step = direction[:, 2] * prediction.image.spacing[2]
    patient = highdicom.CoordinateSystemNames.PATIENT
    # one place a step, in the order of the image's slices
    positions = [np.asarray(prediction.image.origin) + index * step for index in range(slices)]
    made = pm.ParametricMap(
        source_images=stand_ins(sources),
        pixel_array=values,
        instance_number=number,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            pm.RealWorldValueMapping(
                lut_label="HEAT",
                lut_explanation=f"1 is {summary.scale_meaning if summary else 'hot'}"[:64],
                unit=code(NO_UNITS),
                value_range=(0.0, max(1.0, float(values.max()))),
                slope=1.0,
                intercept=0.0,
                quantity_definition=code(map_term(method)),
            )
        ],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        pixel_measures=highdicom.PixelMeasuresSequence(
            pixel_spacing=(prediction.image.spacing[1], prediction.image.spacing[0]),
            slice_thickness=prediction.image.spacing[2],
            spacing_between_slices=prediction.image.spacing[2],
        ),
        plane_orientation=highdicom.PlaneOrientationSequence(
            patient, (*map(float, direction[:, 0]), *map(float, direction[:, 1]))
        ),
        plane_positions=[
            highdicom.PlanePositionSequence(patient, tuple(map(float, position))) for position in positions
        ],
        content_label="HEAT_MAP",
        content_description=f"Heat map of {label} ({method})"[:64],
        content_qualification=highdicom.ContentQualificationValues.RESEARCH,
        series_description="MediScan heat maps (research use only)",
        **identity(uids, "pm", label),
        **equipment(prediction),
    )
    return finish(made, sources, uids, "pm", when)
