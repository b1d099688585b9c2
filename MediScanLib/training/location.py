"""Teaching a network to look where readers saw the lesion.

A network that is only told what an image shows is free to tell it by the grain of the film. Where readers drew boxes
or masks on training images, the loss here asks in addition that the finding's own evidence lies inside them, after
Ross et al., "Right for the Right Reasons" (IJCAI 2017), with Grad-CAM in place of the input gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import DataError
from ..network.card import InputSpec
from ..network.fusion import FusionNetwork
from ..prediction.preprocessing import prepare_slices
from ..study.reading import read_image
from .datasets import LABELS, Study
from .regions import Region


def marks_on_input(regions: Sequence[Region], studies: Sequence[Study], spec: InputSpec) -> dict[int, Tensor]:
    """What readers marked, on the network's own input: by position of the study, (1, rows, columns) of 0 and 1.

    Marks count where they are of the study's own finding. Several of one image are joined. A mask that was drawn on a
    copy of the study's image is scaled to it.

    Args:
        regions: Of any images.
        studies: Studies to teach with; regions on other images are left out.
        spec: 2D input of the network.

    Raises:
        DataError: An image or a mask cannot be read, or the image is a volume.
    """
    by_path = {study.image: position for position, study in enumerate(studies)}
    by_name = {study.image.stem: position for position, study in enumerate(studies)}
    found: dict[int, Tensor] = {}
    for region in regions:
        position = by_path.get(region.image)
        if position is None and region.mask is not None:  # drawn on a copy, which bears the same name
            position = by_name.get(region.image.stem)
        if position is None or studies[position].label != region.label or region.label not in LABELS:
            continue
        image = read_image(studies[position].image)
        if image.shape[0] > 1:
            raise DataError(f"{studies[position].image}: boxes and masks teach on single images, not on volumes.")
        _, rows, columns = prepare_slices(image, spec, (0,)).axes
        marked = region.marked(image.shape[1:])
        y, x = (
            np.round(axis.image_index(np.arange(size))).astype(int)
            for axis, size in zip((rows, columns), spec.size, strict=True)
        )
        inside = ((y >= 0) & (y < marked.shape[0]))[:, None] & ((x >= 0) & (x < marked.shape[1]))
        on_input = marked[y.clip(0, marked.shape[0] - 1)][:, x.clip(0, marked.shape[1] - 1)] & inside
        found[position] = torch.maximum(found.get(position, torch.zeros(())), torch.from_numpy(on_input).float()[None])
    return found


def evidence(network: FusionNetwork, features: Tensor, labels: Tensor) -> Tensor:
    """What each cell says for a finding, by the image alone, with a gradient: (B, *cells).

    The Grad-CAM of `class_activation_maps` before its rectifier and times the number of cells, so that its mean over
    the cells is in units of the logit.

    Args:
        network: Network; dropout is off.
        features: (B, C, *cells).
        labels: (B,) finding, its position in the logits.
    """
    if not features.requires_grad:
        features = features.detach().requires_grad_()
    nothing = features.new_zeros(len(features), network.clinical_dim)
    with sdpa_kernel(SDPBackend.MATH):  # the only attention whose gradient has a gradient
        logits = network.head(features, nothing, nothing.bool(), dropout=False).logits
    own = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(own, features, create_graph=True)
    weights = gradient.flatten(2).sum(2)
    return torch.einsum("bc,bcn->bn", weights, features.flatten(2)).unflatten(1, features.shape[2:])


def location_loss(evidence: Tensor, marks: Tensor) -> Tensor:
    """Minus the logarithm of the share of the evidence inside the marks (B,); 0 where nothing is marked.

    The share is that of a softmax over the cells: what counts is that the strongest evidence lies inside, and evidence
    outside is free to stay where it does not compete.

    Args:
        evidence: (B, *cells).
        marks: (B, *cells), the share of each cell that is marked, 0 to 1.
    """
    evidence, marks = evidence.flatten(1), marks.flatten(1)
    most = marks.amax(1, keepdim=True)  # small marks fill no cell: the best cell still counts whole
    weight = torch.where(most > 0, marks / most.clamp_min(torch.finfo(marks.dtype).tiny), 1.0)
    inside = torch.logsumexp(evidence + weight.log(), dim=1)
    return torch.logsumexp(evidence, dim=1) - inside
