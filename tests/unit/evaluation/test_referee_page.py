"""The files that `docs/referee.md` has ready for other projects' tokenizers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from vqgan.errors import ConfigError
from vqgan.evaluation.function import FromFunction

PAGE = Path(__file__).resolve().parents[3] / "docs" / "referee.md"
NEEDED = {"Cosmos": "cosmos_tokenizer", "VidTok": "scripts", "LlamaGen": "tokenizer", "Open-MAGVIT2": "src"}
FILES = dict(re.findall(r"^### (.+?)\n.*?^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))


def test_there_is_one_for_each_project() -> None:
    assert [*FILES] == [*NEEDED, "Wan", "diffusers' VQModel", "diffusers' AutoencoderKL"]


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_missing_is_said_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(FILES[name])
    with pytest.raises(ConfigError, match=f"^python:theirs.py needs {NEEDED[name]}, which is not here: install it, or"):
        FromFunction("theirs.py:reconstruct")


@pytest.mark.parametrize("name", FILES)
def test_each_is_a_short_file_with_a_function_of_clips(name: str) -> None:
    tree = ast.parse(FILES[name])
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert (function.name, [argument.arg for argument in function.args.args]) == ("reconstruct", ["clips"])
    assert isinstance(function.body[-1], ast.Return)
    code = [line for line in FILES[name].splitlines() if line.strip()]
    assert len(code) <= 12
    known = {alias.asname or alias.name.partition(".")[0] for node in ast.walk(tree)
             if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
    known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used <= known | {"clips"}
    assert known - used <= {"_"}, "nothing is imported in vain"
