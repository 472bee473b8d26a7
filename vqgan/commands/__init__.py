"""The command `vqgan`: each module of this folder is a subcommand of the same name."""

from __future__ import annotations

import importlib
import pkgutil
import sys


def main() -> None:
    """Run `vqgan SUBCOMMAND …`."""
    names = {m.name.replace("_", "-"): m.name for m in pkgutil.iter_modules(__path__)}
    if len(sys.argv) > 1 and sys.argv[1] in names:
        command = importlib.import_module(f"{__name__}.{names[sys.argv[1]]}")
        sys.argv[:2] = [f"{sys.argv[0]} {sys.argv[1]}"]
        command.main()
        return
    wants_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
    print("usage: vqgan COMMAND ...\n\ncommands:", file=sys.stdout if wants_help else sys.stderr)
    for name, module in names.items():
        summary = (importlib.import_module(f"{__name__}.{module}").__doc__ or "").splitlines()[0]
        print(f"  {name:<14} {summary}", file=sys.stdout if wants_help else sys.stderr)
    sys.exit(0 if wants_help else 2)
