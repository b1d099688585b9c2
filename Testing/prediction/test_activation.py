"""Class activation maps: as captum and torchcam have them, for all findings at once, leaving the network alone."""

from collections.abc import Iterator

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torchcam.methods import GradCAM

from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.activation import class_activation_maps

FUSIONS = ["gated", "attention"]
BATCH, CLASSES, FIELDS = 4, 5, 10
SIZE = {2: (96, 160), 3: (32, 96, 64)}


def build(fusion: str, dims: int = 2) -> FusionNetwork:
    torch.manual_seed(dims)
    encoder = build_encoder("efficientnet-lite0", weights="imagenet") if dims == 2 else build_encoder("resnet50", 3)
    network = FusionNetwork(encoder, num_classes=CLASSES, clinical_dim=FIELDS, fusion=fusion)
    with torch.no_grad():  # gates and attention that matter, not the near-constant ones of a fresh network
        for parameter in network.fusion.parameters():
            parameter.mul_(2)
    return network.eval()


@pytest.fixture(scope="module", params=[(fusion, dims) for fusion in FUSIONS for dims in (2, 3)], ids=str)
def network(request: pytest.FixtureRequest) -> FusionNetwork:
    return build(*request.param)


@pytest.fixture(scope="module")
def image(network: FusionNetwork) -> torch.Tensor:
    torch.manual_seed(5)
    return torch.randn(BATCH, 1, *SIZE[network.encoder.spatial_dims])


CLINICAL = {
    "some known": (
        torch.randn(BATCH, FIELDS, generator=torch.Generator().manual_seed(6)),
        torch.eye(BATCH, FIELDS) > 0,
    ),
    "all known": (
        torch.randn(BATCH, FIELDS, generator=torch.Generator().manual_seed(7)),
        torch.ones(BATCH, FIELDS) > 0,
    ),
    "all unknown": (torch.full((BATCH, FIELDS), float("nan")), torch.zeros(BATCH, FIELDS) > 0),
}


class Logits(nn.Module):
    """The network as the oracles want it: image in, logits out."""

    def __init__(self, network: FusionNetwork, values: torch.Tensor, observed: torch.Tensor) -> None:
        super().__init__()
        self.network, self.values, self.observed = network, values, observed

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, self.values, self.observed).logits


def assert_same_maps(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Every map alone: same direction, same values."""
    assert got.shape == expected.shape
    filled = expected.flatten(1).amax(1) > 1e-4 * expected.max()
    assert filled.sum() >= 5, "too few maps to compare"
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * expected.max().item())
    cosine = nn.functional.cosine_similarity(got.flatten(1), expected.flatten(1))
    assert (cosine[filled] >= 0.999).all()


@pytest.mark.parametrize("known", CLINICAL)
def test_captum_sees_the_same(network: FusionNetwork, image: torch.Tensor, known: str) -> None:
    values, observed = CLINICAL[known]
    with torch.inference_mode():
        result = class_activation_maps(network, network.features(image), values, observed)
        output = network(image, values, observed)
    torch.testing.assert_close(result.logits, output.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.severity, output.severity, rtol=1e-4, atol=1e-5)
    oracle = LayerGradCam(Logits(network, values, observed), network.encoder)
    expected = [oracle.attribute(image, target=k, relu_attributions=True).detach() for k in range(CLASSES)]
    assert_same_maps(result.maps.flatten(0, 1), torch.cat(expected, dim=1).flatten(0, 1))


def test_torchcam_sees_the_same(network: FusionNetwork, image: torch.Tensor) -> None:
    values, observed = CLINICAL["some known"]
    with torch.inference_mode():
        result = class_activation_maps(network, network.features(image), values, observed)
    wrapped = Logits(network, values, observed)
    expected = []
    with GradCAM(wrapped, target_layer=network.encoder) as oracle:
        for k in range(CLASSES):  # torchcam wants a graph that reaches the input
            scores = wrapped(image.clone().requires_grad_())
            expected.append(oracle(k, scores, normalized=False)[0].detach())
    assert_same_maps(result.maps.flatten(0, 1), torch.stack(expected, dim=1).flatten(0, 1))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("cells", [(4, 5), (3, 4, 2)])
def test_agreement_with_the_gradient_of_the_head_to_the_last_digits(fusion: str, cells: tuple[int, ...]) -> None:
    network = build(fusion).double()
    features = torch.randn(BATCH, 1280, *cells, dtype=torch.double)
    values, observed = (part[:BATCH] for part in CLINICAL["some known"])
    values = values.double()
    result = class_activation_maps(network, features, values, observed)
    leaf = features.clone().requires_grad_()
    logits = network.head(leaf, values, observed).logits
    for k in range(CLASSES):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True)
        weights = gradient.flatten(2).mean(2)
        expected = torch.einsum("bc,bc...->b...", weights, features).relu()
        torch.testing.assert_close(result.maps[:, k].double(), expected, rtol=1e-6, atol=1e-6 * expected.max().item())


def test_a_map_sums_to_its_logit_where_the_path_is_linear() -> None:
    """Oracle without gradients: with a constant gate and nothing negative, relu cuts nothing."""
    network = FusionNetwork(build_encoder("efficientnet-lite0")).eval()
    with torch.no_grad():
        network.fusion.gate.weight.zero_()
        network.disease.weight[:, network.fusion.image_projection.out_features :] = 0  # the image alone speaks
        network.disease.weight.abs_()
        network.fusion.image_projection.weight.abs_()
        features = torch.rand(BATCH, 1280, 3, 2)
        result = class_activation_maps(network, features, *CLINICAL["all known"])
    torch.testing.assert_close(result.maps.flatten(2).sum(2), result.logits - network.disease.bias)


def test_every_sample_gets_its_own_maps(network: FusionNetwork, image: torch.Tensor) -> None:
    values, observed = CLINICAL["some known"]
    with torch.inference_mode():
        features = network.features(image)
        together = class_activation_maps(network, features, values, observed).maps
        for i in range(BATCH):
            one = slice(i, i + 1)
            alone = class_activation_maps(network, features[one], values[one], observed[one]).maps
            torch.testing.assert_close(together[one], alone, rtol=1e-3, atol=1e-4 * together.max().item())


def test_maps_are_raw_float32_on_the_grid_of_the_feature_map(network: FusionNetwork, image: torch.Tensor) -> None:
    features = network.features(image)
    result = class_activation_maps(network, features, *CLINICAL["some known"])
    assert result.maps.dtype == torch.float32
    assert result.maps.shape == (BATCH, CLASSES, *features.shape[2:])
    assert (result.maps >= 0).all()
    maxima = result.maps.flatten(2).amax(2)
    assert maxima.unique().numel() > BATCH  # not normalized one by one
    doubled = class_activation_maps(network, features, *CLINICAL["some known"])
    assert torch.equal(doubled.maps, result.maps)


def test_features_in_reduced_precision_are_understood(network: FusionNetwork, image: torch.Tensor) -> None:
    with torch.inference_mode():
        features = network.features(image)
        expected = class_activation_maps(network, features.bfloat16().float(), *CLINICAL["some known"])
        got = class_activation_maps(network, features.bfloat16(), *CLINICAL["some known"])
    assert torch.equal(got.maps, expected.maps)


@pytest.fixture(params=["inference", "no_grad", "grad"])
def grad_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    modes = {"inference": torch.inference_mode, "no_grad": torch.no_grad, "grad": torch.enable_grad}
    with modes[request.param]():
        yield


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.usefixtures("grad_mode")
def test_the_network_is_left_as_it_was(network: FusionNetwork, image: torch.Tensor, training: bool) -> None:
    values, observed = CLINICAL["some known"]
    features = network.features(image).detach().clone()
    reference = class_activation_maps(network, features, values, observed)
    parameters = dict(network.named_parameters())
    with torch.inference_mode(False):
        marks = {name: torch.full_like(parameter, 7.0) for name, parameter in parameters.items()}
    try:
        network.train(training)
        network.fusion.eval()  # a mode of its own, which must survive
        for i, (name, parameter) in enumerate(parameters.items()):
            parameter.grad = marks[name]
            parameter.requires_grad_(i % 2 == 0)
        state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        modes = [module.training for module in network.modules()]
        result = class_activation_maps(network, features, values, observed)
        assert [module.training for module in network.modules()] == modes
        for i, (name, parameter) in enumerate(parameters.items()):
            assert parameter.requires_grad == (i % 2 == 0)
            assert parameter.grad is marks[name]
            assert (parameter.grad == 7).all()
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[key])
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert not module._backward_hooks
    finally:
        network.eval()
        for parameter in parameters.values():
            parameter.grad = None
            parameter.requires_grad_(True)
    assert features.grad is None
    assert not features.requires_grad
    assert not result.maps.requires_grad
    assert not result.logits.requires_grad
    # Dropout was off in training mode too.
    torch.testing.assert_close(result.maps, reference.maps, rtol=1e-4, atol=1e-5 * reference.maps.max().item())


def test_frozen_networks_have_maps(network: FusionNetwork, image: torch.Tensor) -> None:
    values, observed = CLINICAL["some known"]
    features = network.features(image).detach()
    expected = class_activation_maps(network, features, values, observed).maps
    network.requires_grad_(False)
    try:
        maps = class_activation_maps(network, features, values, observed).maps
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * expected.max().item())
    finally:
        network.requires_grad_(True)
