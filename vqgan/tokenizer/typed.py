"""What to type so that a training command has the parts that a tokenizer is made of."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vqgan.config.build import conf_dir
from vqgan.text import PROGRAM

REFERENCE = re.compile(r"\$\{([\w.]+)\.(\w+)\}")
Part = Mapping[str, Any]  # a class and its values, as `config.json` has them


def command(folder: str | Path, overrides: Sequence[str], *recipe: str) -> str:
    """What trains the tokenizer in a folder further."""
    return shlex.join([*PROGRAM.split(), *recipe, f"init_from={folder}", *overrides, "data=videos", "data.root=DIR"])


def overrides_for(backbone: Part, quantizer: Part, critic: Part | None = None) -> list[str] | None:
    """Of each part the choice, and the values that differ from its; None if there is no choice for one of them."""
    parts = [("backbone", "backbone", backbone), ("model", "model.quantizer", quantizer)]
    parts += [("discriminator", "discriminator", critic)] if critic else []
    found = [choice_of(*part) for part in parts]
    return None if [] in found else [typed for one in found for typed in one]


def choice_of(group: str, path: str, part: Part) -> list[str]:
    """The choice of a group that has the part's class and the fewest values that differ, and these; else nothing."""
    found = []
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        section: Any = _composed(file)
        for key in path.split(".")[1:]:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        differing = _differing(path, part, section) if isinstance(section, dict) else None
        if differing is not None:
            found.append([f"{group}={file.stem}", *differing])
    return min(found, key=len, default=[])


def _composed(file: Path) -> dict[str, Any]:
    """A choice's values over those of the choices of the same group that it names."""
    values: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for name in values.pop("defaults", []):
        if name != "_self_":
            values = _composed(file.with_name(f"{name}.yaml")) | values
    return dict(values)


def _differing(path: str, part: Part, section: Part) -> list[str] | None:
    """The values that are others in a part than in a section; None if one of their classes is."""
    if str(section.get("_target_", "")).rpartition(".")[2] != part["class"]:
        return None
    found: list[str] = []
    for key, value in part.items():
        chosen = section.get(key)
        own = REFERENCE.fullmatch(chosen) if isinstance(chosen, str) else None
        if own is not None:  # to a value of the part, or of one that it has to fit
            chosen = part.get(own[2]) if own[1] == path else value
        if isinstance(value, dict):
            inside = _differing(f"{path}.{key}", value, chosen if isinstance(chosen, dict) else {})
            if inside is None:
                return None
            found += inside
        elif key != "class" and chosen != value:
            found.append(f"{path}.{key}={json.dumps(value, separators=(',', ':'))}")
    return found
