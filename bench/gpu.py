"""All that only a GPU can show: its tests, then the benches, each within its own time; one JSON and one table.

    bash bench/gpu.sh [WHEELS] [--stages tests,step] [--seconds 570]      # what calls this, see there
    python bench/gpu.py --cpu                                             # a rehearsal in toy sizes, without a GPU

No stage stops the others: what failed, or was stopped at its limit, says so in the table. After each stage the
folder $OUT holds all results so far.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import machine, table

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"tests": 170, "step": 90, "quantizer": 50, "encode": 50, "compile": 130, "kernels": 70}  # seconds
F16 = ("experiment=f16", "data.batch_size=16")
TOY = (
    "backbone=tiny", "backbone.channels=8", "backbone.resolution=16", "discriminator=patchgan_small",
    "discriminator.channels=4", "model.quantizer.codebook_size=32", "loss=no_perceptual", "data.batch_size=2",
)  # fmt: skip


@dataclass
class Result:
    """What a stage came to."""

    command: list[str]
    seconds: float = 0.0
    outcome: str = ""  # "done", "failed (exit code)" or "stopped at n s"
    tables: list[list[dict[str, str]]] = field(default_factory=list)  # each that it printed, row by row
    tail: str = ""  # of its output, where it did not succeed


def main() -> None:
    """Run the stages, writing after each what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=lambda names: names.split(","), default=list(LIMITS), help=", ".join(LIMITS))
    parser.add_argument("--seconds", type=float, default=570.0, help="for all stages together")
    parser.add_argument("--cpu", action="store_true", help="toy sizes on the processor")
    args = parser.parse_args()
    if unknown := [name for name in args.stages if name not in LIMITS]:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    if args.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    out = Path(os.environ.get("OUT", "runs/gpu"))
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.stages:
            log = out / f"{name}.log"
            limit = min(LIMITS[name], max(0.0, end - time.monotonic()))
            results[name] = stage(command_of(name, Path(folder), args.cpu), limit, log)
            print(f"{name}: {results[name].outcome}, {results[name].seconds:.0f} s", flush=True)
            write(out, results)
    print((out / "gpu.md").read_text())
    sys.exit(any(result.outcome != "done" for result in results.values()))


def command_of(name: str, folder: Path, toy: bool) -> list[str]:
    """What a stage runs."""
    sizes = list(TOY if toy else F16)
    latents = ["--latents", "64", "--codes", "16", "--dimensions", "4"] if toy else []
    videos = folder / "videos"
    arguments = {
        "tests": ["-m", "pytest", "-m", "cuda", "-n", "0" if toy else "4", "-p", "no:cacheprovider", *cuda_tests()],
        "step": ["bench/step.py", "--rounds", "1" if toy else "10", *sizes],
        "quantizer": ["bench/quantizer.py", "--rounds", "1" if toy else "3", *latents],
        "encode": ["bench/encode.py", str(videos), *(["--resolution", "16", "--rounds", "1"] if toy else
                   ["--backbone", "f16", "--resolution", "256", "--workers", "8", "--precision", "bf16"])],
        "compile": ["bench/step.py", "--rounds", "1" if toy else "10", *([] if toy else ["--compile"]), *sizes],
        "kernels": ["bench/kernels.py", "--batches", "1,2" if toy else "1,4,16", *sizes],
    }  # fmt: skip
    if name == "encode" and not videos.exists():
        write_videos(videos, *((1, 4, 32) if toy else (32, 128, 256)))
    return [sys.executable, *arguments[name]]


def cuda_tests() -> list[str]:
    """The files with tests of CUDA: all others may import what a bare machine lacks."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.cuda" in file.read_text(encoding="utf-8")]


def write_videos(folder: Path, videos: int, frames: int, side: int) -> None:
    """Drawn ones, to be encoded."""
    import av

    from vqgan.data.synthetic import draw_video

    folder.mkdir()
    drawn = draw_video(0, frames, side)
    for number in range(videos):
        with av.open(folder / f"{number}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for picture in drawn:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def stage(command: list[str], limit: float, log: Path) -> Result:
    """Run it for at most `limit` seconds; its output goes to `log`, which is there even if all is killed."""
    result, before = Result(command), time.monotonic()
    if limit < 1:
        result.outcome = "no time left"
        return result
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(limit)
            result.outcome = "done" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            result.outcome = f"stopped at {limit:.0f} s"
        finally:
            stop(process)  # its workers, too: they would keep the device's memory
    result.seconds = time.monotonic() - before
    text = log.read_text(encoding="utf-8", errors="replace")
    result.tables = tables_in(text)
    if result.outcome != "done" or "bench/" not in command[1]:
        result.tail = text[-4000:]
    return result


def stop(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def tables_in(text: str) -> list[list[dict[str, str]]]:
    """Rows of each Markdown table, by the names of its columns."""
    found: list[list[dict[str, str]]] = []
    header: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("| "):
            header = None
            continue
        cells = [cell.strip() for cell in line[1:].removesuffix("|").split("|")]
        if header is None:
            header = cells
            found.append([])
        elif set(cells) != {"---"}:
            found[-1].append(dict(zip(header, cells)))
    return found


def write(out: Path, results: dict[str, Result]) -> None:
    """gpu.json, and gpu.md: what each stage came to, then its own tables."""
    values = {"machine": machine(), "stages": {name: asdict(result) for name, result in results.items()}}
    (out / "gpu.json").write_text(json.dumps(values, indent=1, ensure_ascii=False))
    rows = [[name, result.outcome, result.seconds] for name, result in results.items()]
    parts = [f"# {values['machine']}", table(["stage", "outcome", "seconds"], rows)]
    for name, result in results.items():
        parts += [f"## {name}"]
        parts += [table(list(rows[0]), [list(row.values()) for row in rows]) for rows in result.tables if rows]
        parts += [f"```\n{result.tail}\n```"] if result.tail else []
    (out / "gpu.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
