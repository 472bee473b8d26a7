"""What differs between Hydra 1.3 with OmegaConf 2.3 and Hydra 1.4 with OmegaConf 2.4: the only place that knows.

This package asks for the former; the latter's release candidates are tried so that it can follow them. What a config
may call differs most, and is asked of neither where a run is built: `vqgan.config.build` has rules of its own.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import hydra
from omegaconf import OmegaConf

# Of `hydra.main`: 1.3 behaves as 1.1 unless it is told otherwise, and 1.4 warns who tells it anything.
BASE: dict[str, Any] = {"version_base": "1.3"} if version("hydra-core").startswith("1.3.") else {}


def calls_ours() -> contextlib.AbstractContextManager[Any]:
    """The context in which Hydra may call what its own config names of this package, the hook of sweeps: 1.4 asks."""
    allow = getattr(hydra.utils, "execution_whitelist", None)
    return contextlib.nullcontext() if allow is None else allow("vqgan.*")


def sweep_is_broken_off() -> bool:
    """Whether the hook that ends a sweep is called on the way out of an error, as 1.4 does and 1.3 does not."""
    return sys.exc_info()[0] is not None


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Have `${name:…}` mean this, whatever it meant before."""
    # 2.4 gives the new way the name of an old one that 2.3 still has, and warns of the name that the new way has there.
    is_new = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if is_new else OmegaConf.register_new_resolver
    register(name, resolver, replace=True)
