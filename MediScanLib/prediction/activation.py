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
    if isinstance(network.fusion, GatedFusion):
        return _closed_form(network, network.fusion, features, values, observed)
    return _head_gradient(network, network.fusion, features, values, observed)


@torch.no_grad()
def _closed_form(
    network: FusionNetwork,
    fusion: GatedFusion,
    features: torch.Tensor,
    values: torch.Tensor,
    observed: torch.Tensor,
) -> ActivationResult:
    """Maps of a gated network without autograd.

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
    return _result(output, (through_value + through_gate) / features[0, 0].numel(), features)


@torch.no_grad()
def _head_gradient(
    network: FusionNetwork,
    fusion: AttentionFusion,
    features: torch.Tensor,
    values: torch.Tensor,
    observed: torch.Tensor,
) -> ActivationResult:
    """Maps of an attention network by backpropagation through its head, down to the image tokens.

    A token is a linear image of its cell, t_i = W F_i + b: the mean over the cells of dy_k / dF_i is W^T times the
    mean of dy_k / dt_i. Each sample stands once for every finding in one batch, so that one backward pass serves all.
    """
    count, classes = features.shape[0], network.num_classes
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because autograd refuses tensors that were made in inference mode.
        tokens = fusion.image_tokens(features.detach().clone()).detach()
        leaf = tokens.repeat(classes, 1, 1).requires_grad_()
        output = network.answer(fusion.fuse(leaf, values.detach().repeat(classes, 1), observed.repeat(classes, 1)))
        own = output.logits.unflatten(0, (classes, count)).diagonal(dim1=0, dim2=2)
        (gradient,) = torch.autograd.grad(own.sum(), leaf)
    weights = gradient.mean(1).unflatten(0, (classes, count)).transpose(0, 1) @ fusion.image_projection.weight
    first = HeadOutput(output.logits[:count].detach(), output.severity[:count].detach())
    return _result(first, weights, features)


def _result(output: HeadOutput, weights: torch.Tensor, features: torch.Tensor) -> ActivationResult:
    maps = functional.relu(torch.bmm(weights, features.flatten(2))).unflatten(2, features.shape[2:])
    return ActivationResult(output.logits, output.severity, maps.float())
