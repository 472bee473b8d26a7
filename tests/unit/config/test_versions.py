"""What differs between versions of Hydra and OmegaConf is the same to everybody who asks."""

from __future__ import annotations

from omegaconf import OmegaConf

from vqgan.config.versions import register_resolver


def test_a_resolver_takes_the_place_of_another() -> None:
    for number in (1, 2):
        register_resolver("test.versions", lambda number=number: number)
        assert OmegaConf.create({"a": "${test.versions:}"}).a == number
    OmegaConf.clear_resolver("test.versions")
