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

setup_opengl() {  # what MuJoCo draws with where there is no screen: EGL or OSMesa, from Debian's packages where neither is there
  local root check packages
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  check=("$root/.venv/bin/python" -c 'import sys; sys.path.insert(0, sys.argv[1])
from como_jax import errors
from como_jax.sim import rendering
try:
  print("== MuJoCo draws with", rendering.choose_backend())
except errors.UserError as error:
  sys.exit(f"error: {error}")' "$root")
  "${check[@]}" 2>/dev/null && return
  for packages in "libegl1 libegl-mesa0 libgl1-mesa-dri" "libosmesa6"; do
    echo "== installing $packages"
    # shellcheck disable=SC2086
    install_packages $packages && "${check[@]}" 2>/dev/null && return
  done
  "${check[@]}"  # says why, and what to install
}

install_packages() {  # install_packages NAME...: with apt-get, as root or where sudo asks for no password
  local root=()
  command -v apt-get >/dev/null || { echo "there is no apt-get here" >&2; return 1; }
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || { echo "this needs root: sudo apt-get install -y $*" >&2; return 1; }
    root=(sudo -n)
  fi
  { "${root[@]}" apt-get update && "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >/dev/null
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
