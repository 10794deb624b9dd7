# Sourced by the other scripts: makes .venv (Python 3.11 or newer) and installs a requirements file once.
# shellcheck shell=bash

setup_environment() {  # setup_environment REQUIREMENTS_FILE [PIP_OPTION...]
  local requirements="$1" root venv stamp want
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  venv="$root/.venv"
  if [ ! -x "$venv/bin/python" ]; then
    local python
    python="$(find_python)"
    echo "== making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || { rm -rf "$venv"; echo "error: $python cannot make a virtual environment in $venv" >&2; exit 2; }
  fi
  stamp="$venv/installed-$(basename "$requirements").sha"
  want="$(cat "$root"/requirements*.txt | sha256sum | cut -d' ' -f1)"
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
    echo "== installing $(basename "$requirements")"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}" -r "$root/$requirements" 2>&1 \
      | { grep -v '^WARNING: Location' || true; } || return 1
    echo "$want" > "$stamp"
  else
    echo "== $(basename "$requirements") is installed already"
  fi
}

optional_environment() {  # optional_environment WHAT_IS_LOST REQUIREMENTS_FILE [PIP_OPTION...]: goes on without it when it cannot be had
  if ! (setup_environment "${@:2}"); then
    echo "== $2 could not be installed: $1"
  fi
}

find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer with the venv module on PATH (Debian and Ubuntu: apt-get install python3 python3-venv)" >&2
  exit 2
}
