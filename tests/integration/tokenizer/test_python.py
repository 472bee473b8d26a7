"""What users do in Python: the example, and Hugging Face's hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vqgan
from tests.support.tokenizers import random_tokenizer, write_tokenizer, write_videos
from vqgan.errors import CheckpointError, ConfigError, DataError, InvalidValueError, missing_extra

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    write_videos(tmp_path / "videos")
    paths = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "example.py"), "tokenizer", "videos"],
        cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "300 codes, one for 2×2 pixels" in done.stdout
    assert "5 videos" in done.stdout
    assert "inputs torch.Size([4, 127])" in done.stdout
    assert "frames torch.Size([4, 3, 16, 16])" in done.stdout
    assert (tmp_path / "reconstruction.mp4").stat().st_size > 1000


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    tokenizer = random_tokenizer()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="cannot be encoded: unreadable"):
        tokenizer.encode_video(tmp_path / "text.mp4")
    with pytest.raises(DataError, match="No such file"):
        tokenizer.encode_video(tmp_path / "nowhere.mp4")
    with pytest.raises(InvalidValueError, match="fps must be positive"):
        tokenizer.encode_video(tmp_path / "text.mp4", fps=0)
    with pytest.raises(ConfigError, match="Unknown key 'frames'"):
        tokenizer.encode_video(tmp_path / "text.mp4", frames=3)


def test_values_that_only_a_command_heeds_are_refused(tmp_path: Path) -> None:
    tokenizer = random_tokenizer()
    write_videos(tmp_path / "videos")
    path = tmp_path / "videos" / "a.mp4"
    with pytest.raises(ConfigError, match=r"device='cuda' means nothing .* move it by tokenizer.to"):
        tokenizer.encode_video(path, device="cuda")
    for key, value in {"workers": 4, "shard_megabytes": 1, "index": None, "limits": {"seconds": 1}}.items():
        with pytest.raises(ConfigError, match=f"^{key}=.* means nothing to a tokenizer in Python"):
            tokenizer.encode_video(path, **{key: value})
    with pytest.raises(ConfigError, match=r"move it by tokenizer.to"):
        tokenizer.decode_video(tokenizer.encode_video(path), tmp_path / "again.mp4", device="cpu")


def test_a_tokenizer_in_training_is_left_as_it_was(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos")
    tokenizer = random_tokenizer().train()
    tokenizer.encoder.eval()
    before = {name: buffer.clone() for name, buffer in tokenizer.named_buffers()}
    video = tokenizer.encode_video(tmp_path / "videos" / "a.mp4")
    tokenizer.decode_video(video, tmp_path / "again.mp4")
    assert (tokenizer.training, tokenizer.quantizer.training, tokenizer.encoder.training) == (True, True, False)
    for name, buffer in tokenizer.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_what_the_network_cannot_take_is_said() -> None:
    tokenizer = random_tokenizer()
    with pytest.raises(ValueError, match=r"Frames must be in \[-1, 1\], but reach 255"):
        tokenizer.encode(torch.full((1, 3, 16, 16), 255.0))
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert tokenizer.decode(torch.ones(1, 8, 8, dtype=dtype)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"in \[0, 300\)"):
        tokenizer.decode(torch.full((1, 8, 8), 300))


def test_what_is_loaded_needs_no_gradients(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert not vqgan.load(tmp_path)(torch.zeros(1, 3, 16, 16)).reconstruction.requires_grad


def test_tokens_of_a_larger_codebook_are_refused(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos")
    tokens = random_tokenizer(300).encode_video(tmp_path / "videos" / "a.mp4")
    with pytest.raises(CheckpointError, match="not of this tokenizer"):
        random_tokenizer(16).decode_video(tokens, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"], "nothing is left"


def test_the_hash_is_of_all_weights() -> None:
    tokenizer = random_tokenizer()
    before = tokenizer.sha256()
    assert random_tokenizer().sha256() == before
    with torch.no_grad():
        tokenizer.quantizer.codebook[7, 1] += 1e-6
    assert tokenizer.sha256() != before


def test_a_tokenizer_goes_to_the_hub_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    uploaded: dict[str, bytes] = {}

    class Api:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, **_: Any) -> str:
            uploaded.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
            return "https://example.org/commit"

    monkeypatch.setattr(hub.hub_mixin, "HfApi", Api)
    tokenizer = random_tokenizer()
    tokenizer.push_to_hub("someone/tokenizer")
    assert set(uploaded) == {"model.safetensors", "config.json", "README.md"}
    (tmp_path / "downloaded").mkdir()
    for name, content in uploaded.items():
        (tmp_path / "downloaded" / name).write_bytes(content)
    for again in (vqgan.Tokenizer.from_pretrained(tmp_path / "downloaded"), vqgan.load(tmp_path / "downloaded")):
        assert again.sha256() == tokenizer.sha256()
        assert not again.training


def test_the_hub_is_asked_for_the_revision_that_the_user_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    tokenizer = random_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, *, allow_patterns: list[str], revision: str | None, cache_dir: Path | None,
                          force_download: bool, local_files_only: bool, token: str | None) -> str:  # fmt: skip
        asked.append({"name": name, "revision": revision, "cache_dir": cache_dir, "token": token,
                      "local_files_only": local_files_only, "force_download": force_download})  # fmt: skip
        return str(tmp_path / "model")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    # As after a real download of the sizes, which the mixin reads by itself.
    monkeypatch.setattr(hub.hub_mixin, "hf_hub_download", lambda **_: str(tmp_path / "model" / "config.json"))
    values = {
        "revision": "v1",
        "cache_dir": tmp_path,
        "token": "hf_x",
        "local_files_only": True,
        "force_download": True,
    }
    again = vqgan.Tokenizer.from_pretrained("someone/tokenizer", **values)
    assert asked == [{"name": "someone/tokenizer", **values}]
    assert again.sha256() == tokenizer.sha256()
    with pytest.raises(ConfigError, match="revisoin"):
        vqgan.Tokenizer.from_pretrained("someone/tokenizer", revisoin="v1")


@pytest.mark.slow
def test_without_the_extra_the_hub_says_what_is_missing(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["huggingface_hub"] = None
from tests.support.tokenizers import random_tokenizer
from vqgan.errors import ConfigError
tokenizer = random_tokenizer()
for call in (tokenizer.push_to_hub, type(tokenizer).from_pretrained):
    try:
        call("someone/tokenizer")
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == [str(missing_extra("The Hugging Face hub", "hub"))] * 2


def test_no_use_of_a_tokenizer_waits_for_the_compiler() -> None:
    used = ("tokenizer.encode_folder", "tokenizer.decode_folder", "tokenizer.export", "evaluation.evaluate")
    imported = "".join(f"import vqgan.{module}; " for module in used)
    code = f"import sys; {imported}sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
