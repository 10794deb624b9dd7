#!/usr/bin/env bash
# Checks format, lint and types (settings in pyproject.toml): launch/lint.sh [--fix]
# --fix formats, and mends what ruff can mend by itself.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/launch/environment.sh"
cd "$root"
setup_environment requirements-test.txt
if [ "${1:-}" = --fix ]; then
  .venv/bin/ruff check --fix .
  .venv/bin/ruff format .
else
  .venv/bin/ruff check .
  .venv/bin/ruff format --check --quiet . || { echo "error: not formatted: run launch/lint.sh --fix" >&2; exit 1; }
fi
.venv/bin/basedpyright --level error --pythonpath .venv/bin/python
