"""The fusion network: an image encoder, clinical values, and the two heads that answer from both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..config import FUSION_DIM, ModelConfig
from ..errors import ConfigError
from .clinical import ClinicalEncoder, ClinicalTokens
from .encoders import Encoder, build_encoder
from .novelty import Novelty

CLINICAL_FEATURES = 64
"""Length of f_clin."""


class HeadOutput(NamedTuple):
    """What the heads say.

    Attributes:
        logits: (B, num_classes), one a finding; softmax gives probabilities.
        severity: (B,) logit; the sigmoid of it is the severity, 0 to 1.
    """

    logits: torch.Tensor
    severity: torch.Tensor


class GateState(NamedTuple):
    """What the gated fusion is made of.

    Attributes:
        gate: (B, out_features), alpha.
        projected: (B, out_features), W_img f_img (+) W_clin f_clin.
    """

    gate: torch.Tensor
    projected: torch.Tensor


class GatedFusion(nn.Module):
    """Gated multimodal unit over the pooled image and the clinical values.

    With f_img the global average of the feature map and f_clin the clinical features,

        alpha = sigmoid(W_a [f_img; f_clin] + b_a)
        f     = alpha * (W_img f_img (+) W_clin f_clin),    (+) concatenation

    After Arevalo et al., "Gated Multimodal Units for Information Fusion" (ICLR workshop 2017), with one gate for every
    fused feature.

    Args:
        channels: Channels of the feature map.
        clinical_dim: Number of clinical fields.
        fusion_dim: Length of W_img f_img.
    """

    def __init__(self, channels: int, clinical_dim: int, fusion_dim: int = FUSION_DIM) -> None:
        super().__init__()
        self.out_features = fusion_dim + CLINICAL_FEATURES
        self.clinical = ClinicalEncoder(clinical_dim, CLINICAL_FEATURES)
        self.image_projection = nn.Linear(channels, fusion_dim, bias=False)  # W_img
        self.clinical_projection = nn.Linear(CLINICAL_FEATURES, CLINICAL_FEATURES, bias=False)  # W_clin
        self.gate = nn.Linear(channels + CLINICAL_FEATURES, self.out_features)  # W_a, b_a

    def state(self, pooled: torch.Tensor, values: torch.Tensor, observed: torch.Tensor) -> GateState:
        """Gate and gated vector for pooled features (B, C); the closed form of the heat maps needs both."""
        f_clin = self.clinical(values, observed)
        gate = torch.sigmoid(self.gate(torch.cat([pooled, f_clin], dim=1)))
        projected = torch.cat([self.image_projection(pooled), self.clinical_projection(f_clin)], dim=1)
        return GateState(gate, projected)

    def forward(
        self, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor, dropout_rate: float
    ) -> torch.Tensor:
        """Fused vector (B, out_features)."""
        pooled = functional.dropout(average_pool(features), dropout_rate, training=dropout_rate > 0)
        gate, projected = self.state(pooled, values, observed)
        return gate * projected


class AttentionFusion(nn.Module):
    """Self-attention over image cells and clinical fields.

    Every cell of the feature map and every clinical field is a token; one pre-norm layer of multi-head attention
    (Vaswani et al., "Attention Is All You Need", 2017) lets each look at all. The fused vector holds the mean of the
    image tokens and the mean of the clinical tokens.

    Args:
        channels: Channels of the feature map.
        clinical_dim: Number of clinical fields.
        fusion_dim: Width of a token.
        heads: Attention heads; divides `fusion_dim`.
    """

    def __init__(self, channels: int, clinical_dim: int, fusion_dim: int = FUSION_DIM, heads: int = 8) -> None:
        super().__init__()
        if fusion_dim % heads:
            raise ConfigError(f"attention_heads: {heads} does not divide the fusion width {fusion_dim}.")
        self.out_features = 2 * fusion_dim
        self.image_projection = nn.Linear(channels, fusion_dim)
        self.clinical_tokens = ClinicalTokens(clinical_dim, fusion_dim)
        self.norm = nn.LayerNorm(fusion_dim)
        self.attention = nn.MultiheadAttention(fusion_dim, heads, batch_first=True)

    def image_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Projected cells of the feature map: (B, C, *cells) -> (B, number of cells, fusion_dim)."""
        tokens: torch.Tensor = self.image_projection(features.flatten(2).transpose(1, 2))
        return tokens

    def fuse(self, image_tokens: torch.Tensor, values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """Fused vector (B, out_features) from image tokens and clinical values."""
        tokens = torch.cat([image_tokens, self.clinical_tokens(values, observed)], dim=1)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        cells = image_tokens.shape[1]
        return torch.cat([tokens[:, :cells].mean(1), tokens[:, cells:].mean(1)], dim=1)

    def forward(
        self, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor, _dropout_rate: float
    ) -> torch.Tensor:
        """Fused vector (B, out_features); dropout comes only after it."""
        return self.fuse(self.image_tokens(features), values, observed)


class FusionNetwork(nn.Module):
    """Findings and severity from an image and clinical values.

    It splits in two calls: `features` is the expensive pass through the encoder; `head` is cheap, so that heat maps,
    dropout samples, attributions and changed clinical values need no second pass.

    Args:
        encoder: Image encoder.
        num_classes: Number of findings.
        clinical_dim: Number of clinical fields.
        fusion: "gated" or "attention".
        dropout_rate: Probability of dropping a pooled or fused feature in training. There is no other dropout.
        attention_heads: Heads of the attention fusion.
        fusion_dim: Width of the space in which image and clinical values meet.

    Raises:
        ConfigError: There is no such fusion, or `attention_heads` does not divide `fusion_dim`.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int = 5,
        clinical_dim: int = 10,
        fusion: str = "gated",
        dropout_rate: float = 0.3,
        attention_heads: int = 8,
        fusion_dim: int = FUSION_DIM,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.clinical_dim = clinical_dim
        self.dropout_rate = dropout_rate
        self.fusion: GatedFusion | AttentionFusion
        if fusion == "gated":
            self.fusion = GatedFusion(encoder.out_channels, clinical_dim, fusion_dim)
        elif fusion == "attention":
            self.fusion = AttentionFusion(encoder.out_channels, clinical_dim, fusion_dim, attention_heads)
        else:
            raise ConfigError(f"fusion: there is no {fusion!r}; allowed: gated, attention.")
        # fixed statistics of the encoder's features over training images; without them, features stay as they are
        self.register_buffer("feature_mean", torch.zeros(encoder.out_channels))
        self.register_buffer("feature_std", torch.ones(encoder.out_channels))
        self.novelty: Novelty | None = None  # what was learned of the training images as such, where it was
        self.disease = nn.Linear(self.fusion.out_features, num_classes)
        self.severity = nn.Linear(self.fusion.out_features, 1)

    @classmethod
    def build(cls, config: ModelConfig) -> FusionNetwork:
        """Make the network that a configuration describes, initial weights included.

        Raises:
            ConfigError: As for `build_encoder`.
        """
        encoder = build_encoder(
            config.backbone, config.spatial_dims, weights=config.weights, hypercolumns=config.hypercolumns
        )
        return cls(
            encoder,
            num_classes=config.num_classes,
            clinical_dim=config.clinical_dim,
            fusion=config.fusion,
            dropout_rate=config.dropout_rate,
            attention_heads=config.attention_heads,
        )

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Feature map (B, C, *cells) of images (B, in_channels, *spatial), standardized by channel."""
        features: torch.Tensor = self.encoder(image)
        shape = (-1, *[1] * self.encoder.spatial_dims)
        return (features - self.feature_mean.reshape(shape)) / self.feature_std.reshape(shape)

    @torch.no_grad()
    def standardize(self, pooled: torch.Tensor) -> None:
        """Take the statistics of pooled encoder features (image, C): their mean becomes 0, their deviation 1.

        The head then starts from channels of one size, and a map of zeros stands for the average image.
        """
        deviation = pooled.std(0)
        self.feature_mean.copy_(pooled.mean(0))
        self.feature_std.copy_(torch.where(deviation > 0, deviation, 1.0))  # a channel that never changes stays

    def head(
        self,
        features: torch.Tensor,
        values: torch.Tensor,
        observed: torch.Tensor,
        *,
        dropout: bool | None = None,
    ) -> HeadOutput:
        """Answer from a feature map.

        A gated network sees nothing of the map but its average, so that a map averaged to one cell
        (`features.mean(dims, keepdim=True)`) gives the same answer and is quicker for many dropout samples.

        Args:
            features: (B, C, *cells), from `features`.
            values: (B, clinical_dim), standardized; ignored where not observed.
            observed: (B, clinical_dim) bool.
            dropout: Whether dropout is active; None follows the mode of the module.
        """
        active = self.training if dropout is None else dropout
        rate = self.dropout_rate if active else 0.0
        fused = self.fusion(features, values, observed, rate)
        return self.answer(functional.dropout(fused, rate, training=active))

    def sampled(
        self, features: torch.Tensor, values: torch.Tensor, observed: torch.Tensor, count: int, seed: int = 0
    ) -> HeadOutput:
        """Monte Carlo samples of the head with dropout (Gal and Ghahramani, ICML 2016), whatever the mode.

        Every image meets the same draws, so that its answers do not depend on what else is in the batch, nor on the
        device; the random state of torch is neither read nor changed.

        Args:
            features: (B, C, *cells), from `features`.
            values: (B, clinical_dim), standardized; ignored where not observed.
            observed: (B, clinical_dim) bool.
            count: Samples.
            seed: Of the draws.

        Returns:
            Logits (count, B, num_classes) and severity (count, B).
        """
        generator = torch.Generator().manual_seed(seed)
        fusion = self.fusion
        if isinstance(fusion, GatedFusion):
            pooled = self._dropped(average_pool(features), count, generator)
            gate, projected = fusion.state(pooled.flatten(0, 1), values.repeat(count, 1), observed.repeat(count, 1))
            fused = (gate * projected).unflatten(0, (count, -1))
        else:
            fused = fusion(features, values, observed, 0.0).expand(count, -1, -1)
        output = self.answer(self._dropped(fused, count, generator).flatten(0, 1))
        return HeadOutput(*(part.unflatten(0, (count, -1)) for part in output))

    def _dropped(self, features: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        """Features (B, F) or (count, B, F) with dropout: (count, B, F)."""
        kept = torch.rand(count, 1, features.shape[-1], generator=generator) >= self.dropout_rate
        return features * (kept / (1 - self.dropout_rate)).to(features)

    def answer(self, fused: torch.Tensor) -> HeadOutput:
        """The two linear heads on a fused vector (B, F)."""
        return HeadOutput(self.disease(fused), self.severity(fused).squeeze(1))

    def forward(self, image: torch.Tensor, values: torch.Tensor, observed: torch.Tensor) -> HeadOutput:
        """`head` of `features`."""
        return self.head(self.features(image), values, observed)


def average_pool(features: torch.Tensor) -> torch.Tensor:
    """Global average pooling: (B, C, *cells) -> (B, C)."""
    return features.flatten(2).mean(2)
