"""Published files of weights: the file that is meant, in torch's cache, or none."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqgan.errors import ConfigError
from vqgan.files.state import sha256_of

PATIENCE = 10  # seconds for a server to answer


class NotAvailableError(Exception):
    """A network cannot be had; the message is the reason, a few words."""


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights. Figures are comparable only if it is this one, so no other is taken."""

    key: str  # of `weights` in `conf/evaluate.yaml`
    name: str  # in torch's cache, as other packages call it there
    url: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Where it is in torch's cache, or would be."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name

    def download(self) -> None:
        """Fetch it into torch's cache.

        Raises:
            NotAvailableError: the server does not answer in time, or gives another file, which is not kept.
        """
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # else a network that swallows packets holds us for minutes
        try:
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(self.cached), hash_prefix=self.sha256)
        except (OSError, RuntimeError, ValueError) as error:  # a RuntimeError is a checksum that differs
            said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise NotAvailableError(f"weights could not be downloaded ({' '.join(str(said).split())})") from None
        finally:
            socket.setdefaulttimeout(before)

    def check(self, path: Path, called: str) -> None:
        """Raise `NotAvailableError` unless `path`, which the user knows as `called`, is this file."""
        try:
            found = sha256_of(path)
        except OSError as error:
            raise NotAvailableError(f"{called} cannot be read: {error.strerror}") from None
        if found != self.sha256:
            raise NotAvailableError(
                f"{called} is not {self.name}: its SHA-256 is {found[:12]}…, not {self.sha256[:12]}…"
            )


def tensors_in(file: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name.

    Args:
        file: as torch writes it.
        key: of yaml, that named it.

    Raises:
        ConfigError: it is missing, or is no such file.
    """
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise ConfigError(f"{key} names a file that does not exist: {file}.") from None
    except Exception:  # torch's own words would advise to read it without protection
        raise ConfigError(f"{key} cannot be read as weights: {file}.") from None
    if not isinstance(state, dict):
        raise ConfigError(f"{key} holds no tensors by name: {file}.")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
