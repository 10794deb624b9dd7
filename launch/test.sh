#!/usr/bin/env bash
# Sets up .venv with what the tests need, simulators included, and runs them: launch/test.sh [--all] [--record] [pytest arguments]
#   --all     the tests marked slow too, and compiled as real runs compile (a few tests set options of their own)
#   --record  writes date, commit, minutes and counts of this run to tests/last_run.json
# COMO_JAX_TEST_SIMULATORS=0 leaves the simulators out; their tests are then skipped.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh"
cd "$root"
all=() record=""
while [ $# -gt 0 ]; do
  case "$1" in
    --all) all=(-m ""); shift
      # The suite compiles quickly (tests/conftest.py) unless it is told otherwise.
      export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false" ;;
    --record) record=1; shift ;;
    *) break ;;
  esac
done
setup_environment requirements-test.txt
if [ "${COMO_JAX_TEST_SIMULATORS:-1}" != 0 ]; then
  setup_environment requirements-sim.txt
  setup_environment requirements-pusht.txt
  setup_environment requirements-text.txt --no-deps
  setup_opengl || { echo "error: the simulators' tests cannot draw; COMO_JAX_TEST_SIMULATORS=0 $0 leaves them out" >&2; exit 2; }
fi
# A process a core (most of the time is single-threaded compilation); a file's tests share one, and so its fixtures.
pytest=(.venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile ${all[@]+"${all[@]}"})
echo "== pytest ${all[*]-} $*"
[ -n "$record" ] || exec "${pytest[@]}" "$@"
junit="$(mktemp)"
trap 'rm -f "$junit"' EXIT
code=0
"${pytest[@]}" --junitxml="$junit" "$@" || code=$?
.venv/bin/python launch/last_run.py "$junit" "$code" "$(printf '%q ' "${pytest[@]:3}" "$@")"
exit "$code"
