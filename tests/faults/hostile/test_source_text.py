"""The source text: nothing in the package reads what could run code."""

from __future__ import annotations

import ast

from tests.faults.hostile.attempts import ROOT

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "os.system", "os.popen", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "torch.serialization.add_safe_globals", "torch.serialization.safe_globals",
}  # fmt: skip
WORDS = (
    "weights_only=False", "pickle.load", "Unpickler(", "yaml.load(", "unsafe_load", "allow_pickle=True", "shell=True",
)  # fmt: skip
# What the processes of one run hand over among themselves, in memory without a name: no file is read so.
OWN = {("vqgan/data/reading/work.py", "pickle.load"), ("vqgan/data/reading/shared.py", "Unpickler(")}
# A program, of which the one whose SHA-256 is published is the only one that is run.
CHECKED = {
    ("vqgan/data/reading/work.py", "pickle.loads"),  # see OWN
    ("vqgan/evaluation/networks.py", "torch.jit.load"),
    # Two classes that hold values and do nothing, for files of other projects: see test_plain_data.
    ("vqgan/files/plain_data.py", "torch.serialization.safe_globals"),
}
LOADING = ("torch.load", "torch.hub.load_state_dict_from_url")


def test_nothing_in_the_package_reads_what_could_run_code() -> None:
    found = []
    for file in [*(ROOT / "vqgan").rglob("*.py"), ROOT / "train.py"]:
        text = file.read_text()
        place = str(file.relative_to(ROOT))
        assert not [word for word in WORDS if word in text and (place, word) not in OWN], file
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            protected = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            checked = (place, name) in CHECKED
            if (name in FORBIDDEN and not checked) or (name in LOADING and not protected):
                found.append(f"{place}:{node.lineno}: {name}")
    assert not found, found
