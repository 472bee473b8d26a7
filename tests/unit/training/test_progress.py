"""What is said of a run's progress where no terminal shows a bar."""

from __future__ import annotations

import pytest

from vqgan.training.progress import Progress


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("done", "shown"), [(0, True), (400, True), (0, False)])
def test_a_line_a_minute_says_what_is_left_at_the_pace_so_far(
    done: int, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with Progress(done, done + 100, shown, clock) as progress:
        for _ in range(29):  # two seconds each: 58 seconds
            clock.now += 2
            progress.advance()
        assert capsys.readouterr().out == ""
        progress.show(done + 29, {"train/total": 0.5, "speed/frames_per_second": 32.0})
        clock.now += 32
        progress.advance()
        lines = capsys.readouterr().out
        if not shown:
            assert lines == ""
            return
        # 90 seconds for 30 steps: 3 seconds each, and 70 are left
        assert lines == f"step {done + 30:>7} of {done + 100}   3.5 min left   loss 0.500, frames/s 32\n"
        for _ in range(70):
            clock.now += 3
            progress.advance()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [str(done + n) for n in (50, 70, 90)]
    assert lines[-1].split()[4:6] == ["30", "s"]


def test_what_was_validated_is_shown_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress(0, 100, True, clock) as progress:
        progress.show(0, {"validation/bits_per_token": 10.0})
        clock.now += 90
        progress.advance()
        progress.show(1, {"train/total": 0.5})
        clock.now += 90
        progress.advance()
    assert capsys.readouterr().out.splitlines()[-1].endswith("   loss 0.500, bits/token 10.00 at step 0")


def test_a_terminal_has_its_bar_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress(0, 10, True, clock) as progress:
        clock.now += 100
        progress.advance()
    assert " left" not in capsys.readouterr().out
