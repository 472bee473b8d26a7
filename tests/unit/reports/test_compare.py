"""What a comparison finds in run folders, whoever wrote them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support.written_run import write_config, write_lines
from vqgan.commands import main
from vqgan.commands.compare import compare
from vqgan.errors import ConfigError
from vqgan.reports.comparison import page
from vqgan.reports.importance import Importance, importances, ranks_of
from vqgan.reports.study import Study, study
from vqgan.reports.table import as_csv
from vqgan.reports.text import describe
from vqgan.reports.trial import is_trial
from vqgan.reports.varied import Key, short_names, short_value

EVIL = "</script><script>alert(1)</script>\x1b[2J\u202e"


def trial(
    folder: Path, psnr: Sequence[float] = (20.0,), state: str = "finished", message: str | None = None, **typed: Any
) -> Path:
    """A run that was evaluated at every tenth step, and whose config is what was typed."""
    folder.mkdir(parents=True)
    rows = [
        {"step": 10 * n, "time": 36.0 * n, "validation/psnr": value, "validation/lpips": 1 / value,
         "speed/frames_per_second": 50, "validation/usage": 0.5, "validation/perplexity": 9.0}
        for n, value in enumerate(psnr)
    ]  # fmt: skip
    write_lines(folder / "metrics.jsonl", rows)
    write_config(folder, {"run_dir": str(folder), "trainer.steps": 10 * (len(psnr) - 1), **typed})
    write_status(folder, state, message)
    return folder


def write_status(folder: Path, state: object, message: object = None, exit_code: object = 0) -> None:
    (folder / "status.json").write_text(json.dumps({"state": state, "message": message, "exit_code": exit_code}))


def keys_of(found: Study) -> dict[str, list[str | None]]:
    return {key.name: list(key.values) for key in found.keys}


def embedded(text: str) -> Any:
    """The data in a page."""
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


# What each run came to


def test_every_state_is_shown_and_counted(tmp_path: Path) -> None:
    for state in ("finished", "finished", "stopped", "pruned", "diverged", "failed"):
        trial(tmp_path / f"{len(list(tmp_path.iterdir()))} {state}", state=state, message=f"why it {state}")
    trial(tmp_path / "6 interrupted", state="running")
    running = trial(tmp_path / "7 running", state="running")
    with FileLock(running / ".lock"):
        found = study(sorted(tmp_path.iterdir()))
    assert {one.name.split()[1] for one in found.trials if one.name.split()[1] != one.state} == set()
    assert found.counts == ("8 runs: 2 finished, 1 running, 1 pruned, 1 stopped, 1 interrupted, 1 diverged, 1 failed")
    text = describe(found, 120)
    assert "4 diverged: diverged: why it diverged\n5 failed: failed: why it failed" in text


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    (one,) = study([trial(tmp_path / "a", psnr=[10, 30, 20])]).trials
    assert (one.best("validation/psnr"), one.figures["validation/psnr"]["best_step"]) == (30, 10)
    assert (one.best("validation/lpips"), one.last("validation/lpips")) == (1 / 30, 1 / 20)
    assert one.last("validation/none", "validation/usage") == 0.5
    assert (one.step, one.steps, one.frames_per_second, one.hours) == (20, 20, 50, 0.02)


def test_a_run_that_came_to_nothing_is_never_the_best(tmp_path: Path) -> None:
    for name, psnr, state in (("a", 20, "finished"), ("b", 90, "diverged"), ("c", 80, "failed"), ("d", 21, "running")):
        trial(tmp_path / name, [psnr], state)
    found = study(sorted(tmp_path.iterdir()))
    assert [one.name for one in found.trials] == ["d", "a", "b", "c"]
    assert found.best is found.trials[0]
    assert "Best: d (interrupted), validation/psnr 21 at step 0." in describe(found, 100)


def test_runs_are_in_the_order_of_the_metric_and_then_of_their_numbers(tmp_path: Path) -> None:
    for number, psnr in enumerate([20, 22, 21, *[None] * 9]):
        trial(tmp_path / str(number), [] if psnr is None else [psnr], "finished" if psnr else "stopped")
    folders = sorted(tmp_path.iterdir())
    assert [one.name for one in study(folders).trials] == ["1", "2", "0", *map(str, range(3, 12))]
    assert [one.name for one in study(folders, "validation/lpips").trials][:3] == ["1", "2", "0"], "lower is better"


def test_the_objective_of_the_runs_is_what_they_are_compared_by(tmp_path: Path) -> None:
    for n, psnr in enumerate([20, 22, 21]):
        trial(tmp_path / str(n), [psnr], objective="-validation/perplexity" if n else "-validation/psnr")
    folders = sorted(tmp_path.iterdir())
    assert (study(folders).metric, study(folders[1:]).metric) == ("validation/psnr", "validation/perplexity")
    assert not study(folders[1:]).higher_is_better
    assert [one.name for one in study(folders[1:], "validation/psnr").trials] == ["1", "2"]
    write_config(folders[0], {"objective": "-validation/none"})
    assert study(folders[:1]).metric == "validation/psnr"


def test_what_was_measured_before_training_is_no_best(tmp_path: Path) -> None:
    (one,) = study([trial(tmp_path / "a", [30, 10, 20])]).trials
    assert (one.best("validation/psnr"), one.figures["validation/psnr"]["best_step"]) == (20, 20)


def test_a_folder_from_before_there_was_a_status(tmp_path: Path) -> None:
    done, half = trial(tmp_path / "a", [1, 2]), trial(tmp_path / "b", [1, 2])
    write_config(half, {"trainer.steps": 99})
    for folder in (done, half):
        (folder / "status.json").unlink()
    assert [one.state for one in study([done, half]).trials] == ["finished", "stopped"]


def test_a_run_that_failed_before_it_began_is_listed_with_what_was_typed(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        trial(tmp_path / str(lr), **{"optimizer.lr": lr, "seed": 1})
    early = tmp_path / "early"
    early.mkdir()
    write_status(early, "failed", "model.quantizer.decay must be\nin [0, 1)", 2)
    (early / "overrides.yaml").write_text('["optimizer.lr=0.3", "+seed=1"]')
    found = study(sorted(tmp_path.iterdir()))
    assert keys_of(found) == {"optimizer.lr": ["0.1", "0.2", "0.3"]}
    assert found.trials[2].status.message == "model.quantizer.decay must be in [0, 1)"


def test_a_value_that_was_refused_is_varied_too(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = trial(tmp_path / f"good {seed}", **{"seed": seed, "model.quantizer.codebook_size": 256})
        (folder / "overrides.yaml").write_text(f"[seed={seed}, model.quantizer.codebook_size=256, name=x]")
    early = tmp_path / "refused"
    early.mkdir()
    write_status(early, "failed", "codebook_size must be at least 1", 2)
    (early / "overrides.yaml").write_text("[seed=1, model.quantizer.codebook_size=0, name=y]")
    found = keys_of(study(sorted(tmp_path.iterdir())))
    assert found == {"seed": ["1", "2", "1"], "model.quantizer.codebook_size": ["256", "256", "0"]}


# Data and tokens


def on_data(folder: Path, psnr: float, root: str, resolution: str = "${backbone.resolution}", **typed: Any) -> Path:
    """A run that was measured on a folder, whose tokens cost as many bits as its frames have pixels in a row."""
    data = {"data._target_": "vqgan.data.Videos", "data.root": root, "data.resolution": resolution}
    trial(folder, [psnr], **data, **{"backbone.resolution": 64}, **typed)
    facts = {"data_fingerprint": f"2 files, {root}", "tokens_per_frame": 256.0, "bits_per_pixel": psnr / 100}
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def test_a_run_on_other_data_or_at_another_resolution_wins_nothing(tmp_path: Path) -> None:
    on_data(tmp_path / "mine a", 14, "mine")
    on_data(tmp_path / "mine b", 15, "mine", seed=1)
    on_data(tmp_path / "synthetic", 30, "${oc.env:XDG_CACHE_HOME,'~/.cache'}/synthetic")
    on_data(tmp_path / "small", 40, "mine", "32")
    found = study(sorted(tmp_path.iterdir()))
    assert found.best is None
    assert [one.name for one in found.trials] == ["mine b", "mine a", "small", "synthetic"]
    assert [one.name for one in found.bests] == ["mine b", "small", "synthetic"]
    text = describe(found, 150)
    assert "measured on 3 different data or resolutions" in text
    for line in ("A: Videos in mine, 64 pixels", "B: Videos in mine, 32 pixels", "C: Videos in synthetic, 64 pixels"):
        assert f"  {line}\n" in text
    for letter, name in (("A", "mine b"), ("B", "small"), ("C", "synthetic")):
        assert f"Best on {letter}: {name}, validation/psnr" in text
    assert "\nBest: " not in text
    assert keys_of(found)["data.root"][-1] == "$XDG_CACHE_HOME/synthetic"
    data = embedded(page(found, tmp_path))
    assert (data["best"], len(data["bests"]), [run["on"] for run in data["runs"]]) == (None, 3, ["A", "A", "B", "C"])
    together = study([tmp_path / "mine a", tmp_path / "mine b"])
    assert (together.best is together.trials[0], together.caution) == (True, None)


def test_what_tokens_cost_is_in_the_table_where_it_is_known(tmp_path: Path) -> None:
    on_data(tmp_path / "a", 14, "mine", **{"optimizer.lr": 1})
    (trial(tmp_path / "b", [13], **{"optimizer.lr": 2}) / "facts.json").write_text('{"bits_per_pixel": "many"}')
    head, first, second = describe(study([tmp_path / "a", tmp_path / "b"]), 200).split("\n\n")[2].splitlines()
    at = head.index("tokens")
    assert (first[at:].split()[:2], second[at:].split()[:2]) == (["256", "0.14"], ["–", "–"])


def test_programs_read_the_same_from_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(2):
        on_data(tmp_path / str(n), 20 + n, "mine", seed=n)
    monkeypatch.setattr(sys, "argv", ["vqgan", "compare", str(tmp_path), "--json"])
    main()
    told = json.loads(capsys.readouterr().out)
    assert (told["best"], told["metric"], told["page"]) == ("1", "validation/psnr", str(tmp_path / "compare.html"))
    assert [(run["tokens_per_frame"], run["bits_per_pixel"], run["varied"]["seed"]) for run in told["runs"]] == [
        (256, 0.21, "1"), (256, 0.2, "0"),
    ]  # fmt: skip
    assert told["runs"][0]["figures"]["validation/psnr"]["best"] == 21


def test_what_was_typed_has_the_first_columns_and_keeps_them_longest(tmp_path: Path) -> None:
    for n in range(4):
        follows = {f"model.quantizer.follows_{key}": n for key in range(9)}
        folder = trial(tmp_path / str(n), [20 + n], **follows, **{"optimizer.lr": n})
        (folder / "overrides.yaml").write_text(json.dumps([f"optimizer.lr={n}"]))
    found = study(sorted(tmp_path.iterdir()))
    assert found.keys[0].name == "optimizer.lr"
    table = describe(found, 80).split("\n\n")[1].splitlines()
    assert " lr " in table[0]
    assert "follows_8" in table[-1], "left out"


# Damaged folders


def test_damaged_folders_are_listed_as_such(tmp_path: Path) -> None:
    trial(tmp_path / "0 good", seed=0)
    trial(tmp_path / "1 good", seed=1)
    (trial(tmp_path / "2 config", seed=2) / "config.yaml").write_bytes(b"\xff{]: [")
    (trial(tmp_path / "3 rows", seed=3) / "metrics.jsonl").write_bytes(b"\x00" * 1000)
    (trial(tmp_path / "4 status", seed=4) / "status.json").write_text("{")
    write_status(trial(tmp_path / "5 state", seed=5), EVIL)
    only_rows = tmp_path / "6 rows only"
    only_rows.mkdir()
    write_lines(only_rows / "metrics.jsonl", [{"step": 0, "validation/psnr": 99}])
    (trial(tmp_path / "7 link", seed=7) / "metrics.jsonl").unlink()
    (tmp_path / "7 link" / "metrics.jsonl").symlink_to(tmp_path / "0 good" / "metrics.jsonl")
    found = study(sorted(tmp_path.iterdir()))
    states = {one.name: (one.state, one.status.message) for one in found.trials}
    assert {name for name, (state, _) in states.items() if state == "finished"} == {"0 good", "1 good"}
    assert states["2 config"] == ("damaged", "config.yaml cannot be read")
    assert states["3 rows"] == ("damaged", "metrics.jsonl has no row that can be read")
    assert states["4 status"] == states["5 state"] == ("damaged", "status.json cannot be read")
    assert states["6 rows only"] == ("damaged", "there is no config.yaml")
    assert states["7 link"][0] == "damaged"
    assert "6 damaged" in describe(found, 120)
    assert found.best is not None
    assert found.best.name == "0 good"
    assert list(keys_of(found)) == ["seed"]


def test_where_all_are_damaged_there_is_nothing_to_compare(tmp_path: Path) -> None:
    for name in "ab":
        (trial(tmp_path / name) / "config.yaml").write_text("[")
    with pytest.raises(ConfigError, match=r"nothing to compare: 2 run folders, all damaged \(.*config.yaml cannot be"):
        study([tmp_path / "a", tmp_path / "b"])


def test_a_half_written_row_is_left_out(tmp_path: Path) -> None:
    folder = trial(tmp_path / "a", [10, 20])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "validation/psnr": 9')
    assert study([folder]).trials[0].best("validation/psnr") == 20


def test_what_counts_as_a_run(tmp_path: Path) -> None:
    files = {"metrics.jsonl": True, "status.json": True, "config.yaml": False, "multirun.yaml": False}
    for name, counts in files.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).touch()
        assert is_trial(folder) is counts
    (tmp_path / "config" / "overrides.yaml").touch()
    assert is_trial(tmp_path / "config")


# What was varied


def test_keys_that_say_where_a_run_is_are_not_varied(tmp_path: Path) -> None:
    for n in range(2):
        trial(tmp_path / str(n), **{"name": f"n{n}", "logger.wandb.group": n, "data.index": n, "optimizer.lr": n + 1})
    assert keys_of(study([tmp_path / "0", tmp_path / "1"])) == {"optimizer.lr": ["1", "2"]}


def test_a_choice_is_one_key_and_what_follows_from_it_is_none(tmp_path: Path) -> None:
    quantizers = {"vqmodel": {"_target_": "Vector", "codebook_weight": 1}, "emavq": {"_target_": "EMA", "decay": 0.9}}
    jobs = [(typed, size) for typed in ("vqmodel", "emavq", None) for size in (16, 32)]
    for n, (typed, size) in enumerate(jobs):
        folder = trial(tmp_path / str(n), psnr=[20 - n])
        quantizer = {**quantizers[typed or "emavq"], "codebook_size": size}
        (folder / "config.yaml").write_text(json.dumps({"model": {"quantizer": quantizer}, "seed": 0}))
        overrides = [f"model={typed}"] * (typed is not None) + [f"model.quantizer.codebook_size={size}"]
        (folder / "overrides.yaml").write_text(json.dumps(overrides))
    assert keys_of(study(sorted(tmp_path.iterdir()))) == {
        "model": ["vqmodel", "vqmodel", "emavq", "emavq", "emavq", "emavq"],
        "model.quantizer.codebook_size": ["16", "32", "16", "32", "16", "32"],
    }


def test_a_recipe_is_one_key_but_what_was_typed_beside_it_is_another(tmp_path: Path) -> None:
    jobs = [("f8", 8, 0.1), ("f8", 8, 0.2), ("f16", 16, 0.1), (None, 4, 0.1)]
    for n, (recipe, channels, lr) in enumerate(jobs):
        folder = trial(tmp_path / str(n), psnr=[20 - n])
        config = {"backbone": {"channels": channels}, "loss": {"weight": channels}, "optimizer": {"lr": lr}}
        (folder / "config.yaml").write_text(json.dumps(config))
        typed = [f"experiment={recipe}"] * (recipe is not None) + [f"optimizer.lr={lr}"]
        (folder / "overrides.yaml").write_text(json.dumps(typed))
    assert keys_of(study(sorted(tmp_path.iterdir()))) == {
        "experiment": ["f8", "f8", "f16", "default"],
        "optimizer.lr": ["0.1", "0.2", "0.1", "0.1"],
    }


def test_what_a_choice_does_not_explain_is_a_key_of_its_own(tmp_path: Path) -> None:
    jobs = [("vqmodel", 16, 0.9), ("vqmodel", 16, 0.5), ("emavq", 32, 0.9)]
    for n, (choice, size, decay) in enumerate(jobs):
        folder = trial(tmp_path / str(n), psnr=[20 - n])
        config = {"model": {"_target_": choice, "size": size, "decay": decay}}
        (folder / "config.yaml").write_text(json.dumps(config))
        (folder / "overrides.yaml").write_text(json.dumps([f"model={choice}", f"model.size={size}"]))
    assert keys_of(study(sorted(tmp_path.iterdir()))) == {
        "model": ["vqmodel", "vqmodel", "emavq"],
        "model.size": ["16", "16", "32"],  # it was typed, although it changed with the choice alone
        "model.decay": ["0.9", "0.5", "0.9"],  # of another version, say
    }


def test_a_value_that_was_typed_but_changed_nothing_is_not_varied(tmp_path: Path) -> None:
    one, two = (trial(tmp_path / name, **{"optimizer.lr": 0.1}) for name in "ab")
    (two / "overrides.yaml").write_text("[]")
    assert keys_of(study([one, two])) == {}


def test_numbers_their_scale_and_names() -> None:
    assert Key("a", ["1e-4", "0.01"]).numbers == [1e-4, 0.01]
    for even in (["1e-4", "1e-3", "1e-2"], ["256", "512", "1024", "2048"], ["0.1", "0.02", "3"]):
        assert Key("a", even).is_logarithmic, even
    for other in (["1", "2", "3", "4"], ["1", "1000"], ["0", "1", "1000"], ["-1", "10", "100"], ["7", "7"]):
        assert not Key("a", other).is_logarithmic, other
    for values in (["1", "null"], ["1", None], ["nan", "1"], ["inf", "1"], ["[1, 2]", "1"]):
        assert Key("a", values).numbers is None
    assert not Key("a", ["x"]).is_logarithmic


def test_names_are_short_as_long_as_they_can_be_told_apart() -> None:
    keys = ["optimizer.lr", "discriminator_optimizer.lr", "model.quantizer.codebook_size", "trainer.steps", "seed"]
    assert short_names(keys) == ["optimizer.lr", "discriminator_optimizer.lr", "codebook_size", "trainer.steps", "seed"]
    assert short_names(["lr", "optimizer.lr"]) == ["lr", "optimizer.lr"]
    assert [short_value(v) for v in ("16384", "0.00017926927", None, "x" * 99, "a\x1b")] == [
        "16384", "0.0001793", "–", "x" * 27 + "…", "a\\x1b",
    ]  # fmt: skip


# Importance


def named(found: Sequence[Importance]) -> dict[str, Importance]:
    return {" + ".join(one.names): one for one in found}


def test_shares_of_an_additive_effect_are_those_of_its_variance() -> None:
    grid = [(a, b) for a in range(4) for b in range(4)] * 10
    keys = [Key("a", [str(a) for a, _ in grid]), Key("b", [f"b{b}" for _, b in grid])]
    found = named(importances(keys, [4.0 * a + b for a, b in grid]))
    assert list(found) == ["a", "b"]
    assert found["a"].share == pytest.approx(16 / 17, abs=0.01)
    assert found["b"].share == pytest.approx(1 / 17, abs=0.02)
    assert (found["a"].groups, found["a"].grouped) == (4, False)


def test_shares_of_few_runs_are_corrected_for_what_groups_explain_by_chance() -> None:
    grid = [(a, b) for a in range(4) for b in range(4)]
    keys = [Key("a", [str(a) for a, _ in grid]), Key("b", [str(b) for _, b in grid])]
    a, b = importances(keys, [4.0 * a + b for a, b in grid])
    assert a.share == pytest.approx(1 - (1 - 16 / 17) * 15 / 12)
    assert b.share == 0


def test_shares_of_a_random_search_with_noise() -> None:
    rng = random.Random(0)
    draws = [(rng.random(), rng.choice("xyz"), rng.random(), rng.gauss(0, 1)) for _ in range(300)]
    scale = math.sqrt(12)  # of a uniform number to unit variance
    results = [2 * scale * u + noise for u, _, _, noise in draws]
    keys = [Key(name, [str(draw[n]) for draw in draws]) for n, name in enumerate(["lr", "model", "decay"])]
    found = named(importances(keys, results))
    assert found["lr"].share == pytest.approx(4 / 5, abs=0.05)
    assert (found["lr"].groups, found["lr"].grouped) == (8, True)
    for name in ("model", "decay"):
        assert found[name].share is not None
        assert found[name].share <= found[name].by_chance < 0.06


def test_an_optimum_in_the_middle_is_found() -> None:
    rates = [10 ** (-5 + 3 * n / 31) for n in range(32)]
    (one,) = importances([Key("lr", [str(rate) for rate in rates])], [-((math.log10(r) + 3.5) ** 2) for r in rates])
    assert one.share is not None
    assert one.share > 0.85


def test_what_two_keys_do_only_together_is_in_neither_share() -> None:
    grid = [(a, b) for a in range(2) for b in range(2)] * 4
    keys = [Key("a", [str(a) for a, _ in grid]), Key("b", [str(b) for _, b in grid])]
    assert [one.share for one in importances(keys, [float(a ^ b) for a, b in grid])] == [0, 0]


def test_one_run_that_went_wrong_does_not_count_for_all_others() -> None:
    grid = [(a, b) for a in range(2) for b in range(2)] * 5
    results = [20.0 + a + n / 1000 for n, (a, _) in enumerate(grid)]
    keys = [Key("a", [str(a) for a, _ in grid]), Key("b", [str(b) for _, b in grid])]
    (before,) = (one.share for one in importances(keys, results) if one.names == ["a"])
    results[3] = -1e6
    (after,) = (one.share for one in importances(keys, results) if one.names == ["a"])
    assert before is not None
    assert after is not None
    assert before == pytest.approx(0.74, abs=0.02)  # 1 - (1 - η²) · 19 / 18 of ranks 1 to 10 against 11 to 20
    assert after > 0.35


def test_keys_that_always_changed_together_are_one() -> None:
    keys = [Key("a", list("xxyy") * 3), Key("b", list("1122") * 3), Key("c", list("pqpq") * 3), Key("d", ["z"] * 12)]
    found = named(importances(keys, [float(n % 4 > 1) for n in range(12)]))
    assert list(found) == ["a + b", "c"]
    assert found["a + b"].share == 1


def test_names_that_are_nearly_all_different_say_nothing() -> None:
    (one,) = importances([Key("name", list("abcdefgh"))], [float(n) for n in range(8)])
    assert one.share is None


def test_chance_is_what_it_says() -> None:
    rng = random.Random(0)
    above = 0
    for _ in range(200):
        keys = [Key("a", [rng.choice("xyz") for _ in range(24)])]
        (one,) = importances(keys, [rng.gauss(0, 1) for _ in range(24)])
        above += one.share is not None and one.share > one.by_chance
    assert 2 <= above <= 20, "of 200, about 5 % are above by chance"


def test_few_runs_or_equal_results_have_no_importance() -> None:
    assert importances([Key("a", list("xyxyxyx"))], [float(n) for n in range(7)]) == []
    (one,) = importances([Key("a", list("xy") * 4)], [1.0] * 8)
    assert one.share == 0


def test_ranks_of_ties_are_shared() -> None:
    assert ranks_of([3, 1, 3, 2]).tolist() == [3.5, 1, 3.5, 2]


def test_importance_looks_at_finished_runs_alone(tmp_path: Path) -> None:
    for n in range(16):
        state = "finished" if n < 8 else "stopped"
        trial(tmp_path / f"{n:02}", [20 + n % 2 if state == "finished" else 5], state, seed=n % 2, size=n // 2)
    found = study(sorted(tmp_path.iterdir()))
    assert (found.finished, found.why_no_importance) == (8, None)
    assert named(found.importances)["seed"].share == 1
    (tmp_path / "00" / "status.json").unlink()
    write_status(tmp_path / "00", "stopped")
    found = study(sorted(tmp_path.iterdir()))
    assert found.why_no_importance == "too few runs: 7 finished ones, and chance rules below 8"
    assert "Importance of what was varied: too few runs: 7 finished ones" in describe(found, 100)


# The command line of the best


def test_the_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    typed = [
        "data.root='/my videos'",
        'name="it\'s"',
        "a=$(date)",
        "~schedule",
        "+x=[1,2]",
        "b=\x1b[2J\u00e9\n'\\",
        "c=*",
    ]
    folder = trial(tmp_path / "a")
    ours = ["run_dir=elsewhere", "sweep=codebook", "+resume=x", "--config-dir=/evil", "seed=1"]
    (folder / "overrides.yaml").write_text(json.dumps([*ours, *typed, "seed=2"]))
    command = study([folder]).trials[0].command()
    assert command.isprintable()
    assert command.startswith("python train.py ")
    shell = command.replace("python train.py", "printf '%s\\0'")
    words = subprocess.run(["bash", "-c", shell], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert sorted(words) == sorted([*typed, "seed=2"])


# The text, the file and the page


def many(folder: Path, count: int) -> Study:
    for n in range(count):
        values = {
            "optimizer.lr": 10 ** -(n % 5 + 1),
            "model.quantizer.commitment_weight": n,
            "loss.pixel": "l1l2"[n % 2 :],
        }
        trial(folder / str(n), [20 + n / 7], **values)
    return study(sorted(folder.iterdir()))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_into_the_terminal(width: int, tmp_path: Path) -> None:
    found = many(tmp_path, 50)
    text = describe(found, width)
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table[:-1])) <= width
    assert "best psnr" in table[0]
    assert table[1].startswith("*  49 ")
    assert "10 more runs" in table[-1]
    assert ("perplexity" in table[0]) is (width >= 120)
    assert text.startswith("50 runs: 50 finished. Varied: optimizer.lr, model.quantizer.commitment_weight, loss.pixel.")


def test_reasons_are_told_once_and_not_without_end(tmp_path: Path) -> None:
    for n in range(30):
        message = f"reason {n}" if n > 4 else f"memory ran out in {tmp_path / str(n)}/x: {'y' * 999}"
        trial(tmp_path / str(n), state="failed", message=message)
    text = describe(study(sorted(tmp_path.iterdir())), 80)
    reasons = text.split("\n\n")[2].splitlines()
    assert reasons[0].startswith("0, 1, 2, 3, 4: failed: memory ran out in x: yyy")
    assert reasons[-1] == "… and 16 other reasons, on the page"
    assert max(map(len, reasons)) <= 160
    assert len(reasons) == 11
    assert "Best:" not in text


def test_the_file_holds_everything_and_no_formula(tmp_path: Path) -> None:
    trial(tmp_path / "=1+1", [20, 22], **{"optimizer.lr": -0.5, "loss.pixel": "@SUM(A1)"})
    trial(tmp_path / "b", [21, 20.5], "diverged", '+cmd, "quoted"', **{"optimizer.lr": 1e-3, "loss.pixel": "l1"})
    rows = list(csv.DictReader(io.StringIO(as_csv(study([tmp_path / "=1+1", tmp_path / "b"])))))
    assert [row["run"] for row in rows] == ["'=1+1", "b"]
    assert [row["optimizer.lr"] for row in rows] == ["-0.5", "0.001"]
    assert [row["loss.pixel"] for row in rows] == ["'@SUM(A1)", "l1"]
    assert [row["message"] for row in rows] == ["", '\'+cmd, "quoted"']
    assert [row["state"] for row in rows] == ["finished", "diverged"]
    assert [(row["best validation/psnr"], row["step of best validation/psnr"]) for row in rows] == [
        ("22.0", "10"),
        ("20.5", "10"),
    ]
    assert rows[0]["last validation/lpips"] == str(1 / 22)
    assert rows[0]["command"].startswith("python train.py trainer.steps=10 optimizer.lr=-0.5")


def test_the_page_holds_the_study(tmp_path: Path) -> None:
    found = many(tmp_path / "sweep", 12)
    (tmp_path / "sweep" / "11" / "report.html").touch()
    data = embedded(page(found, tmp_path))
    assert [key["short"] for key in data["keys"]] == ["lr", "commitment_weight", "pixel"]
    assert [key["log"] for key in data["keys"]] == [True, False, False]
    assert data["keys"][2]["numbers"] is None
    assert [run["report"] for run in data["runs"][:2]] == ["./sweep/11/report.html", None]
    assert (data["best"], data["metric"], data["higher"], data["finished"]) == (0, "validation/psnr", True, 12)
    assert data["runs"][0]["curves"]["validation/psnr"]["values"] == [round(20 + 11 / 7, 4)]


def test_a_page_shows_no_more_keys_than_a_browser_bears(tmp_path: Path) -> None:
    for n in range(2):
        trial(tmp_path / str(n), **{f"a.k{key}": n for key in range(60)})
    found = study(sorted(tmp_path.iterdir()))
    data = embedded(page(found, tmp_path))
    assert (len(data["keys"]), data["more_keys"]) == (50, 10)
    assert "a.k59" in as_csv(found)
    assert max(map(len, describe(found, 80).split("\n\n")[1].splitlines()[:-1])) <= 80


def test_text_from_a_run_stays_text(tmp_path: Path) -> None:
    name = EVIL.replace("/", "_")
    for n in range(2):
        folder = trial(tmp_path / f"{n}{name}", state="failed" if n else "finished", message=EVIL, seed=f"{n}{EVIL}")
        (folder / "report.html").touch()
    (tmp_path / "javascript:alert(1)").mkdir()
    (trial(tmp_path / "javascript:alert(1)" / "x") / "report.html").touch()
    found = study([*tmp_path.glob(f"*{name}"), tmp_path / "javascript:alert(1)" / "x"])
    text = page(found, tmp_path)
    assert text.count("<script") == text.count("</script>") == 3
    assert {run["report"][:2] for run in embedded(text)["runs"]} == {"./"}
    assert not any("javascript:" in run["report"] for run in embedded(text)["runs"])
    for line in describe(found, 80).splitlines():
        assert line.isprintable(), line


def test_surrogates_of_a_name_that_is_no_text_do_no_harm(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    trial(folder, seed=1)
    trial(tmp_path / "b", seed=2)
    found = study([folder, tmp_path / "b"])
    for text in (page(found, tmp_path), as_csv(found), describe(found, 80)):
        text.encode("utf-8")


# The command


def test_where_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial(tmp_path / "sweep" / "deep" / "0", seed=0)
    trial(tmp_path / "sweep" / "deep" / "1", seed=1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    compare([tmp_path / "sweep"], None, None)
    assert (tmp_path / "sweep" / "compare.html").exists()
    assert (tmp_path / "sweep" / "compare.csv").exists()
    compare([tmp_path / "sweep"], None, None)  # what is there already is no run
    compare([tmp_path / "sweep" / "deep" / "0", tmp_path / "sweep"], None, None)
    assert len(embedded(Path("compare.html").read_text())["runs"]) == 2
    compare([tmp_path / "sweep"], "validation/lpips", Path("other.html"))
    assert Path("other.csv").exists()


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    trial(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"There is no folder .*nowhere\."):
        compare([tmp_path / "a", tmp_path / "nowhere"], None, None)
    with pytest.raises(ConfigError, match=r"--metric validation/pnsr: no run .*There are: .*validation/psnr"):
        compare([tmp_path], "pnsr", None)
    compare([tmp_path], "lpips", None)
    with pytest.raises(ConfigError, match=r"--out x\.csv: that is the name of the table"):
        compare([tmp_path], None, Path("x.csv"))


def test_nothing_has_been_measured_yet(tmp_path: Path) -> None:
    for n in range(2):
        trial(tmp_path / str(n), [], state="running", seed=n)
    found = study(sorted(tmp_path.iterdir()))
    assert found.best is None
    assert "2 interrupted" in describe(found, 80)
    assert embedded(page(found, tmp_path))["command"] is None


def test_neither_help_nor_the_command_loads_torch(tmp_path: Path) -> None:
    trial(tmp_path / "a", seed=1)
    code = (
        "import sys; sys.argv = ['vqgan', 'compare', *sys.argv[1:]]\n"
        "import vqgan.commands\n"
        "try: vqgan.commands.main()\n"
        "finally: sys.exit('torch' in sys.modules)"
    )
    for argument in ("--help", str(tmp_path)):
        subprocess.run([sys.executable, "-c", code, argument], check=True, capture_output=True)
