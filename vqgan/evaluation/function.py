"""`python:`, anybody's function from clips to clips; and `mean-colour`, which every tokenizer must beat."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.config.outside import look_in
from vqgan.errors import ConfigError
from vqgan.evaluation.reconstructor import Group, Reconstructed, Reconstructor
from vqgan.frames import to_clips, to_frames
from vqgan.runtime.device import is_out_of_memory, memory_at_work

BITS_OF_A_COLOUR = 24  # a byte for each of red, green and blue


class MeanColour(Reconstructor):
    """Each frame as its mean colour, in three bytes."""

    yardstick = True

    def reconstruct(self, groups: Iterable[Group], device: torch.device) -> Iterator[Reconstructed]:
        """See `Reconstructor`."""
        for paths, clips in groups:
            means = clips.to(device).float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8)
            bits = torch.full((len(clips),), float(BITS_OF_A_COLOUR * clips.shape[1]))
            yield Reconstructed(paths, clips.to(device), means.expand_as(clips), bits=bits)


class FromFunction(Reconstructor):
    """A function of the user's, whose code is run.

    It takes frames (batch, time, rgb, height, width) in [-1, 1], float32 on the device of the evaluation, and gives as
    many of the same size back; or these and the bits that it spent, a number for each clip or one for all of them.

    Args:
        address: `package.module:function`, found from here and among what is installed, or `path/to/file.py:function`.

    Raises:
        ConfigError: there is no such function, or its file ends with an error.
    """

    def __init__(self, address: str) -> None:
        module, colon, name = address.rpartition(":")
        if not colon or not module or not name:
            raise ConfigError(f"python:{address} names no function: python:package.module:function, or a file.py:….")
        self.name = f"python:{Path(module).name if module.endswith('.py') else module}:{name}"
        found = _load(module)
        function: Any = found
        for part in name.split("."):
            function = getattr(function, part, None)
        if not callable(function):
            raise ConfigError(f"python:{address}: {module} has no function {name}.")
        self.function: Callable[[Tensor], Any] = function
        self.file = Path(str(getattr(found, "__file__", "")))
        self.beyond = False  # whether it gave values outside [-1, 1]

    @property
    def remarks(self) -> list[str]:
        """See `Reconstructor`."""
        return ["some of its values lie outside [-1, 1] and are clamped"] if self.beyond else []

    def identity(self) -> str | None:
        """The hash of its file; of weights that it loads nothing is known."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest() if self.file.is_file() else None

    def reconstruct(self, groups: Iterable[Group], device: torch.device) -> Iterator[Reconstructed]:
        """See `Reconstructor`."""
        for paths, clips in groups:
            with memory_at_work(device, clips.shape):
                originals = clips.to(device)
                frames, bits = self._call(to_frames(originals))
                self.beyond = self.beyond or bool((frames.abs() > 1 + 1e-6).any())
                yield Reconstructed(paths, originals, to_clips(frames), bits=bits)

    def _call(self, frames: Tensor) -> tuple[Tensor, Float[Tensor, "batch"] | None]:
        """What the function gives, checked: others' code may give anything."""
        try:
            result = self.function(frames.clone())  # it may write into what it gets
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise ConfigError(f"{self.name} ended with {type(error).__name__}: {_line(error)}.") from error
        made, bits = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        if not isinstance(made, Tensor) or not made.is_floating_point():
            kind = made.dtype if isinstance(made, Tensor) else type(made).__name__
            raise ConfigError(f"{self.name} gives {kind}, not a tensor of floats in [-1, 1], nor that and bits.")
        if made.shape != frames.shape:
            raise ConfigError(
                f"{self.name} gives {tuple(made.shape)} for {tuple(frames.shape)} (batch, time, rgb, height, width)."
            )
        if not bool(made.isfinite().all()):
            raise ConfigError(f"{self.name} gives values that are not finite.")
        return made.detach().to(frames.device), None if bits is None else self._bits(bits, len(frames))

    def _bits(self, bits: Any, batch: int) -> Float[Tensor, "batch"]:
        try:
            found = torch.as_tensor(bits, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            found = torch.full((), torch.nan)
        if found.ndim == 0:
            found = (found / batch).expand(batch)
        if found.shape != (batch,) or not bool((found.isfinite() & (found >= 0)).all()):
            raise ConfigError(
                f"{self.name} gives bits that are not a number for each of {batch} clips, or one for all."
            )
        return found.float()


def _load(module: str) -> Any:
    """A module by name, or by its file."""
    try:
        if not module.endswith(".py"):
            look_in(Path.cwd())  # an installed command does not look here by itself
            return importlib.import_module(module)
        file = Path(module).expanduser().resolve()
        if not file.is_file():
            raise ConfigError(f"python:{module}: there is no such file.")
        spec = importlib.util.spec_from_file_location(f"referee_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = found  # dataclasses look their module up
        for folder in (Path.cwd(), file.parent):  # a checkout that the command is started in; what lies beside it
            look_in(folder)
        spec.loader.exec_module(found)
        return found
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or module.partition(".")[0] == error.name:
            raise ConfigError(f"python:{module} cannot be imported: there is no module {error.name}.") from None
        raise ConfigError(
            f"python:{module} needs {error.name}, which is not here: install it, or start in the folder that it is in."
        ) from None
    except (Exception, SystemExit) as error:  # whatever importing a module can end with
        raise ConfigError(f"python:{module} cannot be imported: {type(error).__name__}: {_line(error)}.") from error


def _line(error: BaseException) -> str:
    """The first line of what it says, with the next where that only leads up to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:")
