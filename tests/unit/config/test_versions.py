"""What differs between versions of Hydra and OmegaConf is the same to everybody who asks."""

from __future__ import annotations

from omegaconf import OmegaConf

from vqgan.config import versions


def test_a_resolver_takes_the_place_of_another() -> None:
    for number in (1, 2):
        versions.register_resolver("test.versions", lambda number=number: number)
        assert OmegaConf.create({"a": "${test.versions:}"}).a == number
    OmegaConf.clear_resolver("test.versions")


def test_a_sweep_that_an_error_ends_is_told_from_one_that_is_over() -> None:
    seen = [versions.sweep_is_broken_off()]
    try:
        try:
            raise SystemExit(143)
        finally:
            seen.append(versions.sweep_is_broken_off())
    except SystemExit:
        pass
    assert [*seen, versions.sweep_is_broken_off()] == [False, True, False]
