#!/usr/bin/env bash
# Fills a folder with the wheels of bench/wheels.txt, for a machine without a network (bench/gpu.sh).
#
#     bash bench/wheels.sh [FOLDER=.wheels] [PYTHON=3.12]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-.wheels} python=${2:-3.12}
rm -rf "$folder" && mkdir -p "$folder"
# What has no wheel in the registry (antlr4 of Hydra's version) is pure Python: it is built here, and runs anywhere.
pip wheel -q --no-deps -c "$here/../constraints.txt" -w "$folder" antlr4-python3-runtime
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${platform}_x86_64")
done
grep -v -e '^#' -e antlr4 "$here/wheels.txt" | xargs pip download -q --no-deps --only-binary=:all: \
  --implementation cp --python-version "$python" "${platforms[@]}" -c "$here/../constraints.txt" -d "$folder"
ls -l "$folder"
size=$(cat "$folder"/*.whl | wc -c)
echo "$folder: $((size / 1000000)) MB"
if ((size >= 64000000)); then
  echo "64 MB or more" >&2
  exit 1
fi
