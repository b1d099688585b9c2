"""Clinical values as the network sees them: known ones by value, unknown ones by a learned embedding."""

from __future__ import annotations

import torch
from torch import nn


class ClinicalTokens(nn.Module):
    """One embedding a clinical field.

    A known value x of field j becomes x * scale_j + shift_j, an unknown one the learned unknown_j. Whatever number
    stands where a value is unknown, NaN included, has no influence on the output or on any gradient.

    Args:
        clinical_dim: Number of fields.
        width: Length of an embedding.
    """

    def __init__(self, clinical_dim: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(clinical_dim, width))
        self.shift = nn.Parameter(torch.empty(clinical_dim, width))
        self.unknown = nn.Parameter(torch.empty(clinical_dim, width))
        for parameter in (self.scale, self.shift, self.unknown):
            nn.init.normal_(parameter, std=width**-0.5)

    def forward(self, values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, clinical_dim, width).

        Args:
            values: (B, clinical_dim), standardized: zero mean and unit variance over the training data.
            observed: (B, clinical_dim) bool, False where the value is unknown.
        """
        known = torch.where(observed, values, 0.0).to(self.scale.dtype)  # NaN * 0 would be NaN
        tokens = known.unsqueeze(-1) * self.scale + self.shift
        return torch.where(observed.unsqueeze(-1), tokens, self.unknown)


class ClinicalEncoder(nn.Module):
    """Multilayer perceptron over value, mask and the embedding for "unknown": f_clin.

    Args:
        clinical_dim: Number of fields.
        out_features: Length of f_clin.
    """

    EMBEDDING = 8
    HIDDEN = 128

    def __init__(self, clinical_dim: int, out_features: int) -> None:
        super().__init__()
        self.tokens = ClinicalTokens(clinical_dim, self.EMBEDDING)
        self.layers = nn.Sequential(
            nn.Linear(clinical_dim * (self.EMBEDDING + 1), self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, out_features),
            nn.ReLU(),
        )

    def forward(self, values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """f_clin (B, out_features); arguments as for `ClinicalTokens`."""
        tokens = self.tokens(values, observed)
        f_clin: torch.Tensor = self.layers(torch.cat([tokens.flatten(1), observed.to(tokens.dtype)], dim=1))
        return f_clin
