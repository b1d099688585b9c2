"""Class activation maps of all findings from one pass through the encoder.

Grad-CAM (Selvaraju et al., ICCV 2017): the map of finding k is relu(sum over c of w_kc F_c), where w_kc is the mean
over the cells of dy_k / dF_c. Only the head lies between the feature map F and the logit y_k, so that the encoder is
not asked again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from ..network.fusion import AttentionFusion, FusionNetwork, GatedFusion, HeadOutput, average_pool


class ActivationResult(NamedTuple):
    """Answer of the heads and where it came from.

    Attributes:
        logits: (B, K).
        severity: (B,) logit.
        maps: (B, K, *cells) float32, >= 0, raw: comparable between findings and between images.
    """

    logits: torch.Tensor
    severity: torch.Tensor
    maps: torch.Tensor


class ChannelWeights(NamedTuple):
    """What the heads say, and how much each channel of the feature map matters to it.

    Attributes:
        output: Logits (B, K) and severity (B,).
        weights: (B, K, C) mean over the cells of dy_k / dF_c.
    """

    output: HeadOutput
    weights: torch.Tensor


@torch.no_grad()
def class_activation_maps(
    network: FusionNetwork, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor
) -> ActivationResult:
    """Logits, severity and the maps of all findings.

    Dropout is off whatever the network's mode, and the network is left as it was: mode, gradients and
    `requires_grad`. Works inside `torch.inference_mode`.

    Args:
        network: Gated networks take the closed form, attention networks the gradient of their head.
        features: (B, C, *cells), from `network.features`.
        values: (B, clinical_dim), standardized.
        observed: (B, clinical_dim) bool.
    """
    features = features.to(network.disease.weight.dtype)  # the encoder may have run in reduced precision
    output, weights = channel_weights(network, features, values, observed)
    maps = functional.relu(torch.bmm(weights, features.flatten(2))).unflatten(2, features.shape[2:])
    return ActivationResult(output.logits, output.severity, maps.float())


@torch.no_grad()
def channel_weights(
    network: FusionNetwork, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor
) -> ChannelWeights:
    """Weights w_kc of the maps. They are linear in the logits: those of y_k - y_j are w_k - w_j.

    Args:
        network: See `class_activation_maps`, also for what it leaves alone.
        features: (B, C, *cells) in the precision of the heads.
        values: (B, clinical_dim), standardized.
        observed: (B, clinical_dim) bool.
    """
    if isinstance(network.fusion, GatedFusion):
        return _closed_form(network, network.fusion, features, values, observed)
    output, gradient = _token_gradients(network, network.fusion, features, values, observed)
    return ChannelWeights(output, gradient.mean(2) @ network.fusion.image_projection.weight)


@torch.no_grad()
def cell_gradients(
    network: FusionNetwork, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor
) -> torch.Tensor:
    """(B, K, C, *cells) dy_k / dF_c in every cell; in a gated network all cells are alike."""
    cells = features.shape[2:]
    if isinstance(network.fusion, GatedFusion):
        weights = _closed_form(network, network.fusion, features, values, observed).weights
        return weights.reshape(*weights.shape, *[1] * len(cells)).expand(*weights.shape, *cells)
    gradient = _token_gradients(network, network.fusion, features, values, observed)[1]
    return (gradient @ network.fusion.image_projection.weight).transpose(2, 3).unflatten(3, cells)


def _closed_form(
    network: FusionNetwork,
    fusion: GatedFusion,
    features: torch.Tensor,
    values: torch.Tensor,
    observed: torch.Tensor,
) -> ChannelWeights:
    """Weights of a gated network without autograd.

    With p the pooled features, alpha the gate and v = W_img p (+) W_clin f_clin, the logit is
    y_k = W_k (alpha * v) + b_k, and by the product rule

        dy_k/dp = (W_k * alpha)[image part] W_img + (W_k * v * alpha * (1 - alpha)) W_a[image columns].

    Average pooling spreads that evenly: w_kc = (dy_k/dp)_c / number of cells.
    """
    pooled = average_pool(features)
    gate, projected = fusion.state(pooled, values, observed)
    output = network.answer(gate * projected)
    head = network.disease.weight  # (K, F)
    channels, width = pooled.shape[1], fusion.image_projection.out_features
    through_value = (head[:, :width] * gate[:, None, :width]) @ fusion.image_projection.weight
    through_gate = (head * (projected * gate * (1 - gate))[:, None]) @ fusion.gate.weight[:, :channels]
    return ChannelWeights(output, (through_value + through_gate) / features[0, 0].numel())


def _token_gradients(
    network: FusionNetwork,
    fusion: AttentionFusion,
    features: torch.Tensor,
    values: torch.Tensor,
    observed: torch.Tensor,
) -> tuple[HeadOutput, torch.Tensor]:
    """What an attention network says, and (B, K, cell, width) dy_k / dt_i by backpropagation through its head.

    A token is a linear image of its cell, t_i = W F_i + b, so that dy_k / dF_i is W^T dy_k / dt_i. Each sample stands
    once for every finding in one batch, so that one backward pass serves all.
    """
    count, classes = features.shape[0], network.num_classes
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because autograd refuses tensors that were made in inference mode.
        tokens = fusion.image_tokens(features.detach().clone()).detach()
        leaf = tokens.repeat(classes, 1, 1).requires_grad_()
        output = network.answer(fusion.fuse(leaf, values.detach().repeat(classes, 1), observed.repeat(classes, 1)))
        own = output.logits.unflatten(0, (classes, count)).diagonal(dim1=0, dim2=2)
        (gradient,) = torch.autograd.grad(own.sum(), leaf)
    first = HeadOutput(output.logits[:count].detach(), output.severity[:count].detach())
    return first, gradient.unflatten(0, (classes, count)).transpose(0, 1)
