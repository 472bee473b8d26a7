"""Look at this machine and a folder of videos: what is there, what to expect, what to change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqgan.commands.parser import add_json, command_parser, only_json

if TYPE_CHECKING:
    from vqgan.doctor.finding import Finding
    from vqgan.doctor.folder import Survey
    from vqgan.errors import VQGANError

EPILOG = """\
examples:
  vqgan doctor
  vqgan doctor videos
  vqgan doctor videos --json

A folder is looked at as the default would train on it (64 pixels, clips of 4 frames). What is learned of its files is
kept for the run that follows. Ends with 3 if it cannot be trained on as it is; troubles of the machine are only said.
"""


def main() -> None:
    """`vqgan doctor [DIR] [--json]`."""
    parser = command_parser("doctor", __doc__, EPILOG)
    parser.add_argument("folder", metavar="DIR", nargs="?", help="a folder of videos")
    add_json(parser)
    arguments = parser.parse_args()
    with only_json(arguments.json) as out:
        found = examine(arguments.folder)
        out.write(json.dumps(found.as_json(), indent=1) if arguments.json else found.as_text())
        out.write("\n")
    if found.error is not None:
        raise found.error
    if found.data is not None and not found.data.usable:
        from vqgan.errors import DataError

        raise SystemExit(DataError.exit_code)


@dataclass
class Found:
    """What the doctor has to say."""

    machine: Sequence[Finding]
    folder: str | None
    data: Survey | None = None
    error: VQGANError | None = None  # why the folder cannot be used
    expect: list[str] = field(default_factory=list)
    change: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """One screen."""
        from vqgan.text import printable

        parts = [_table("Machine", self.machine)]
        if self.data is not None:
            parts.append(_table(f"Videos in {self.folder}", self.data.findings))
        parts += [_list("What to expect", self.expect), _list("What to change", self.change)]
        text = "\n\n".join(part for part in parts if part)
        return "\n".join(printable(line) for line in text.splitlines())

    def as_json(self) -> Mapping[str, Any]:
        """The same as plain data."""
        return {
            "machine": {one.name: {"said": one.said, **one.values} for one in self.machine},
            "folder": self.folder,
            "data": None if self.data is None else {one.name: dict(one.values) for one in self.data.findings},
            "usable": None if self.folder is None else self.data is not None and self.data.usable,
            "error": None if self.error is None else str(self.error),
            "expect": self.expect,
            "change": self.change,
        }


def examine(folder: str | None) -> Found:
    """Look at the machine, and at a folder if one is named; nothing that is wrong there is raised."""
    from vqgan.doctor.machine import machine
    from vqgan.errors import DataError, VQGANError

    found = Found(machine(Path("runs")), folder)
    found.change = [one.change for one in found.machine if one.change]
    try:
        from hydra import compose, initialize_config_dir

        from vqgan.config.build import build, conf_dir
        from vqgan.doctor.folder import survey
        from vqgan.doctor.speed import speed

        typed = [] if folder is None else ["data=videos"]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", typed)
        timed = speed(config)
        found.expect.append(timed.said())
    except Exception as error:  # whatever it is: the machine is what is looked at
        found.change.insert(0, f"Training does not work here: {' '.join(str(error).split())}")
        return found
    if folder is None:
        return found
    config.data.root = folder
    try:
        found.data = survey(build(config.data, "data"))
    except VQGANError as error:
        found.error = error
        return found
    except Exception as error:
        found.error = DataError(f"{folder} cannot be looked at: {' '.join(str(error).split())}")
        return found
    found.expect[:0] = found.data.expect
    found.expect.append(
        f"The default makes {timed.tokens} tokens of a square frame of {config.data.resolution} pixels, "
        f"{timed.tokens * found.data.frames:,} of all frames here; fps=8 with vqgan encode makes fewer."
    )
    found.change[:0] = found.data.change
    return found


def _table(title: str, findings: Sequence[Finding]) -> str:
    width = max(len(one.name) for one in findings)
    lines = [f"  {one.name:<{width}}  {one.said}".replace("\n", f"\n{' ' * (width + 4)}") for one in findings]
    return "\n".join([title, *lines])


def _list(title: str, sentences: Sequence[str]) -> str:
    return "\n".join([title, *(f"  - {sentence}" for sentence in sentences)]) if sentences else ""
