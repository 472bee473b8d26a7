"""The package as users install it: a wheel built from the sdist, in an empty environment, away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import yaml

import vqgan

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
ABOUT = f"vqgan-{vqgan.__version__}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_hold_what_they_should(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as content:
        names, about = set(content.namelist()), message_from_bytes(content.read(f"{ABOUT}/METADATA"))
    conf = {f"vqgan/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "conf").rglob("*.yaml")}
    conf |= {f"vqgan/conf/sweep/{file.name}" for file in (ROOT / "sweeps" / "hydra").glob("*.yaml")}  # through a link
    package = {file.relative_to(ROOT).as_posix() for file in (ROOT / "vqgan").rglob("*.py")}
    files = (file for file in (ROOT / "vqgan" / "reports" / "assets").rglob("*") if file.is_file())
    assets = {file.relative_to(ROOT).as_posix() for file in files}
    assert conf | package | assets | {"hydra_plugins/vqgan_search.py"} <= names
    assert {name.partition("/")[0] for name in names} == {"vqgan", "hydra_plugins", ABOUT}
    found = (about["Version"], about["License-Expression"], about["Metadata-Version"])
    assert found == (vqgan.__version__, "MIT", "2.4")
    with tarfile.open(sdist) as packed:
        top = {name.split("/")[1] for name in packed.getnames() if "/" in name}
    assert {
        "vqgan",
        "hydra_plugins",
        "conf",
        "sweeps",
        "tests",
        "docs",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "constraints.txt",
    } <= top
    assert not {name for name in top if name.startswith(".") and name != ".gitignore"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_trains_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_folder = tmp_path / "venv" / "bin"
    constraints = ROOT / "constraints.txt"
    subprocess.run([bin_folder / "pip", "install", "--quiet", "-c", constraints, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def typed(*arguments: str) -> str:
        done = subprocess.run(
            [bin_folder / "vqgan", *arguments], cwd=elsewhere, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    typed("train", "run_dir=run", "logger=none", "trainer.steps=2", "data.validation_clips=2")
    assert (elsewhere / "run" / "checkpoints" / "step-00000002" / "state.pt").exists()
    assert "\nvqgan train logger=none trainer.steps=2 " in typed("compare", "run"), "there is no train.py"
    assert typed("train", "--help").count("python train.py") == 1, "where it says that it is the same in a checkout"


def test_versions_and_extras_are_said_alike_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == vqgan.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    extras = PROJECT["project"]["optional-dependencies"]
    indexes = {index["name"]: index["url"] for index in PROJECT["tool"]["uv"]["index"]}
    for source in PROJECT["tool"]["uv"]["sources"]["torch"]:
        assert indexes[source["index"]].endswith(f"/whl/{source['extra']}")
        assert source["extra"] in extras
    said = re.search(r"\*\*Extras\*\*: (.*)", (ROOT / "docs" / "install.md").read_text())
    assert said
    assert set(re.findall(r"`(\w+)`", said[1])) == set(extras) - {"cpu", "cu130"}


def test_a_release_is_published_without_a_password() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = release["jobs"]
    assert (release["permissions"], jobs["publish"]["permissions"]) == ({}, {"id-token": "write"})
    assert jobs["publish"]["needs"] == "build"
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()
