"""Networks whose features distances are measured in: known files, or nothing."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vqgan.errors import ConfigError
from vqgan.files.weights import NotAvailableError, WeightFile
from vqgan.losses import LPIPS
from vqgan.losses.lpips import VGG16

FIDELITY = "torch_fidelity"


INCEPTION = WeightFile(
    "inception",
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
I3D_TORCHSCRIPT = WeightFile(
    "i3d",
    "i3d_torchscript.pt",
    "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
)


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Where files of weights are: the values of `weights`; null for torch's cache, or a download into it.

    Args:
        vgg16: VGG16's ImageNet weights of torchvision, for LPIPS.
        inception: Inception-v3 of the FID paper, in torch-fidelity's port.
        i3d: the I3D of the FVD paper as StyleGAN-V's TorchScript.
    """

    vgg16: str | None
    inception: str | None
    i3d: str | None


@dataclass(frozen=True)
class FeatureNetworks:
    """The networks that are here, frozen, on one device; None for those that cannot be had.

    Args:
        lpips: for `lpips`.
        inception: for `rfid`.
        i3d: for `rfvd`.
        missing: by metric, why its network cannot be had.
        checksums: by key, the SHA-256 of the files of those that can.
    """

    lpips: LPIPS | None
    inception: Inception | None
    i3d: I3D | None
    missing: dict[str, str]
    checksums: dict[str, str]


def load_networks(files: WeightFiles, download: bool, device: torch.device) -> FeatureNetworks:
    """Load what can be had; nothing is raised for what cannot."""
    missing, checksums, found = dict[str, str](), dict[str, str](), dict[str, Any]()
    for metric, published, load in (
        ("lpips", VGG16, lambda file: LPIPS(str(file))),
        ("rfid", INCEPTION, Inception),
        ("rfvd", I3D_TORCHSCRIPT, I3D),
    ):
        try:
            file = find_weights(published, getattr(files, published.key), download)
            found[metric] = load(file).to(device)
            checksums[published.key] = published.sha256
        except (NotAvailableError, ConfigError) as error:
            missing[metric] = str(error).rstrip(".")
    return FeatureNetworks(found.get("lpips"), found.get("rfid"), found.get("rfvd"), missing, checksums)


def find_weights(published: WeightFile, file: str | None, download: bool) -> Path:
    """The file of a network, its SHA-256 checked.

    Args:
        published: which.
        file: where the user says that it is.
        download: fetch it if it is neither there nor in torch's cache.

    Raises:
        NotAvailableError: there is none, or another.
    """
    path = published.cached if file is None else Path(file).expanduser()
    advice = f"give files: weights.{published.key}=DIR/{published.name}"
    # Reasons stand in reports, which may be shared: they do not say where files lie.
    called = f"{path.name} in torch's cache" if file is None else f"weights.{published.key}=…/{path.name}"
    if file is not None and not path.is_file():
        raise NotAvailableError(f"{called} is not there")
    if not path.is_file():
        if not download:
            raise NotAvailableError(f"no weights in torch's cache, and download=false; {advice}")
        try:
            published.download()
        except NotAvailableError as error:
            raise NotAvailableError(f"{error}; {advice}") from None
    published.check(path, called)
    return path


class Inception(nn.Module):
    """Inception-v3 of the FID paper: 2048 features of each 8-bit frame, from the pooling layer.

    torch-fidelity's port of the TensorFlow graph of 2015-12-05, which enlarges frames to 299×299 as TensorFlow 1 did.

    Args:
        file: its weights, checked.

    Raises:
        NotAvailableError: torch-fidelity is missing, or has changed.
    """

    dim = 2048

    def __init__(self, file: Path) -> None:
        super().__init__()
        # torch-fidelity would unpickle whatever is in the file. It gets the bare tensors instead.
        tensors = io.BytesIO()
        torch.save(torch.load(file, map_location="cpu", weights_only=True), tensors)
        tensors.seek(0)
        try:
            with bare_package(FIDELITY):
                extractor = importlib.import_module(f"{FIDELITY}.feature_extractor_inceptionv3")
            self.network = extractor.FeatureExtractorInceptionV3("inception", ["2048"], tensors)
        except (ImportError, AttributeError, TypeError) as error:
            raise NotAvailableError(f"the package torch-fidelity cannot be used: {error}") from None
        self.requires_grad_(False).eval()

    def forward(self, frames: UInt8[Tensor, "frames rgb height width"]) -> Float[Tensor, "frames 2048"]:
        """The features of frames of any size."""
        features: Tensor = self.network(frames)[0]
        return features


class I3D(nn.Module):
    """I3D, trained on Kinetics-400, as TorchScript: 400 features of each clip, its logits.

    Args:
        file: checked. TorchScript is a program, which runs here.

    Raises:
        NotAvailableError: this torch does not read it.
    """

    dim = 400
    least_frames = 10  # for its pooling in time

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
                self.network: Any = torch.jit.load(str(file), map_location="cpu").eval()
        except (RuntimeError, AttributeError) as error:
            raise NotAvailableError(f"{file.name} cannot be loaded: {str(error).partition(chr(10))[0]}") from None

    def forward(self, clips: UInt8[Tensor, "batch time height width rgb"]) -> Float[Tensor, "batch 400"]:
        """The features of clips of at least ten frames of any size; it scales them to 224×224 itself."""
        channels_first = rearrange(clips, "b t h w c -> b c t h w").float()
        features: Tensor = self.network(channels_first, rescale=True, resize=True, return_features=True)
        return features


@contextmanager
def bare_package(name: str) -> Iterator[None]:
    """Within it, a package's modules can be imported without the package's own `__init__`.

    torch-fidelity's imports torchvision, which is often missing or does not fit torch, and which Inception does not
    need. Afterwards the package can be imported as if nothing had been.

    Raises:
        ImportError: there is no such package.
    """

    def loaded() -> dict[str, types.ModuleType]:
        return {key: module for key, module in sys.modules.items() if f"{key}.".startswith(f"{name}.")}

    before = loaded()
    spec = None if name in before else importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package
    try:
        yield
    finally:
        for key in loaded():
            if key not in before:
                del sys.modules[key]
