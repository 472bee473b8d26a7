"""Classes of a user's own, from a folder outside the package."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path

from vqgan.errors import ConfigError


def look_in(folder: str | Path) -> None:
    """Let modules be found in a folder, after all that is installed."""
    path = str(Path(folder).expanduser().resolve())
    if path not in sys.path:
        sys.path.append(path)


def find_in(folder: str | Path, name: str, path: str) -> type:
    """The class of that full name, whose file must lie in the folder.

    Args:
        folder: of the user's, who trusts what is in it.
        name: as `my_module.MyClass`.
        path: the key that names it.

    Raises:
        ConfigError: there is no such class in it.
    """
    look_in(folder)
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])  # which runs nothing yet
        inside = spec is not None and Path(str(spec.origin)).resolve().is_relative_to(
            Path(folder).expanduser().resolve()
        )
        target = pkgutil.resolve_name(name) if inside else None
    except Exception as error:  # whatever importing a module can end with
        raise ConfigError(f"{path} is {name}, which cannot be found in {folder}: {error}.") from None
    if not inspect.isclass(target):
        raise ConfigError(f"{path} is {name}, which is no class of a file in {folder}.")
    return target
