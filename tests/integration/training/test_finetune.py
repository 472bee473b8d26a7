"""From a published checkpoint to one's own videos: the decoder learns, codes and what was encoded stay valid."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import vqgan
import vqgan.tokens
from tests.support.runs import rows
from tests.support.tokenizers import write_videos
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.config.build import conf_dir
from vqgan.errors import ConfigError
from vqgan.quantizers import VectorQuantizer
from vqgan.tokenizer.decode import decoding_with
from vqgan.tokenizer.decode_folder import FolderDecoder
from vqgan.tokenizer.encode import encoding_with
from vqgan.tokenizer.encode_folder import FolderEncoder
from vqgan.tokenizer.taming import to_taming
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

BACKBONE = Convolutional(
    resolution=16, image_channels=3, channels=32, channel_multipliers=[1, 1], residual_blocks=1,
    attention_resolutions=[], norm_groups=32, dropout=0.0, latent_channels=4,
)  # fmt: skip
SMALL = (
    "logger=none", "trainer.device=cpu", "loss=no_perceptual", "data.batch_size=2", "data.workers=0", "data.videos=2",
    "data.video_frames=4", "data.validation_clips=2", "data.resolution=16", "discriminator.channels=4",
    "discriminator.layers=1", "trainer.log_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A tokenizer that was imported without a discriminator, and what was printed to be typed after `train.py`."""
    folder = tmp_path_factory.mktemp("imported")
    torch.manual_seed(0)
    autoencoder = Autoencoder(BACKBONE, VectorQuantizer(32, 4, commitment_weight=1.0, codebook_weight=0.25))
    torch.nn.init.normal_(autoencoder.get_parameter("quantizer.codebook"), std=0.3)
    torch.save({"state_dict": to_taming(autoencoder.state_dict(), None)}, folder / "last.ckpt")
    config = {"params": {"ddconfig": {"resolution": 16}}}
    (folder / "last.json").write_text(json.dumps(config))
    command = importlib.import_module("vqgan.commands.import_")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", "taming", str(folder / "last.ckpt"), "--out", str(folder / "tokenizer")])
        command.main()
    description = json.loads((folder / "tokenizer" / "config.json").read_text())
    overrides = command.overrides_for(description["backbone"], description["quantizer"], {})
    return folder / "tokenizer", ["experiment=finetune", f"init_from={folder / 'tokenizer'}", *overrides]


def config_of(folder: Path, *typed: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*typed, *SMALL, f"run_dir={folder}"])


def encode(tokenizer: Tokenizer, videos: Path, out: Path) -> vqgan.tokens.Tokens:
    encoding = encoding_with({})
    encoding.workers, encoding.index, encoding.device = 0, None, "cpu"
    FolderEncoder(tokenizer, encoding, videos, out).run()
    return vqgan.tokens.open(out)


def test_clips_begin_as_an_imported_tokenizer_of_pictures(imported: tuple[Path, list[str]], tmp_path: Path) -> None:
    source, typed = imported
    time = ("+backbone.temporal_downsampling=2", "+backbone.temporal_resolutions=[8]", "data.clip_frames=3")
    config = config_of(tmp_path / "run", *typed, "backbone._target_=vqgan.backbones.Causal", *time)
    config.data.batch_size = 1  # there is one clip so long
    trainer = make_trainer(config, tmp_path / "run")
    ours, theirs = trainer.autoencoder.eval(), vqgan.load(source)
    frames = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        codes = ours.encode(frames)
        assert torch.equal(codes, theirs.encode(frames))
        assert torch.equal(ours.decode(codes), theirs.decode(codes))
    assert ours.encode(frames[None, :3]).shape[1] == 2


def test_the_decoder_learns_and_tokens_of_before_are_decoded(imported: tuple[Path, list[str]], tmp_path: Path) -> None:
    source, typed = imported
    old = vqgan.load(source)
    write_videos(tmp_path / "videos")
    tokens = encode(old, tmp_path / "videos", tmp_path / "tokens")
    warm = ["loss.discriminator_warmup=2", "loss.discriminator_ramp=1", "optimizer.lr=0.01"]
    run(config_of(tmp_path / "run", *typed, *warm, "trainer.steps=4"))
    new = vqgan.load(tmp_path / "run")
    frames = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = old.encode(frames)
    assert len(codes.unique()) > 3, "else they could not differ"
    assert torch.equal(new.encode(frames), codes)
    assert not torch.equal(new.decode(codes), old.decode(codes))
    assert new.sha256() != old.sha256()
    assert new.sha256_of_codes() == old.sha256_of_codes()

    decoding = decoding_with({})
    decoding.device = "cpu"
    FolderDecoder(new, decoding, tokens, tmp_path / "new", None).run()
    assert len([*(tmp_path / "new").glob("**/*.mp4")]) == len(tokens)
    with pytest.raises(ConfigError, match="in another way: tokenizer"):
        FolderDecoder(old, decoding, tokens, tmp_path / "new", None).run()

    steps = rows(tmp_path / "run")
    assert [row["step"] for row in steps if "adversarial/logits_real" in row] == [1, 2, 3, 4], "it learns at once"
    assert [row["step"] for row in steps if "adversarial/weight" in row] == [3, 4], "and is heeded after its warm-up"


def test_with_another_encoder_tokens_of_before_are_refused(imported: tuple[Path, list[str]], tmp_path: Path) -> None:
    source, typed = imported
    write_videos(tmp_path / "videos")
    tokens = encode(vqgan.load(source), tmp_path / "videos", tmp_path / "tokens")
    run(config_of(tmp_path / "run", *typed, "trainer.freeze=[]", "trainer.steps=1"))
    with pytest.raises(ConfigError, match="other weights"):
        FolderDecoder(vqgan.load(tmp_path / "run"), decoding_with({}), tokens, tmp_path / "out", None)
