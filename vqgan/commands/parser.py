"""How a subcommand reads what is typed after it, and what its `--help` says."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def command_parser(command: str, does: str | None, epilog: str, has_values: bool = False) -> argparse.ArgumentParser:
    """The parser of `vqgan COMMAND`, still without arguments.

    Args:
        command: as it is typed.
        does: what it does.
        epilog: shown last, as it is.
        has_values: whether it has values of its own, in `conf/COMMAND.yaml`, which the epilog then ends with.
    """
    if has_values:
        from vqgan.config.build import conf_dir  # here, as it brings Hydra, which most commands need not wait for

        epilog += (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    return argparse.ArgumentParser(
        prog=f"vqgan {command}",
        description=does,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add `--parts DIR`, for commands that build a tokenizer."""
    parser.add_argument(
        "--parts", metavar="DIR", type=Path, help="a folder of your own Python files that parts of it are from"
    )


def add_out(parser: argparse.ArgumentParser, metavar: str, does: str) -> None:
    """Add `--out`, the folder that a command writes; not that of a run."""
    parser.add_argument("--out", metavar=metavar, type=_folder_to_write, required=True, help=does)


def _folder_to_write(typed: str) -> Path:
    from vqgan.data.reading.own_folders import refuse_output_in_place_of  # here, as it brings torch

    refuse_output_in_place_of(Path(typed), "--out")
    return Path(typed)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, for commands that print a table."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead, and all else to stderr")


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[TextIO]:
    """A block whose own result goes where is given; with `--json` whatever else is printed goes to stderr."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield out
