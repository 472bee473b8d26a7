"""Published files of weights: the file that is meant, in torch's cache, or none."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import torch

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
