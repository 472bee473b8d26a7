"""Let a shell complete commands, choices, keys and values: eval "$(vqgan completion bash)"."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import re
import sys
from pathlib import Path

from vqgan.commands.parser import command_parser

EPILOG = """\
examples:
  eval "$(vqgan completion bash)"                                            in ~/.bashrc
  autoload -U bashcompinit && bashcompinit && eval "$(vqgan completion bash)"   in ~/.zshrc
  eval "$(python train.py --shell-completion install=bash)"                   for python train.py, Hydra's own

Then vqgan train model=<TAB> shows the quantizers, and vqgan train trainer.<TAB> the keys.
"""
SCRIPT = """\
_vqgan_completion() {
  local word=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=($(compgen -o default -W "$(COMP_LINE="$COMP_LINE" "$1" completion query 2>/dev/null)" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _vqgan_completion vqgan"""


def main() -> None:
    """`vqgan completion bash`."""
    parser = command_parser("completion", __doc__, EPILOG)
    parser.add_argument("what", choices=["bash", "query"], help="bash is the script; query is what the script asks")
    what = parser.parse_args().what
    print(SCRIPT if what == "bash" else " ".join(choices(os.environ.get("COMP_LINE", ""))))


def choices(line: str) -> list[str]:
    """What can stand where a command line ends.

    Args:
        line: what was typed so far, from the program's name on.
    """
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        folder = [str(Path(__file__).parent)]
        names = (module.name.rstrip("_").replace("_", "-") for module in pkgutil.iter_modules(folder))
        return [f"{name} " for name in names if name != "parser"]
    if words[1] == "train":
        return _of_hydra(line.partition(" train")[2])
    return _of_command(words[1])


def _of_hydra(typed: str) -> list[str]:
    """Groups, choices, keys and values, as Hydra finds them."""
    from vqgan.commands import train

    os.environ["COMP_LINE"] = f"vqgan{typed}"
    sys.argv[1:] = ["--shell-completion", "query=bash"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        train.main()
    return out.getvalue().split()


def _of_command(name: str) -> list[str]:
    """The flags that its help names, and the keys of its values."""
    modules = {name.replace("-", "_"), f"{name.replace('-', '_')}_"}
    found = next((m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name in modules), None)
    if found is None:
        return []
    sys.argv[1:] = ["--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        importlib.import_module(f"vqgan.commands.{found}").main()
    usage = out.getvalue().partition("\n\n")[0]
    return sorted({f"{flag} " for flag in re.findall(r"--[a-z][\w-]*", usage)}) + _keys(name)


def _keys(name: str) -> list[str]:
    from omegaconf import OmegaConf

    from vqgan.config.build import conf_dir
    from vqgan.config.keys import by_full_key

    file = conf_dir() / f"{name}.yaml"
    if not file.is_file():
        return []
    values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(values, dict)
    keys = (key for key, _ in by_full_key({str(key): value for key, value in values.items()}))
    return [f"{key}=" for key in keys if not key.endswith("_target_")]
