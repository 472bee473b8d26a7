"""Perceptual distance, without torchvision."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import ConfigError
from vqgan.files.weights import NotAvailableError, WeightFile, tensors_in
from vqgan.frames import Frames
from vqgan.losses.perceptual import Perceptual

VGG16 = WeightFile(
    "vgg16",
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)
# VGG16 up to relu5_3: the width of each convolution, "pool" between stages (Simonyan & Zisserman 2015).
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 as positions in `features`
WIDTHS = (64, 128, 256, 512, 512)


class LPIPS(Perceptual):
    """Learned perceptual image patch similarity (Zhang et al. 2018, arXiv:1801.03924), VGG16, version 0.1.

    The calibrated heads come with the `lpips` package; only its file is read, since importing it needs a working
    torchvision. In training mode the reference's heads would drop half their inputs.

    Args:
        weights: file with VGG16's ImageNet weights, with torchvision's names (`features.0.weight` …); null
            downloads it once (528 MB) and checks its SHA-256.

    Raises:
        ConfigError: the file is missing or is not VGG16, or the download failed.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        self.features = vgg16_features()
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in WIDTHS)
        # ImageNet's mean and deviation, for inputs in [-1, 1]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        file = _published() if weights is None else Path(weights).expanduser()
        self._load_trunk(tensors_in(file, "loss.perceptual.weights"))
        self._load_heads()
        self.requires_grad_(False).eval()

    def activations(self, frames: Frames) -> Iterator[Tensor]:
        """VGG16's relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3; sides of at least 16 pixels."""
        h = (frames.flatten(0, 1) - self.shift) / self.scale
        for i, layer in enumerate(self.features):
            h = layer(h)
            if i in TAPS:
                yield h.float()

    def compare(self, a: Iterable[Tensor], b: Iterable[Tensor]) -> Float[Tensor, "n"]:
        """The sum over layers of mean over positions of Σ head · (â - b̂)², of activations scaled to unit length."""
        # The heads are 1×1 convolutions, written as products: autocast would take a convolution to half precision.
        distances = [
            ((_unit(x) - _unit(y)).square() * weight).sum(1).mean(dim=(1, 2))
            for weight, x, y in zip(self.heads.parameters(), a, b)
        ]
        return torch.stack(distances).sum(0)

    def _load_trunk(self, state: dict[str, Tensor]) -> None:
        prefix = "features."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        try:
            self.features.load_state_dict(own)
        except RuntimeError as error:
            raise ConfigError(f"loss.perceptual.weights does not hold VGG16's weights: {error}") from None

    def _load_heads(self) -> None:
        spec = importlib.util.find_spec("lpips")
        if spec is None or spec.origin is None:
            raise ConfigError("The package lpips, which brings the perceptual heads, is missing: pip install lpips.")
        file = Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
        state = torch.load(file, map_location="cpu", weights_only=True)
        self.heads.load_state_dict({k.replace("lin", "").replace("model.1.", ""): v for k, v in state.items()})


def _unit(x: Tensor) -> Tensor:
    # The eps stands inside the root as well: where all channels are 0, sqrt alone has no finite gradient.
    norm = (x.square().sum(1, keepdim=True) + 1e-20).sqrt()
    return x / (norm + 1e-10)


def vgg16_features() -> nn.Sequential:
    """VGG16's convolutions up to relu5_3, untrained, numbered as in torchvision."""
    layers: list[nn.Module] = []
    width = 3
    for stage in LAYERS:
        if isinstance(stage, int):
            layers += [nn.Conv2d(width, stage, 3, padding=1), nn.ReLU()]
            width = stage
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _published() -> Path:
    try:
        if not VGG16.cached.is_file():
            VGG16.download()
        VGG16.check(VGG16.cached, str(VGG16.cached))
    except NotAvailableError as error:
        raise ConfigError(
            f"The perceptual loss needs VGG16's weights of {VGG16.url}: {error}. Give a local copy with "
            "loss.perceptual.weights=FILE, or train without it: loss.perceptual_weight=0 and no loss.terms.gram, or "
            "for a short run loss=no_perceptual, whose adversary also starts early and weighs less."
        ) from None
    return VGG16.cached
