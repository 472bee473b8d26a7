"""Write a run's best checkpoint as a folder to share, or for another program: weights or graphs, and a model card."""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

from vqgan.commands.parser import add_out, add_parts, command_parser
from vqgan.tokenizer.exporting import formats

EPILOG = """\
examples:
  vqgan export runs/f16/2026-01-31_12-00-00 --out tokenizers/f16
  vqgan export tokenizers/f16 --out f16-onnx --format onnx

formats:
"""


def main() -> None:
    """`vqgan export RUN --out DIR [--format FORMAT]`."""
    found = {module.name: _summary(module.name) for module in pkgutil.iter_modules(formats.__path__)}
    listed = "\n".join(f"  {name:<12} {summary}" for name, summary in found.items())
    parser = command_parser("export", __doc__, f"{EPILOG}{listed}\n\nWhat a format cannot carry is refused.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run, or a tokenizer that was exported or imported")
    add_out(parser, "DIR", "folder to write")
    parser.add_argument("--format", choices=[*found], default="safetensors", help="see below; safetensors if not said")
    add_parts(parser)
    arguments = parser.parse_args()
    from vqgan.tokenizer.export import export, further  # here, as it brings torch, which --help need not wait for

    said = export(arguments.run, arguments.out, arguments.format, arguments.parts)
    typed = further(arguments.run, arguments.out) if arguments.format == "safetensors" else None
    go_on = f"Train it further with:\n  {typed}" if typed else None
    print("\n".join(filter(None, [f"{arguments.out} holds the tokenizer of {arguments.run}.", said, go_on])))


def _summary(name: str) -> str:
    """The first line of a format's file, without importing it."""
    source = (Path(formats.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
