"""The command `vqgan`: each module of this folder, but for `parser`, is a subcommand of the same name.

A name that is Python's own has an underscore after it there.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

from vqgan.errors import ConfigError, StoppedError, VQGANError
from vqgan.runtime.signals import StopRequested, StopSignals
from vqgan.text import end_unread, show_warning


def main() -> None:
    """Run `vqgan SUBCOMMAND …`."""
    names = {m.name.rstrip("_").replace("_", "-"): m.name for m in pkgutil.iter_modules(__path__) if m.name != "parser"}
    if len(sys.argv) > 1 and sys.argv[1] in names:
        name = names[sys.argv[1]]
        sys.argv[:2] = [f"{sys.argv[0]} {sys.argv[1]}"]
        run(name)
        return
    if sys.argv[1:] == ["--version"]:
        print(version("vqgan"))
        return
    wants_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
    output = sys.stdout if wants_help else sys.stderr
    if len(sys.argv) > 1 and not wants_help:
        near = difflib.get_close_matches(sys.argv[1], names, n=1)
        print(f"Unknown command '{sys.argv[1]}'.{f' Did you mean {near[0]}?' if near else ''}\n", file=output)
    print("usage: vqgan COMMAND ...\n\ncommands:", file=output)
    for name, module in names.items():
        source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]  # importing it could load torch
        print(f"  {name:<14} {summary}", file=output)
    sys.exit(0 if wants_help else ConfigError.exit_code)


def run(module: str) -> None:
    """Run a subcommand: its errors are one paragraph and an exit code, and a signal ends it before it does harm."""
    warnings.showwarning = show_warning
    try:
        with StopSignals() as stop, stop.at_once():  # from here on: imports take seconds
            try:
                importlib.import_module(f"{__name__}.{module}").main()
                sys.stdout.flush()
            finally:
                stop.ignore()
    except StopRequested as signal:
        ended = ended_before(signal)
        said = f"Stopped by {signal}; what was finished is saved. {stop.goes_on}"
        print(f"\n{ended or said}", file=sys.stderr)
        sys.exit(StoppedError.exit_code if ended is None else ended.exit_code)
    except BrokenPipeError:
        end_unread()
    except VQGANError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def ended_before(error: BaseException) -> VQGANError | None:
    """What had ended the run, if it was on its way out when the signal came."""
    context = error.__context__
    while context is not None and not isinstance(context, VQGANError):
        context = context.__context__
    return context
