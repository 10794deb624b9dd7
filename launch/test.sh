#!/usr/bin/env bash
# Sets up .venv with the test extras and runs the tests: launch/test.sh [pytest arguments]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh"
cd "$root"
setup_environment requirements-test.txt
echo "== pytest $*"
# A process a core (most of the time is single-threaded compilation); a file's tests share one, and so its fixtures.
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile "$@"
