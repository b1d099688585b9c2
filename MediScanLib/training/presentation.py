"""What a network learns of how images are presented to it: upright ones beside the same turned and inverted."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network.card import InputSpec
from ..network.fusion import FusionNetwork
from ..network.presentation import PRESENTATIONS, Presentation
from ..prediction.deferral import body_region
from ..progress import Progress
from .answering import Split, evaluating, pooled_features, spread_evenly
from .datasets import Study

IMAGES = 700
"""Training images that are turned and inverted, at most; 300 told clearly less on val."""

ACCEPTED = 0.99
"""Share of val that must be taken for upright."""

_QUARTERS = {"upside_down": 2, "turned_left": 1, "turned_right": 3}


def learn_presentation(
    network: FusionNetwork, train: Split, val: Split, spec: InputSpec, device: torch.device, progress: Progress
) -> Presentation | None:
    """Fit on train how an image is presented, and choose on val from where on that is doubted.

    Limbs may lie any way: they are fitted and asked for being inverted only.

    None where the network reads volumes, whose headers say how they lie, or pictures that are not square, which
    would have to be scaled to be turned.
    """
    if len(spec.size) != 2 or spec.size[0] != spec.size[1]:
        return None
    chosen = [train.studies[i] for i in spread_evenly(len(train.studies), IMAGES)]
    free = torch.tensor([lies_freely(study) for study in chosen])
    with evaluating(network):
        each = [
            pooled_features(
                lambda image, name=name: network.features(presented(image, name, spec)),  # type: ignore[misc]
                train,
                spec,
                device,
                progress,
                most=IMAGES,
            )
            for name in ("upright", *PRESENTATIONS)
        ]
        held_out = pooled_features(network.features, val, spec, device, progress, most=len(val.studies))
    return Presentation.fit(torch.stack(each), free).with_limit(held_out, ACCEPTED)


def lies_freely(study: Study) -> bool:
    """Whether there is no upright for what a study shows."""
    return body_region(study.body_part or None) == "EXTREMITY"


def presented(image: Tensor, name: str, spec: InputSpec) -> Tensor:
    """Network inputs (B, 1, side, side) as if the images had been stored upside down, turned or inverted.

    Args:
        image: Inputs.
        name: "upright" or one of PRESENTATIONS.
        spec: Input of the network.
    """
    if name in _QUARTERS:
        return torch.rot90(image, _QUARTERS[name], (2, 3))
    if name == "upright":
        return image
    if name != "inverted":
        raise ValueError(f"unknown presentation {name!r}")
    unit = image * spec.std + spec.mean
    bright = unit > 1e-3
    inside = bright.any(2, keepdim=True) & bright.any(3, keepdim=True)  # the border around the picture stays black
    return (torch.where(inside, 1 - unit, 0.0) - spec.mean) / spec.std
