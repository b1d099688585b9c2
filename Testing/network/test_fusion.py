"""The fusion network: the formulas of the paper design, unknown values, dropout, and the two-call split."""

import pytest
import torch
from torch import nn

from MediScanLib.config import Config, ModelConfig, parse_config
from MediScanLib.errors import ConfigError
from MediScanLib.network.clinical import ClinicalEncoder, ClinicalTokens
from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork, GatedFusion

FUSIONS = ["gated", "attention"]
Clinical = tuple[torch.Tensor, torch.Tensor]


def build(fusion: str, **changes: object) -> FusionNetwork:
    torch.manual_seed(0)
    config = parse_config({"model": {"fusion": fusion, "weights": "none", **changes}}).model
    return FusionNetwork.build(config).eval()


@pytest.fixture(scope="module", params=FUSIONS)
def network(request: pytest.FixtureRequest) -> FusionNetwork:
    return build(request.param)


@pytest.fixture
def clinical() -> Clinical:
    torch.manual_seed(1)
    return torch.randn(3, 10), torch.rand(3, 10) > 0.4


@pytest.fixture
def features(network: FusionNetwork) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.rand(3, network.encoder.out_channels, 4, 5)


def test_the_default_configuration_builds_the_default_network() -> None:
    config = Config().model.model_copy(update={"weights": "none"})
    network = FusionNetwork.build(config)
    assert isinstance(network.fusion, GatedFusion)
    assert (network.num_classes, network.clinical_dim, network.dropout_rate) == (5, 10, 0.3)
    assert network.encoder.backbone == "efficientnet-lite0"


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_in_2d_and_3d(fusion: str, dims: int) -> None:
    network = build(fusion, backbone="densenet121", spatial_dims=dims, num_classes=4, clinical_dim=3)
    with torch.inference_mode():
        image, values, observed = torch.rand(2, 1, *[65] * dims), torch.randn(2, 3), torch.ones(2, 3, dtype=bool)
        features = network.features(image)
        output = network(image, values, observed)
    assert features.shape[:2] == (2, network.encoder.out_channels)
    assert features.ndim == 2 + dims
    assert output.logits.shape == (2, 4)
    assert output.severity.shape == (2,)


def test_two_calls_say_what_one_says(network: FusionNetwork, clinical: Clinical) -> None:
    image = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        whole = network(image, *clinical)
        split = network.head(network.features(image), *clinical)
    assert torch.equal(whole.logits, split.logits)
    assert torch.equal(whole.severity, split.severity)


def test_gated_fusion_is_the_formula(clinical: Clinical) -> None:
    network = build("gated")
    fusion = network.fusion
    features = torch.rand(3, 1280, 4, 5)
    f_img, f_clin = features.mean((2, 3)), fusion.clinical(*clinical)
    w_a, b_a = fusion.gate.weight, fusion.gate.bias
    alpha = torch.sigmoid(torch.cat([f_img, f_clin], 1) @ w_a.T + b_a)
    w_img, w_clin = fusion.image_projection.weight, fusion.clinical_projection.weight
    fused = alpha * torch.cat([f_img @ w_img.T, f_clin @ w_clin.T], 1)
    output = network.head(features, *clinical)
    torch.testing.assert_close(output.logits, fused @ network.disease.weight.T + network.disease.bias)
    torch.testing.assert_close(output.severity, (fused @ network.severity.weight.T + network.severity.bias).squeeze(1))
    assert fusion.image_projection.bias is None
    assert fusion.clinical_projection.bias is None


def test_a_gated_network_sees_only_the_average_of_the_map(clinical: Clinical) -> None:
    network, features = build("gated"), torch.rand(3, 1280, 4, 5)
    whole = network.head(features, *clinical)
    cell = network.head(features.mean((2, 3), keepdim=True), *clinical)
    torch.testing.assert_close(whole.logits, cell.logits)


def test_attention_fusion_is_self_attention_over_cells_and_fields(clinical: Clinical) -> None:
    network = build("attention")
    fusion = network.fusion
    features = torch.rand(3, 1280, 4, 5)
    assert fusion.attention.num_heads == 8
    image = torch.einsum("bchw,ec->bhwe", features, fusion.image_projection.weight).flatten(1, 2)
    image = image + fusion.image_projection.bias
    tokens = torch.cat([image, fusion.clinical_tokens(*clinical)], 1)
    normed = nn.functional.layer_norm(tokens, (256,), fusion.norm.weight, fusion.norm.bias)
    q, k, v = (normed @ fusion.attention.in_proj_weight.T + fusion.attention.in_proj_bias).chunk(3, 2)
    q, k, v = (part.unflatten(2, (8, 32)).transpose(1, 2) for part in (q, k, v))
    attended = torch.softmax(q @ k.transpose(2, 3) / 32**0.5, -1) @ v
    tokens = tokens + fusion.attention.out_proj(attended.transpose(1, 2).flatten(2))
    fused = torch.cat([tokens[:, :20].mean(1), tokens[:, 20:].mean(1)], 1)
    torch.testing.assert_close(network.head(features, *clinical).logits, network.disease(fused), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anything", [1e6, -1e6, float("nan"), float("inf")])
def test_what_stands_where_a_value_is_unknown_has_no_influence(
    network: FusionNetwork, features: torch.Tensor, clinical: Clinical, anything: float
) -> None:
    values, observed = clinical
    other = torch.where(observed, values, torch.tensor(anything))
    assert not torch.equal(values, other)
    gradients = []
    for given in (values, other):
        output = network.head(features, given, observed)
        gradients.append(torch.autograd.grad(output.logits.sum() + output.severity.sum(), network.fusion.parameters()))
    a, b = network.head(features, values, observed), network.head(features, other, observed)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.severity, b.severity)
    for one, two in zip(*gradients, strict=True):
        assert torch.isfinite(two).all()
        assert torch.equal(one, two)


def test_known_values_have_influence(network: FusionNetwork, features: torch.Tensor, clinical: Clinical) -> None:
    values, observed = clinical
    before = network.head(features, values, observed).logits
    for field in range(10):
        changed = values.clone()
        changed[:, field] += 1
        moved = (network.head(features, changed, observed).logits != before).any(1)
        assert torch.equal(moved, observed[:, field])


def test_known_zero_is_not_unknown(network: FusionNetwork, features: torch.Tensor) -> None:
    zeros, known = torch.zeros(3, 10), torch.ones(3, 10, dtype=bool)
    all_unknown = network.head(features, zeros, ~known)
    assert torch.isfinite(all_unknown.logits).all()
    assert torch.isfinite(all_unknown.severity).all()
    assert not torch.allclose(all_unknown.logits, network.head(features, zeros, known).logits)


def test_the_embedding_for_unknown_is_learned(network: FusionNetwork, features: torch.Tensor) -> None:
    output = network.head(features, torch.zeros(3, 10), torch.zeros(3, 10, dtype=bool))
    tokens = next(module for module in network.modules() if isinstance(module, ClinicalTokens))
    unknown, scale = torch.autograd.grad(output.logits.sum(), [tokens.unknown, tokens.scale])
    assert (unknown.abs().sum(1) > 0).all()
    assert scale.abs().sum() == 0


def test_samples_do_not_meet(network: FusionNetwork, features: torch.Tensor, clinical: Clinical) -> None:
    values, observed = clinical
    together = network.head(features, values, observed).logits
    for i in range(3):
        alone = network.head(features[i : i + 1], values[i : i + 1], observed[i : i + 1]).logits
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_dropout_touches_the_head_only_and_follows_the_argument(
    network: FusionNetwork, features: torch.Tensor, clinical: Clinical
) -> None:
    def logits(**how: bool) -> torch.Tensor:
        return network.head(features, *clinical, **how).logits

    assert torch.equal(logits(), logits(dropout=False))
    network.train()
    try:
        assert not torch.equal(logits(), logits())
        # No reduced-precision path differs between the modes by more than rounding.
        training = logits(dropout=False)
    finally:
        network.eval()
    torch.testing.assert_close(training, logits(), rtol=1e-5, atol=1e-6)
    assert not [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]


def test_without_a_dropout_rate_there_is_no_dropout(clinical: Clinical) -> None:
    network = build("gated", dropout_rate=0)
    features = torch.rand(3, 1280, 2, 2)
    plain = network.head(features, *clinical)
    for samples, answer in zip(network.sampled(features, *clinical, 3), plain, strict=True):
        torch.testing.assert_close(samples, answer.expand_as(samples), rtol=1e-5, atol=1e-6)


def test_the_mean_over_dropout_samples_is_the_answer_without(clinical: Clinical) -> None:
    network = build("attention")  # its heads are linear in the dropped vector
    features = torch.rand(1, 1280, 2, 2)
    values, observed = (part[:1] for part in clinical)
    with torch.inference_mode():
        samples = network.sampled(features, values, observed, 4000).logits
        expected = network.head(features, values, observed).logits
    error = samples.std(0) / 4000**0.5
    assert ((samples.mean(0) - expected).abs() < 5 * error).all()


def test_dropout_samples_are_those_of_training(
    network: FusionNetwork, features: torch.Tensor, clinical: Clinical
) -> None:
    drawn = network.sampled(features, *clinical, 3000)
    assert drawn.logits.shape == (3000, 3, network.num_classes)
    assert drawn.severity.shape == (3000, 3)
    network.train()
    try:
        again = torch.stack([network.head(features, *clinical).logits for _ in range(3000)])
    finally:
        network.eval()
    error = (drawn.logits.var(0) + again.var(0)).div(3000).sqrt()
    assert ((drawn.logits.mean(0) - again.mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(drawn.logits.std(0), again.std(0), rtol=0.1, atol=0)


def test_dropout_samples_repeat_and_do_not_depend_on_the_batch(
    network: FusionNetwork, features: torch.Tensor, clinical: Clinical
) -> None:
    state = torch.get_rng_state()
    together = network.sampled(features, *clinical, 8, seed=3).logits
    assert torch.equal(together, network.sampled(features, *clinical, 8, seed=3).logits)
    assert not torch.allclose(together, network.sampled(features, *clinical, 8, seed=4).logits)
    alone = network.sampled(features[1:2], *(part[1:2] for part in clinical), 8, seed=3).logits
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_parameter_learns(network: FusionNetwork, clinical: Clinical) -> None:
    output = network(torch.rand(3, 1, 64, 64), *clinical)
    gradients = torch.autograd.grad(output.logits.square().sum() + output.severity.sum(), network.parameters())
    for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        if not name.startswith("encoder"):
            assert gradient.abs().sum() > 0, name


def test_state_goes_through_a_file(network: FusionNetwork, clinical: Clinical) -> None:
    fusion = "gated" if isinstance(network.fusion, GatedFusion) else "attention"
    other = FusionNetwork.build(ModelConfig(fusion=fusion, weights="none")).eval()
    image = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(other(image, *clinical).logits, network(image, *clinical).logits)
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(image, *clinical).logits, network(image, *clinical).logits)


def test_the_clinical_encoder_takes_the_mask() -> None:
    encoder = ClinicalEncoder(4, 16)
    assert encoder(torch.zeros(2, 4), torch.tensor([[True] * 4, [True, False, True, True]])).shape == (2, 16)


def test_errors() -> None:
    encoder = build_encoder("efficientnet-lite0")
    with pytest.raises(ConfigError, match="no 'sum'; allowed: gated, attention"):
        FusionNetwork(encoder, fusion="sum")
    with pytest.raises(ConfigError, match="attention_heads: 8 does not divide the fusion width 100"):
        FusionNetwork(encoder, fusion="attention", fusion_dim=100)
