"""What a shell completes: commands, choices, keys; asked as a shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vqgan.commands.completion import SCRIPT, choices

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vqgan ", {"train ", "evaluate ", "import-json ", "import ", "doctor "}),
        ("vqgan eva", {"evaluate "}),
        ("vqgan train model=", {"model=emavq", "model=fsq", "model=residual"}),
        ("vqgan train model=em", {"model=emavq"}),
        ("vqgan train model=fsq trainer.", {"trainer.steps=", "trainer.precision="}),
        ("vqgan train experiment=f", {"experiment=f16", "experiment=finetune"}),
        ("vqgan encode RUN ", {"--out ", "fps=", "square=", "limits.seconds="}),
        ("vqgan compare ", {"--metric ", "--json "}),
        ("vqgan nonsense ", set()),
    ],
)
def test_choices_are_those_that_can_stand_there(line: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vqgan completion", "query"])
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    found = choices(line)
    assert expected <= set(found)
    assert bool(found) is bool(expected)
    assert "parser " not in found


def bash(script: str, folder: Path) -> list[str]:
    """Lines that a script prints, with our programs before all others."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("install", "program", "function", "name"),
    [
        ("vqgan completion bash", "vqgan train", "_vqgan_completion", "vqgan"),
        ("python train.py --shell-completion install=bash", "python train.py", "hydra_bash_completion", "python"),
    ],
)
def test_a_real_shell_completes_choices_and_keys(install: str, program: str, function: str, name: str) -> None:
    for typed, expected in (("model=em", ["model=emavq"]), ("trainer.step", ["trainer.steps="])):
        words = " ".join(f"'{word}'" for word in [*program.split(), typed])
        line = f"{program} {typed}"
        asked = f"COMP_WORDS=({words}) COMP_CWORD=2 COMP_LINE='{line}' COMP_POINT={len(line)}; export COMP_LINE"
        found = bash(f'eval "$({install})"; {asked}; {function} {name}; printf "%s\\n" "${{COMPREPLY[@]}}"', ROOT)
        assert found == expected


def test_the_script_is_one_that_bash_takes(tmp_path: Path) -> None:
    assert bash(f"{SCRIPT}\ncomplete -p vqgan", tmp_path)[-1] == "vqgan"
