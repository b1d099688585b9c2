"""Which clinical values mattered, and which way: exact Shapley values of the log-odds of every finding.

Shapley, "A Value for n-Person Games" (1953), as in Lundberg and Lee, "A Unified Approach to Interpreting Model
Predictions" (NeurIPS 2017), but exact and with nothing to sample: the fields of a coalition are known, the others
unknown, and the network has learned what unknown means. The image stays as it is, so that only the head is asked, and
only for what the clinical values change in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..network.card import Calibration
from ..network.fusion import AttentionFusion, FusionNetwork, GatedFusion, average_pool
from .calibrated import calibrated_probabilities

FloatArray = npt.NDArray[np.float64]

_MOST_WEIGHTS = 2**22
"""Attention weights that are held at once, at most: 16 MiB."""

_MOST_EXPONENT = 60.0
"""A clinical token with e^60 times the weight of the whole image has all of it; more would not be finite."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Log-odds of every finding and what each known field adds to them.

    Attributes:
        unknown: (finding,) log-odds with every value unknown.
        added: (field, finding) log-odds that a field adds; with `unknown` they sum to those of the prediction.
        fields: (field,) positions of the fields in the record.
    """

    unknown: FloatArray
    added: FloatArray
    fields: npt.NDArray[np.int64]


@torch.no_grad()
def seen_by_head(network: FusionNetwork, features: Tensor) -> Tensor:
    """All that the head takes from a feature map (B, C, *cells), and much less of it.

    Returns:
        Pooled features (B, C) for a gated network, image tokens (B, number of cells, width) for one with attention.
    """
    features = features.to(network.disease.weight.dtype)  # the encoder may have run in reduced precision
    return average_pool(features) if isinstance(network.fusion, GatedFusion) else network.fusion.image_tokens(features)


@torch.no_grad()
def attribute(
    network: FusionNetwork,
    seen: Tensor,
    values: Tensor,
    known: Tensor,
    calibration: Calibration | None,
    probabilities: FloatArray,
) -> Attribution:
    """Shapley values of the known clinical fields of one study, from 2^(known fields) answers of the head.

    Args:
        network: In evaluation mode.
        seen: (sample, ...) from `seen_by_head`: the slices over which the probabilities are averaged, or the one
            image or volume.
        values: (field,) standardized.
        known: (field,) bool, those known to the network; the others stay unknown throughout.
        calibration: Of the probabilities.
        probabilities: (finding,) of the prediction that is explained. It may differ from what is computed here in
            the last digits of single precision, which `unknown` then takes.
    """
    fields = known.nonzero().squeeze(1)
    coalitions = _coalitions(len(fields))
    observed = torch.zeros(len(coalitions), len(known), dtype=torch.bool)
    observed[:, fields] = torch.from_numpy(coalitions)
    logits = coalition_logits(network, seen, values, observed)
    each = calibrated_probabilities(logits.flatten(0, 1), calibration).unflatten(0, logits.shape[:2])
    added = shapley(log_odds(each.mean(0).numpy()))
    return Attribution(log_odds(probabilities) - added.sum(axis=0), added, fields.numpy())


def log_odds(probabilities: FloatArray) -> FloatArray:
    """log(p / (1 - p)) along the last axis, in which they sum to 1; finite, and exact where p is close to 1."""
    others = probabilities @ (1.0 - np.eye(probabilities.shape[-1]))
    tiny = np.finfo(np.float64).tiny
    odds: FloatArray = np.log(np.maximum(probabilities, tiny)) - np.log(np.maximum(others, tiny))
    return odds


def shapley(worth: FloatArray) -> FloatArray:
    """Shapley values (player, ...) of a game.

    phi_i = sum over coalitions S without i of |S|! (n - |S| - 1)! / n! (worth(S + i) - worth(S))

    Args:
        worth: (2^n, ...) of every coalition; player i is in coalition number c where bit i of c is set.
    """
    count = len(worth).bit_length() - 1
    members = _coalitions(count)
    weights = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.empty((count, *worth.shape[1:]))
    for player in range(count):
        without = np.flatnonzero(~members[:, player])
        gains = worth[without + (1 << player)] - worth[without]
        values[player] = np.tensordot(weights[members[without].sum(axis=1)], gains, axes=1)
    return values


@torch.no_grad()
def coalition_logits(network: FusionNetwork, seen: Tensor, values: Tensor, observed: Tensor) -> Tensor:
    """Logits (sample, coalition, finding) that `network.head` gives for one record with various fields observed.

    What the image contributes is computed once a sample and not once a coalition.

    Args:
        network: In evaluation mode.
        seen: (sample, ...) from `seen_by_head`.
        values: (field,) standardized.
        observed: (coalition, field) bool.
    """
    weight = network.disease.weight
    seen, values, observed = seen.to(weight.device, weight.dtype), values.to(weight), observed.to(weight.device)
    if isinstance(network.fusion, GatedFusion):
        fused = _gated(network.fusion, seen, values, observed)
    else:
        fused = _attended(network.fusion, seen, values, observed)
    return network.answer(fused.flatten(0, 1)).logits.unflatten(0, fused.shape[:2])


def _coalitions(count: int) -> npt.NDArray[np.bool_]:
    """(2^count, count) who is in which."""
    return (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(np.bool_)


def _gated(fusion: GatedFusion, pooled: Tensor, values: Tensor, observed: Tensor) -> Tensor:
    """Fused vectors (sample, coalition, out_features) as of `GatedFusion`, whose gate is linear in both parts."""
    channels = pooled.shape[1]
    f_clin = fusion.clinical(values.expand(observed.shape), observed)
    by_image = functional.linear(pooled, fusion.gate.weight[:, :channels], fusion.gate.bias)
    by_record = functional.linear(f_clin, fusion.gate.weight[:, channels:])
    image, record = fusion.image_projection(pooled), fusion.clinical_projection(f_clin)
    size = len(pooled), len(f_clin), -1
    projected = torch.cat([image[:, None].expand(size), record.expand(size)], dim=2)
    return torch.sigmoid(by_image[:, None] + by_record) * projected


class _Projected(NamedTuple):
    """Queries, keys and values (head, token, width of a head)."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def _attended(fusion: AttentionFusion, cells: Tensor, values: Tensor, observed: Tensor) -> Tensor:
    """Fused vectors (sample, coalition, out_features) as of `AttentionFusion`.

    A field has two tokens, unknown and known, and a coalition chooses one of them.
    """
    ever = observed.any(0)  # a value that is never known may be anything, NaN included
    tokens = fusion.clinical_tokens(values.expand(2, -1), torch.stack([torch.zeros_like(ever), ever])).flatten(0, 1)
    chosen = torch.cat([~observed, observed], dim=1).to(tokens)
    clinical, size = _projected(fusion, tokens), observed.shape[1]
    mean_token = chosen @ tokens / size
    everyone = torch.ones_like(chosen[:, :1])
    fused = []
    for sample in cells:
        image = _projected(fusion, sample)
        by_cells = _attention(image.queries, image, clinical, chosen, everyone) / len(sample)
        by_fields = _attention(clinical.queries, image, clinical, chosen, chosen) / size
        # what the layer does after attention is linear, and so the same for a mean of tokens as for each
        means = torch.stack([sample.mean(0).expand_as(mean_token), mean_token])
        attended = means + fusion.attention.out_proj(torch.stack([by_cells, by_fields]))
        fused.append(torch.cat(attended.unbind(), dim=1))
    return torch.stack(fused)


def _projected(fusion: AttentionFusion, tokens: Tensor) -> _Projected:
    attention = fusion.attention
    both = functional.linear(fusion.norm(tokens), attention.in_proj_weight, attention.in_proj_bias)
    return _Projected(*both.unflatten(1, (3, attention.num_heads, -1)).permute(1, 2, 0, 3))


def _attention(queries: Tensor, image: _Projected, clinical: _Projected, chosen: Tensor, asking: Tensor) -> Tensor:
    """Attention of the asking queries to all cells and the chosen clinical tokens, summed: (coalition, width).

    With o what a query finds among the cells alone, l the logarithm of its summed weights there, and s_c its score for
    clinical token c of value v_c,

        attention = (o + sum over chosen c of r_c v_c) / (1 + sum over chosen c of r_c),    r_c = exp(s_c - l):

    o and r are the same in every coalition.

    Args:
        queries: (head, query, width of a head).
        image: Of the cells.
        clinical: Of the clinical tokens.
        chosen: (coalition, clinical token) 1 or 0.
        asking: (coalition, query) or (coalition, 1), 1 or 0.
    """
    queries = queries / queries.shape[2] ** 0.5
    scores = queries @ image.keys.transpose(1, 2)
    summed = scores.logsumexp(2, keepdim=True)
    ratios = (queries @ clinical.keys.transpose(1, 2) - summed).clamp_max(_MOST_EXPONENT).exp()
    found = torch.cat([(scores - summed).exp() @ image.values, ratios], dim=2)
    width, step = image.values.shape[2], max(1, _MOST_WEIGHTS // queries[:, :, 0].numel())
    parts = []
    for some, who in zip(chosen.split(step), asking.split(step), strict=True):
        together = who / (1 + some @ ratios.transpose(1, 2)) @ found
        parts.append(together[:, :, :width] + together[:, :, width:] * some @ clinical.values)
    return torch.cat(parts, dim=1).transpose(0, 1).flatten(1)
