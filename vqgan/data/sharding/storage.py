"""Files in a folder or in object storage, read by ranges of bytes: patiently, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from vqgan.errors import ConfigError, DataError, UnusableError
from vqgan.text import counted

# Others can write to this machine, run commands or open further files on the way.
PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "hdfs")
FIRST_PAUSE = 0.5  # seconds before the second attempt; each later one is twice as long
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # no attempt will help
FORBIDDEN, BEYOND_THE_END = (401, 403), 416
Range = tuple[str, int, int]  # name of a file, first byte, byte after the last


class StorageReadError(DataError):
    """What is stored cannot be read now, for a reason that says nothing about the clip: no other may take its place."""


class MissingError(StorageReadError):
    """It is not there."""


@dataclass(frozen=True)
class Storage:
    """The files below `root`.

    Args:
        root: a folder, or the URL of one: `s3://bucket/folder`, `gs://…`, `https://…`.
        key: what the user called it.
        seconds: for one request; where the storage cannot be asked to hurry (a local folder) there is no limit.
        attempts: of a request that fails.
    """

    root: str
    key: str
    seconds: float
    attempts: int

    def __post_init__(self) -> None:
        protocol, found, _ = self.root.partition("://")
        if "::" in self.root or (found and protocol not in PROTOCOLS):
            raise ConfigError(
                f"{self.key}={self.root} is not a folder or a URL that can be read; it may begin with "
                f"{', '.join(f'{name}://' for name in PROTOCOLS)}."
            )
        try:
            _ = self.place
        except ImportError as error:
            raise ConfigError(
                f"{self.key}={self.root} needs a package that is not installed: {str(error).rstrip('.')}. "
                '`pip install "vqgan[cloud]"` brings those for https://, s3:// and gs://.'
            ) from None
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self.key}={self.root} cannot be opened: {error}.") from None

    @property
    def place(self) -> tuple[AbstractFileSystem, str]:
        """The file system and the folder's path in it; fsspec keeps file systems, each process its own."""
        folder = self.root if "://" in self.root else str(Path(self.root).expanduser())
        system, path = url_to_fs(folder)
        return system, path.rstrip("/")

    @property
    def local(self) -> Path | None:
        """The folder, if it is one of this machine."""
        system, path = self.place
        return Path(path) if isinstance(system, LocalFileSystem) else None

    @property
    def label(self) -> Path:
        """The folder as it stands before the names of clips in reports."""
        return Path(self.place[1].rpartition("://")[2])

    @property
    def longest(self) -> float:
        """Seconds that a read may take until it fails for good."""
        return self.attempts * self.seconds + FIRST_PAUSE * (2 ** (self.attempts - 1) - 1)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file, fewer if it ends before.

        Raises:
            MissingError: the file is not there.
            StorageReadError: its bytes cannot be had.
        """
        system, folder = self.place
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                content: bytes = system.cat_file(f"{folder}/{name}", start=start, end=end, **self._hurry(system))
                break
            except (UnusableError, MemoryError):  # limits of the reading process
                raise
            except Exception as error:  # each storage has its own kinds
                status = getattr(error, "status", None)  # of HTTP
                if status == BEYOND_THE_END or "range is not satisfiable" in str(error):  # in HTTP's words and in S3's
                    return b""
                if isinstance(error, FINAL) or status in FORBIDDEN:
                    kind = MissingError if isinstance(error, FileNotFoundError) else StorageReadError
                    raise kind(
                        f"{self._full(name)} cannot be read: {_reason(error)}. {self.key} must hold all files of its "
                        "manifest.json; copy them there again, or see to the rights."
                    ) from None
                last = error
        else:
            raise StorageReadError(
                f"{self._full(name)} cannot be read: {_reason(last)} ({counted(self.attempts, 'attempt')}). When it "
                "can be again, the same command goes on; data.request_seconds and data.request_attempts say how long "
                "to try."
            ) from None
        if len(content) > end - start:
            raise StorageReadError(
                f"{self._full(name)}: {len(content):,} bytes came where {end - start:,} were asked for. The server "
                "must support range requests."
            )
        return content

    def read_many(self, ranges: Sequence[Range]) -> list[bytes | None]:
        """Several ranges, all asked for at once; None for what did not come so, which `read` may get."""
        system, folder = self.place
        names, starts, ends = zip(*ranges)
        try:
            found: list[Any] = system.cat_ranges(
                [f"{folder}/{name}" for name in names], list(starts), list(ends), on_error="return",
                **self._hurry(system),
            )  # fmt: skip
        except (UnusableError, MemoryError):
            raise
        except Exception:
            return [None] * len(ranges)
        sound = (
            isinstance(content, bytes) and len(content) <= end - start
            for content, start, end in zip(found, starts, ends)
        )
        return [content if is_sound else None for content, is_sound in zip(found, sound)]

    def _full(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _hurry(self, system: AbstractFileSystem) -> dict[str, float]:
        return {"timeout": self.seconds} if system.async_impl else {}


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
