"""The plane of rate and distortion: a tokenizer and its prior find each other, and codecs stand beside them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from vqgan.commands.compare import compare
from vqgan.reports.rates import as_csv, as_page, as_text, points


def metric(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "unit": "", "reason": None}


def write(folder: Path, sha256: str, objective: str, **metrics: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    config: dict[str, Any] = {"objective": objective, "trainer": {"steps": 3}}
    if "bits" in objective:
        config["prior"] = {"dim": 32}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "overrides.yaml").write_text("[]")
    row = {"step": 3, objective.removeprefix("-"): 20.0, "time": 0.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "evaluation.json").write_text(
        json.dumps({"metrics": metrics, "protocol": {"tokenizer": {"sha256": sha256, "step": 3}}})
    )
    return folder


def corpus(folder: Path) -> list[Path]:
    """Two tokenizers with priors, one without, a prior of a tokenizer that is not here, and a codec."""
    bits, psnr = "-validation/bits_per_token", "validation/psnr"
    made = [
        write(folder / "f8", "a", psnr, psnr=metric(24.0, 23.0, 25.0), bits_per_pixel=metric(0.13)),
        write(folder / "f4", "b", psnr, psnr=metric(30.0), bits_per_pixel=metric(0.6)),
        write(folder / "f16", "c", psnr, psnr=metric(20.0)),
        write(folder / "p8", "a", bits, bits_per_second=metric(900.0, 800.0, 1000.0), bits_per_pixel=metric(0.05)),
        write(folder / "p4", "b", bits, bits_per_second=metric(5000.0), bits_per_pixel=metric(0.3)),
        write(folder / "other", "d", bits, bits_per_second=metric(1.0), bits_per_pixel=metric(0.1)),
    ]
    (folder / "evaluation").mkdir()
    codec = {"metrics": {"psnr": metric(28.0), "bits_per_pixel": metric(0.2, 0.1, 0.3)}}
    codec["protocol"] = {
        "tokenizer": {"name": "codec:libx264 30", "curve": "codec:libx264"},  # type: ignore[dict-item]
        "data": {"frames": 96, "resolution": 16, "seconds": 4.0},  # type: ignore[dict-item]
    }
    (folder / "evaluation" / "libx264.json").write_text(json.dumps(codec))
    (folder / "evaluation" / "broken.json").write_text("{")
    return made


def test_a_tokenizer_has_its_own_prior_s_bits_and_its_own_quality(tmp_path: Path) -> None:
    found = points(corpus(tmp_path), [tmp_path])
    assert [one.name for one in found] == ["f8 under p8", "f4 under p4", "codec:libx264 30"]
    assert found[0].metrics["bits_per_second"] == (900.0, 800.0, 1000.0)
    assert found[0].metrics["bits_per_pixel"] == (0.05, None, None), "not the entropy of the evaluation"
    assert found[0].metrics["psnr"] == (24.0, 23.0, 25.0)
    assert found[2].curve == "codec:libx264"
    pixels_a_second = 96 * 16**2 / 4
    expected = tuple(bits * pixels_a_second for bits in (0.2, 0.1, 0.3))
    assert found[2].metrics["bits_per_second"] == pytest.approx(expected)
    rows = list(csv.DictReader(as_csv(found).splitlines()))
    assert [(row["name"], row["bits_per_second"], row["psnr"]) for row in rows[:2]] == [
        ("f8 under p8", "900.0", "24.0"), ("f4 under p4", "5000.0", "30.0"),
    ]  # fmt: skip
    assert "under its prior" in as_page(found)
    assert '"rate":"bits_per_second"' in as_page(found)
    assert as_text(found).splitlines()[1].split()[:4] == ["f8", "under", "p8", "900"]


def test_without_both_there_is_no_plane(tmp_path: Path) -> None:
    made = corpus(tmp_path)
    assert points(made[:3], [tmp_path]) == []
    assert points(made[3:], [tmp_path]) == []
    assert points([], [tmp_path]) == []


def test_compare_writes_it_beside_a_study_of_the_tokenizers(tmp_path: Path) -> None:
    corpus(tmp_path)
    said = compare([tmp_path], None, None)
    assert "3 runs" in said
    assert "f8 under p8" in said
    as_data = json.loads(compare([tmp_path], None, None, wants_json=True))
    assert [one["name"] for one in as_data["rates"]] == ["f8 under p8", "f4 under p4", "codec:libx264 30"]
    assert {"compare.html", "compare.csv", "rates.html", "rates.csv"} <= {file.name for file in tmp_path.iterdir()}
