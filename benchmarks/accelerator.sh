#!/usr/bin/env bash
# Proof on one accelerator: correct, as fast as it should be, repeatable. See accelerator.py.
#
#   benchmarks/accelerator.sh --prepare            # where there is a network: fetches the wheels
#   benchmarks/accelerator.sh [--only=NAME,...] [--size=published|tiny] [--out=DIR]
#
# The machine needs Python 3.12 with jax for its accelerator, flax, optax, orbax-checkpoint, pyarrow
# and torch, and no network. What else como_jax imports comes from benchmarks/wheels (--prepare).
# PyAV is not carried: the data are JPEG shards that the benchmark makes.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=benchmarks/wheels
# the packages that an image with jax and torch lacks; their versions are those of the lock file
packages=(array-record clu grain ml-collections portpicker simplejpeg tensorboardx websockets)

if [[ "${1:-}" == --prepare ]]; then
  rm -rf "$wheels"
  for package in "${packages[@]}"; do
    pinned=$(grep "^$package==" locks/py312-cpu.txt)
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
      --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
      --platform manylinux_2_28_x86_64 --dest "$wheels" "$pinned"
  done
  # the limit of a machine without network to which both are copied
  bytes=$(( $(git ls-files -z | du --files0-from=- -cb | tail -1 | cut -f1) \
    + $(du -sb "$wheels" | cut -f1) ))
  echo "prepared: $(ls "$wheels" | wc -l) wheels in $wheels; with the tracked files" \
    "$(( bytes / 1000000 )) MB (limit 55)"
  (( bytes < 55000000 ))
  exit
fi

if compgen -G "$wheels/*.whl" > /dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$wheels"/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
python3 benchmarks/accelerator.py "$@"
