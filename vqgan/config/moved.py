"""What older versions called otherwise: the only place that knows, so that their runs and recipes go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Classes: what names them goes on meaning them.
CLASSES = {
    "vqgan.blocks.Backbone": "vqgan.backbones.Convolutional",
    "vqgan.backbones.Backbone": "vqgan.backbones.Convolutional",
    "vqgan.settings.Settings": "vqgan.training.settings.Settings",
    "vqgan.schedules.Constant": "vqgan.training.schedules.Constant",
    "vqgan.schedules.WarmupCosine": "vqgan.training.schedules.WarmupCosine",
    "vqgan.encoding.Encoding": "vqgan.tokenizer.encode.Encoding",
    "vqgan.decoding.Decoding": "vqgan.tokenizer.decode.Decoding",
    "vqgan.sharding.Sharding": "vqgan.data.sharding.clips.Sharding",
    "vqgan.evaluator.Evaluator": "vqgan.evaluation.evaluator.Evaluator",
    "vqgan.feature_networks.WeightFiles": "vqgan.evaluation.networks.WeightFiles",
}
# Keys: a finished run's are translated, whoever types one is told the new one.
KEYS = {
    "backbone.latent_dim": "model.quantizer.latent_dim",
    "loss.max_adaptive_weight": "loss.balance.max_weight",
}
CHOICES = {"loss.pixel": "loss/pixel", "loss.adversarial": "loss/adversarial"}
SECTIONS = ("backbone", "model", "loss")
# What was one of some texts, and is now a choice with a section.
PIXEL = {name: {"_target_": f"vqgan.losses.{name.upper()}", "weight": 1.0} for name in ("l1", "l2")}
GAMES = {name: {"_target_": f"vqgan.losses.{name.title()}"} for name in ("hinge", "vanilla")}
# Keys that there were not, with what was done then.
ADDED: dict[str, dict[str, Any]] = {
    "trainer": {
        "weight_average": None,
        "freeze": [],
        "allow_slow_precision": True,
        "picture_share": 0.0,
        "clip_lengths": [],
    },
}

# Quantizers through which gradients went straight, before that was a choice.
STRAIGHT = ("vqgan.quantizers.EMAQuantizer", "vqgan.quantizers.VectorQuantizer")

# What train.yaml chose of itself until 0.1, where today it is something else.
DEFAULTS = {"backbone": "tiny", "optimizer": "adam_fast", "schedule": "constant", "trainer.steps": "600"}


def with_moved_classes(values: Any) -> Any:
    """The same values, nested or by their full key, with each class that has moved named as it is today."""
    if not isinstance(values, Mapping):
        return values
    return {
        key: CLASSES.get(value, value)
        if str(key).endswith("_target_") and isinstance(value, str)
        else with_moved_classes(value)
        for key, value in values.items()
    }


def as_today(config: Any) -> Any:
    """A run's config, perhaps of an older version, as this one would have written it; anything else as it is."""
    config = with_moved_classes(config)
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in SECTIONS):
        return config
    backbone, model, loss = (dict(config[key]) for key in SECTIONS)
    quantizer = model.get("quantizer")
    if "latent_dim" in backbone and isinstance(quantizer, dict):
        dimension = backbone.pop("latent_dim")
        if quantizer.get("latent_dim") == "${backbone.latent_dim}":
            model["quantizer"] = quantizer = {**quantizer, "latent_dim": dimension}
    if isinstance(quantizer, dict) and quantizer.get("_target_") in STRAIGHT:
        model["quantizer"] = {"gradient": "straight_through", **quantizer}
    if isinstance(loss.get("pixel"), str):
        loss = {**loss, "pixel": PIXEL.get(loss["pixel"], loss["pixel"])}
        loss |= {"adversarial": GAMES.get(str(loss.get("adversarial")), loss.get("adversarial")), "terms": {}}
    if "max_adaptive_weight" in loss:
        largest = loss.pop("max_adaptive_weight")
        loss["balance"] = {"_target_": "vqgan.losses.Adaptive", "max_weight": largest}
        loss = {"discriminator_warmup": 0, "discriminator_ramp": 0, **loss}  # which came with the balance
    if "perceptual_weight" in loss:
        loss = {"perceptual_frames": None, **loss}
    added = {key: {**new, **config[key]} for key, new in ADDED.items() if isinstance(config.get(key), dict)}
    return {**config, **added, "backbone": backbone, "model": model, "loss": loss}


def key_today(key: str) -> str:
    """What a key, or what was typed as `key=value`, is called today."""
    name, equals, value = key.partition("=")
    return f"{KEYS.get(name, CHOICES.get(name, name))}{equals}{value}"


def told(text: str) -> str:
    """What to add to a complaint that names a key which has moved; nothing if it names none."""
    return "".join(f" {old} is now {new}." for old, new in KEYS.items() if old in text)
