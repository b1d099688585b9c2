"""What the user has chosen; it is saved with the scene."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import Choice, Minimum, WithinRange, parameterNodeWrapper

from MediScanLib.prediction.colormaps import COLOR_MAPS

from .CompareSection import COMPARISONS
from .RunSection import SCOPES

DEFAULT_MODEL = "mediscan-general"


@parameterNodeWrapper
class MediScanParameterNode:
    """What the user has chosen. Clinical values are text as typed, empty or "unknown" where not known."""

    inputVolume: vtkMRMLScalarVolumeNode
    modelName: str = DEFAULT_MODEL
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"])] = "auto"
    age_years: str = ""
    sex: Annotated[str, Choice(["unknown", "F", "M"])] = "unknown"
    temperature_c: str = ""
    heart_rate_per_min: str = ""
    respiratory_rate_per_min: str = ""
    spo2_percent: str = ""
    leukocytes_1e9_per_l: str = ""
    neutrophils_1e9_per_l: str = ""
    lymphocytes_1e9_per_l: str = ""
    crp_mg_per_l: str = ""
    scope: Annotated[str, Choice(list(SCOPES))] = SCOPES[0]
    firstSlice: Annotated[int, Minimum(0)] = 0
    lastSlice: Annotated[int, Minimum(0)] = 0
    autoRun: bool = False
    finding: str = ""
    showHeatMap: bool = True
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.25
    colors: Annotated[str, Choice(list(COLOR_MAPS))] = COLOR_MAPS[0]
    outline: bool = False
    legend: bool = True
    commonScale: bool = False
    comparison: Annotated[str, Choice(list(COMPARISONS))] = COMPARISONS[0]
    priorVolume: vtkMRMLScalarVolumeNode


def mendValues(node: MediScanParameterNode) -> MediScanParameterNode:
    """Put the default in place of values that are not acceptable, as in a scene of a version with other choices."""
    for name in node.allParameters:
        default = node.default(name).value
        if default is None:  # a node
            continue
        try:
            node.setValue(name, node.getValue(name))
        except (TypeError, ValueError):
            node.setValue(name, default)
    return node
