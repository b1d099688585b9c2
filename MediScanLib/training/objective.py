"""What training minimizes: an image-only pass over all findings, and a pass with clinical values within each source.

Data sets differ in body part, device and in which values were measured, so that "this field is known" gives away the
data set and with it the finding. The clinical values may therefore only tell apart the findings of one source.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import TrainingConfig
from ..network.fusion import FusionNetwork, HeadOutput
from .datasets import LABELS, Study
from .location import evidence, location_loss
from .loss import EXCLUDED, CompositeLoss, Denominators
from .sampling import balanced_weights


@dataclass(frozen=True)
class Targets:
    """What is known to be true of studies.

    Attributes:
        allowed: (study, label), labels that the study may have.
        within: (study, label), labels that the study's source has at all.
        severity: (study,), 0 to 1, NaN where unknown.
        shift: (study, label), what balanced drawing adds to the logits of the study's source; see `prior_shift`.
        finding: (study,) the label on whose behalf readers marked the image; -1 where nobody did.
    """

    allowed: Tensor
    within: Tensor
    severity: Tensor
    shift: Tensor
    finding: Tensor

    @classmethod
    def of(cls, studies: Sequence[Study], marked: Collection[int] = ()) -> Targets:
        """Targets of the studies of a split.

        Args:
            studies: Studies.
            marked: Positions of those on which readers marked the finding that they are labelled with.
        """
        labels_of = {
            source: torch.tensor([s.allowed for s in studies if s.source == source]).any(0)
            for source in {s.source for s in studies}
        }
        return cls(
            allowed=torch.tensor([study.allowed for study in studies]),
            within=torch.stack([labels_of[study.source] for study in studies]),
            severity=torch.tensor([float("nan") if s.severity is None else s.severity for s in studies]),
            shift=prior_shift(studies),
            finding=torch.tensor([LABELS.index(s.label) if i in marked else -1 for i, s in enumerate(studies)]),
        )

    def of_rows(self, rows: Tensor, device: torch.device | None = None) -> Targets:
        """Targets of chosen studies."""
        return Targets(*(part[rows].to(device) for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.allowed, self.within, self.severity, self.shift, self.finding


def prior_shift(studies: Sequence[Study]) -> Tensor:
    """How much likelier each label of a source is in balanced batches than in the source itself, as a logarithm.

    With the logits shifted by it in training, the network learns the probabilities of the source as it is, while rare
    labels are still drawn often (Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021).

    Returns:
        (study, label); 0 where the source never allows the label.
    """
    weights, allowed = balanced_weights(studies), torch.tensor([study.allowed for study in studies])
    shift = torch.zeros(allowed.shape)
    for source in {study.source for study in studies}:
        rows = torch.tensor([study.source == source for study in studies])
        drawn = (weights[rows, None] * allowed[rows]).sum(0) / weights[rows].sum()
        present = allowed[rows].float().mean(0)
        shift[rows] = torch.where(present > 0, (drawn / present).log(), 0.0)
    return shift


class ObjectiveParts(NamedTuple):
    """Scalars.

    Attributes:
        total: What is minimized, the sum of the others.
        image: Composite loss of the image alone, over all findings.
        clinical: Composite loss with clinical values, between the findings of each study's source.
        divergence: From the image-only opinion on the findings of other sources.
        location: Evidence outside what readers marked, weighted.
    """

    total: Tensor
    image: Tensor
    clinical: Tensor
    divergence: Tensor
    location: Tensor


class TwoPassObjective(nn.Module):
    """The loss of a batch, or the share of a part of a batch in it.

    A module around the network, so that a distributed wrapper sees both passes as one forward call.

    Args:
        network: Network.
        settings: Weights of the loss, label smoothing and logit adjustment.
    """

    def __init__(self, network: FusionNetwork, settings: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.logit_adjustment = settings.logit_adjustment
        self.location_weight = settings.location_weight
        self.loss = CompositeLoss(
            settings.disease_weight,
            settings.severity_weight,
            settings.regularization_weight,
            label_smoothing=settings.label_smoothing,
        )

    def denominators(self, targets: Targets, processes: int = 1) -> Denominators:
        """Of a whole batch; divided by the processes, because distributed gradients are averaged and not added."""
        marked = max(1, int((targets.finding >= 0).sum()))
        whole = self.loss.denominators(targets.allowed, targets.severity)._replace(marked=marked)
        return Denominators(*(denominator / processes for denominator in whole))

    def forward(
        self,
        image: Tensor,
        values: Tensor,
        known: Tensor,
        targets: Targets,
        image_shown: Tensor | None = None,
        denominators: Denominators | None = None,
        encoder_frozen: bool = False,
        marks: Tensor | None = None,
    ) -> ObjectiveParts:
        """Loss from images.

        Args:
            image: (B, 1, *spatial).
            values: (B, field), standardized.
            known: (B, field) bool.
            targets: Of these studies.
            image_shown: (B,) bool, False where the second pass must do without the image; None for all shown.
            denominators: Of the whole batch, where this is a part of it.
            encoder_frozen: Whether the encoder is spared its gradient.
            marks: (B, *cells) share of each cell that readers marked; None for no marks.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not encoder_frozen):
            features = self.network.features(image)
        return self.of_features(features, values, known, targets, image_shown, denominators, marks)

    def of_features(
        self,
        features: Tensor,
        values: Tensor,
        known: Tensor,
        targets: Targets,
        image_shown: Tensor | None = None,
        denominators: Denominators | None = None,
        marks: Tensor | None = None,
    ) -> ObjectiveParts:
        """Loss from feature maps (B, C, *cells); the other arguments as for `forward`."""
        hidden = _in_float32(self.network.head(features, torch.zeros_like(values), torch.zeros_like(known)))
        visible = features if image_shown is None else hide_images(features, ~image_shown)
        shown = _in_float32(self.network.head(visible, values, known))
        shift = targets.shift if self.logit_adjustment else torch.zeros_like(targets.shift)
        drawn = hidden.logits + shift
        image = self.loss(drawn, targets.allowed, hidden.severity, targets.severity, denominators).total
        inside = (shown.logits + shift).masked_fill(~targets.within, EXCLUDED)
        clinical = self.loss(inside, targets.allowed, shown.severity, targets.severity, denominators).total
        each = _outside_divergence(hidden.logits, shown.logits, targets.within)
        if image_shown is not None:  # without its image a study has no opinion to be held to
            each = each * image_shown
        divergence = each.sum() / (denominators.studies if denominators else len(each))
        location = self._location(features, targets, denominators, marks)
        return ObjectiveParts(image + clinical + divergence + location, image, clinical, divergence, location)

    def _location(
        self, features: Tensor, targets: Targets, denominators: Denominators | None, marks: Tensor | None
    ) -> Tensor:
        rows = (targets.finding >= 0).nonzero().flatten()
        if not self.location_weight or marks is None or not len(rows):
            return torch.zeros((), device=features.device)
        with torch.autocast(features.device.type, enabled=False):  # a gradient of a gradient wants its digits
            seen = evidence(self.network, features[rows].float(), targets.finding[rows])
            each = location_loss(seen, marks[rows])
        return self.location_weight * each.sum() / (denominators.marked if denominators else len(rows))

    def validation_loss(self, hidden: HeadOutput, shown: HeadOutput, targets: Targets) -> float:
        """Disease loss without and with clinical values: within sources, and half as much over all findings."""
        total = 0.0
        for output in (hidden, shown):
            inside = output.logits.masked_fill(~targets.within, EXCLUDED)
            for logits, share in ((inside, 1.0), (output.logits, 0.5)):
                total += share * float(self.loss(logits, targets.allowed, output.severity, targets.severity).disease)
        return total


def hide_images(features: Tensor, hidden: Tensor) -> Tensor:
    """Feature maps with those of hidden images (B,) set to zero: what a network sees that has no image."""
    return features.masked_fill(hidden.reshape(-1, *[1] * (features.ndim - 1)), 0.0)


def _in_float32(output: HeadOutput) -> HeadOutput:
    return HeadOutput(output.logits.float(), output.severity.float())


def _outside_divergence(hidden: Tensor, shown: Tensor, within: Tensor) -> Tensor:
    """KL divergence (B,) from the image-only opinion on other sources' findings, the source's own taken as one."""

    def coarse(logits: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits, dim=1)
        own = torch.logsumexp(log_p.masked_fill(~within, -torch.inf), dim=1, keepdim=True)
        return torch.cat([own, log_p.masked_fill(within, EXCLUDED)], dim=1)

    return functional.kl_div(coarse(shown), coarse(hidden).detach(), log_target=True, reduction="none").sum(1)
