"""Continuations of held-out videos as videos, beside what was there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from vqgan.autoencoder import evaluating
from vqgan.config.build import build
from vqgan.data.loader import spread
from vqgan.errors import CheckpointError, ConfigError
from vqgan.files.continued import go_on_with
from vqgan.files.lock import hold
from vqgan.packing.plan import frames_of
from vqgan.prior.data import Place, TokenClips, Videos, alphabet_of
from vqgan.prior.figures import write
from vqgan.prior.gfvd import Gfvd, original
from vqgan.prior.sampling import Sampling, continued, numbers_for
from vqgan.prior.step import AVERAGE, NAME
from vqgan.prior.transformer import Transformer
from vqgan.reports.page import write_report
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.runtime.device import running_in
from vqgan.text import counted, table
from vqgan.tokenizer.decode import decoding_with, reconstructions, write_frames
from vqgan.tokenizer.folder import compare, tensors_in
from vqgan.tokenizer.inference import InferenceSettings, move_to
from vqgan.tokenizer.tokenizer import Tokenizer, load
from vqgan.tokens.folder import TokenVideo
from vqgan.video.pictures import write_pictures

DESCRIPTION = "sampling.json"  # in the folder of the videos


@dataclass(frozen=True)
class TrainedPrior:
    """A prior as its run left it, and the tokens that it is of."""

    network: Transformer
    step: int
    held_out: Videos
    clip_times: int


def load_prior(run: Path, tokens: str | None) -> TrainedPrior:
    """The best checkpoint of a prior's run.

    Args:
        run: its folder.
        tokens: where the held-out videos' tokens are, if they were moved; None for where they were.

    Raises:
        ConfigError: it is no prior's run, or the tokens are others.
        CheckpointError: it is damaged, or does not fit its config.
    """
    config = load_config(run)
    if config is None or "prior" not in config:
        raise ConfigError(f"{run} is not the run of a prior: train one by vqgan prior TOKENS.")
    if tokens is not None:
        OmegaConf.update(config, "data.root" if config.data.val_root is None else "data.val_root", tokens)
    data: TokenClips = build(config.data, "data")
    training, held_out = data.videos()
    step, state = Checkpoints(run / "checkpoints", keep=1).read_best()
    then, now = state["provenance"]["data"], data.fingerprint(training, held_out)
    if then != now:
        raise ConfigError(
            f"The tokens in {held_out.tokens.folder} are not those that {run} was trained on ({now} now, {then} then). "
            "If they were moved, name their folder: --tokens TOKENS."
        )
    network: Transformer = build(config.prior, "prior", alphabet=alphabet_of(training, held_out))
    tensors = tensors_in(state, AVERAGE if AVERAGE in state else NAME, run)
    try:
        compare(network.state_dict(), tensors)
    except ValueError as error:
        raise CheckpointError(f"The checkpoint of {run} is not of its config: {error}.") from None
    network.load_state_dict(tensors)
    return TrainedPrior(network.eval().requires_grad_(False), step, held_out, data.clip_times)


def tokenizer_of(prior: TrainedPrior, named: str | None, parts: Path | None) -> Tokenizer:
    """The tokenizer of a prior's tokens: the one that is named, else from where it was.

    Raises:
        ConfigError: it is another one, or nobody knows where it is.
    """
    manifest = prior.held_out.tokens.manifest
    source = named or manifest.get("run")
    if source is None:
        raise ConfigError(
            f"{prior.held_out.tokens.folder} does not say where its tokenizer is. Name it: --tokenizer RUN."
        )
    try:
        tokenizer = load(str(source), parts)
    except ConfigError as error:
        raise ConfigError(f"{error} If the tokenizer was moved, name it: --tokenizer RUN.") from None
    # Another decoder for the same codes does as well.
    if manifest["tokenizer"] != tokenizer.sha256() and manifest.get("codes") != tokenizer.sha256_of_codes():
        raise ConfigError(
            f"{source} is not the tokenizer of {prior.held_out.tokens.folder}: its weights are others. Name that one: "
            "--tokenizer RUN."
        )
    return tokenizer


def write_continuations(
    run: Path, prior: TrainedPrior, tokenizer: Tokenizer, sampling: Sampling, out: Path, videos: Path | None = None
) -> str:
    """Write a video for each: left what was there, right how the prior goes on; both as the tokenizer decodes them.

    Some of them become pictures of the run's report as well. Returns what was done, in a sentence; with `gfvd` this is
    measured, and written as `evaluation.json` beside the videos.

    Args:
        run: the folder of the prior's.
        prior: what goes on.
        tokenizer: of its tokens.
        sampling: how.
        out: the folder to write.
        videos: the folder of those that were encoded, if it was moved; None for where it was.

    Raises:
        ConfigError: the folder holds something else, no video is longer than the prompt, or gFVD cannot be measured.
        RunFolderInUseError: another process writes there.
        StorageError: a video cannot be written.
    """
    kind = {key: value for key, value in asdict(sampling).items() if key not in ("gfvd", "download", "weights")}
    kind |= {"prior": str(run.resolve()), "step": prior.step, "tokenizer": tokenizer.sha256()}
    held_out, manifest = prior.held_out, prior.held_out.tokens.manifest
    chosen = [n for n in spread(len(held_out), sampling.videos) if held_out.shape(n)[0] > sampling.prompt_times]
    if not chosen:
        raise ConfigError(f"No held-out video has more than prompt_times={sampling.prompt_times} times of codes.")
    device = move_to(tokenizer, sampling.device).last_layer.device
    network = prior.network.to(device)
    work = InferenceSettings(manifest.get("batch_frames", 32), manifest.get("precision", "fp32"))
    places = [Place(n, 0, min(sampling.times, held_out.shape(n)[0]), 0) for n in chosen]
    judge = _judge(prior, places, sampling, device) if sampling.gfvd else None
    pairs = []
    with hold(out, 0):
        go_on_with(out / DESCRIPTION, kind, kind, "sample")
        for batch in held_out.batches(places, sampling.batch_size):
            clips = held_out.clips(batch).to(device)
            prompt, times = clips.codes[:, : sampling.prompt_times], clips.codes.shape[1]
            numbers = numbers_for(sampling.seed, [place.video for place in batch], clips.codes[0].numel())
            with running_in(sampling.precision, device):
                made = continued(network, prompt, times, prior.clip_times, clips.side, numbers, sampling)
            for place, codes in zip(batch, made.cpu().numpy()):
                pairs.append(_write(held_out, place, codes, tokenizer, work, out))
                if judge is not None:
                    left, right = (side.numpy() for side in pairs[-1])
                    path = held_out.path(place.video)
                    judge.add(original(held_out.tokens, path, len(right), videos), left, right)
    _show(run, prior.step, pairs)
    said = f"{counted(len(pairs), 'continuation')} of step {prior.step}, right, beside what was there, left"
    return said if judge is None else f"{_told(judge, kind, out)}\n\n{said}"


def _judge(prior: TrainedPrior, places: list[Place], sampling: Sampling, device: torch.device) -> Gfvd:
    """Of clips as long as the longest one."""
    frames = max(_frames(prior.held_out, place) for place in places)
    return Gfvd(sampling.weights.get("i3d"), sampling.download, frames, device)


def _frames(videos: Videos, place: Place) -> int:
    return frames_of(0, place.times, videos[place.video].frames, videos.tokens.temporal_downsampling)[1]


def _told(judge: Gfvd, kind: dict[str, Any], out: Path) -> str:
    """Write what gFVD is beside the videos; returns it as a table."""
    found = judge.metrics()
    clips = {"split": "validation", "clips": judge.made.count, "clip_frames": judge.frames}
    how = {key: value for key, value in kind.items() if key != "prior"}  # which says where things lie
    protocol = {"sampling": how, "data": clips, "feature_networks": {"i3d_sha256": judge.checksum}}
    write(out, found, protocol)
    rows = [(name, "not computed" if one.value is None else f"{one.value:.4g}") for name, one in found.items()]
    return table([*rows, ("", str(found["gfvd"].reason))])


def _write(
    held_out: Videos,
    place: Place,
    codes: np.ndarray[Any, Any],
    tokenizer: Tokenizer,
    work: InferenceSettings,
    out: Path,
) -> tuple[Tensor, Tensor]:
    """One video; returns both sides, (time, height, width, rgb)."""
    video: TokenVideo = held_out[place.video]
    frames = _frames(held_out, place)
    real = replace(video, codes=video.codes[: place.times], times=video.times[:frames], side=None)
    made = replace(real, codes=codes.reshape(real.codes.shape).astype(real.codes.dtype))
    with evaluating(tokenizer):
        left, right = (np.concatenate([*reconstructions(tokenizer, work, one)]) for one in (real, made))
    both = np.concatenate([left, right], 2)
    target = out / (video.path if video.path.endswith(".mp4") else f"{video.path}.mp4")
    write_frames(target, iter(both), (both.shape[2], both.shape[1]), real, decoding_with({}))
    return torch.from_numpy(left), torch.from_numpy(right)


def _show(run: Path, step: int, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Pictures of those that have the first one's size, in the run's report."""
    alike = [pair for pair in pairs if pair[0].shape == pairs[0][0].shape]
    left, right = (torch.stack(sides) for sides in zip(*alike))
    write_pictures(run / "reconstructions", step, left, right)
    write_report(run)
