"""Write a run's best checkpoint as a folder to share: weights, sizes and a model card."""

from __future__ import annotations

from pathlib import Path

from vqgan.commands.parser import add_parts, command_parser
from vqgan.tokenizer.export import export


def main() -> None:
    """`vqgan export RUN --out DIR [--format safetensors|taming]`."""
    parser = command_parser(
        "export", __doc__, "example:\n  vqgan export runs/f16/2026-01-31_12-00-00 --out tokenizers/f16"
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--format",
        choices=["safetensors", "taming"],
        default="safetensors",
        help="safetensors is what vqgan.load takes; taming is a state dict for taming-transformers",
    )
    add_parts(parser)
    arguments = parser.parse_args()
    export(arguments.run, arguments.out, arguments.format, arguments.parts)
    print(f"{arguments.out} holds the tokenizer of {arguments.run}.")
