#!/usr/bin/env bash
# Everything that only a GPU can show, on a bare machine with Python and torch, in less than 10 minutes.
#
#     bash bench/wheels.sh .wheels                       # before, where there is a network
#     bash bench/gpu.sh [WHEELS] [--stages tests,step] [--seconds 570] [--cpu]
#
# Writes gpu.json, gpu.md and each stage's output to the folder $OUT (without it: runs/gpu).
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 WANDB_MODE=offline OUT="${OUT:-$root/runs/gpu}"
python=${PYTHON:-python3}
if [[ $# -gt 0 && $1 != --* ]]; then
  wheels=$1
  shift
  # Not a virtual environment: torch may itself lie in one, and one made from it sees only the system's packages.
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" \
    "$wheels"/*.whl || exit 2
  # A run notes the package's version: the checkout is not installed, there being nothing to build it with.
  version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/vqgan/__init__.py")
  mkdir "$site/vqgan-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: vqgan\nVersion: %s\n' "$version" >"$site/vqgan-$version.dist-info/METADATA"
  PYTHONPATH="$PYTHONPATH:$site"
fi
"$python" "$root/bench/gpu.py" "$@"
