"""One way to ask for an explanation, whichever method makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import BundleError, UsageError
from ...progress import Progress, SilentProgress
from ...study.image import MedicalImage
from ...study.record import ClinicalRecord
from ..heatmaps import HeatMaps
from ..predictor import Predictor
from . import integrated_gradients, occlusion
from .asked import Asked, Found, Ticker
from .clock import Clock
from .explanation import Explanation
from .gradcam import gradcam
from .gradcam_plus_plus import gradcam_plus_plus
from .layercam import layercam
from .memory import bounded
from .question import Question
from .samples import at_once, clinical_input, on_device, prepared_parts, wanted_slices
from .stages import encode

USUAL_PEAK = "the model's usual peak of the finding"
OWN_PEAK = "the largest value of the same map: colors cannot be compared with those of another map"
"""What 1.0 means."""


@dataclass(frozen=True)
class _Method:
    """One way to explain.

    Attributes:
        maps: Makes the maps of a batch.
        passes: Images that go through the network for one sample, to tell how far it is.
        scale: Raw value drawn as 1.0: "model" for the card's, "own" for each map's maximum, or the value itself.
        meaning: Of 1.0.
    """

    maps: Callable[[Asked], Found]
    passes: Callable[[Sequence[int]], int] = lambda size: 1
    scale: str | float = "own"
    meaning: str = OWN_PEAK


_METHODS = {
    "gradcam": _Method(gradcam, scale="model", meaning=USUAL_PEAK),
    "gradcam++": _Method(gradcam_plus_plus),
    "layercam": _Method(layercam),
    "occlusion": _Method(
        occlusion.occlusion,
        passes=occlusion.passes,
        scale=occlusion.SCALE,
        meaning=f"a drop of the log-odds by {occlusion.SCALE:g} where the place is hidden",
    ),
    "integrated-gradients": _Method(
        integrated_gradients.integrated_gradients, passes=lambda size: integrated_gradients.STEPS[0]
    ),
}


def explain(
    predictor: Predictor,
    image: MedicalImage,
    record: ClinicalRecord | None = None,
    *,
    method: str = "gradcam",
    findings: Sequence[str] | None = None,
    against: str | None = None,
    slices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Where one study speaks for some findings.

    A 2D network looks at a volume slice by slice, each by itself; a 3D network at the whole. The maps hold what speaks
    for a finding (>= 0); what speaks against it is cut off. The network is left as it was.

    Args:
        predictor: Model to explain.
        image: Image or volume.
        record: What is known of the patient; age and sex from the image header where it leaves them open.
        method: One of METHODS.
        findings: Those to explain; None for all.
        against: Another finding: "why this and not that". Maps then show what speaks for the finding more than for
            this one, and not what speaks for both.
        slices: Slices to look at; all of them where None. For a 2D network only.
        progress: Hears of every pass through the network and may cancel.

    Raises:
        UsageError: There is no such method, finding or slice.
        DeviceError: Memory ran out.
        BundleError: The model gave a result that is not a number.
        CancelledError: `progress` asked to stop.
    """
    if method not in _METHODS:
        raise UsageError(f"There is no explanation {method!r}. Choose from {', '.join(_METHODS)}.")
    chosen = _METHODS[method]
    card = predictor.bundle.card
    question = Question.of(card, findings, against)
    wanted = wanted_slices(predictor, image, slices)
    clock = Clock(predictor.device)
    ticker = Ticker(progress or SilentProgress(), method, max(1, len(wanted)) * chosen.passes(card.input.size))
    parts, together = [], at_once(predictor)
    with torch.inference_mode(False), torch.no_grad(), bounded(predictor.device, together):
        values, observed = clinical_input(predictor, image, record)
        for prepared in prepared_parts(predictor, image, wanted):
            ticker.before()
            tensor = on_device(predictor, prepared)
            with clock.on("encoder"):
                encoded = encode(predictor.network, tensor)
            asked = Asked(predictor.network, card, question, tensor, values, observed, encoded, together, ticker)
            with clock.on("head"):
                asked.head(encoded.features)
            with clock.on("method"):
                found = chosen.maps(asked)
            parts.append(found._replace(maps=found.maps.float().cpu()))
    values_of_maps = torch.cat([part.maps for part in parts]).numpy()
    if not np.isfinite(values_of_maps).all():
        raise BundleError(f"{predictor.bundle.folder}: the explanation is not a number. Use another model.")
    note = max(parts, key=lambda part: part.gravity).note
    notes = (note,) if note else ()
    if slices is not None and not wanted:
        notes = (*notes, "The model reads whole volumes: the choice of slices was not used.")
    through, rows, columns = parts[0].grid.axes(prepared)
    maps = HeatMaps(
        labels=question.findings,
        values=np.ascontiguousarray(values_of_maps[0] if through is not None else values_of_maps.swapaxes(0, 1)),
        shape=image.shape,
        rows=rows,
        columns=columns,
        slices=wanted if through is None else through,
        scales=_scales(chosen.scale, card.heat_map_scales, question.findings, values_of_maps),
    )
    return Explanation(
        method=method,
        against=against,
        maps=maps,
        scale_meaning=chosen.meaning,
        seconds=clock.seconds,
        relative_cost=clock.spent("encoder", "method") / max(clock.spent("encoder", "head"), 1e-9),
        notes=notes,
    )


def _scales(
    scale: str | float, usual: dict[str, float], findings: Sequence[str], values: np.ndarray
) -> tuple[float, ...]:
    if scale == "model":
        return tuple(usual[label] for label in findings)
    if isinstance(scale, float):
        return (scale,) * len(findings)
    peaks = (float(values[:, at].max()) for at in range(len(findings)))
    return tuple(peak if peak > 0 else 1.0 for peak in peaks)  # an empty map stays empty on any scale
