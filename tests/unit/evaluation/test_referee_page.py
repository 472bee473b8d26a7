"""The files that `docs/referee.md` has ready for other projects' tokenizers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "referee.md"
FILES = dict(re.findall(r"^### (.+?)\n.*?^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))


def test_there_is_one_for_each_project() -> None:
    assert list(FILES) == ["Cosmos", "VidTok", "LlamaGen", "Open-MAGVIT2", "Wan", "diffusers"]


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
