#!/usr/bin/env bash
# From nothing to a motion model, a policy trained with its labels, rollouts and a report, on bundled data:
#   launch/quickstart.sh [--workdir DIR] [--source FOLDER] [--debug]
# --source: your own LeRobot directory or folder of videos. --debug: the same path in a few minutes, with nothing learned.
# Under twenty minutes on two CPU cores, installation included. Run it again to go on where it stopped.
set -euo pipefail
began=$(date +%s)
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$root/launch/environment.sh"
workdir="$root/runs/quickstart"
variant="" source="bundled"
while [ $# -gt 0 ]; do
  case "$1" in
    --workdir) [ $# -ge 2 ] || { echo "error: --workdir needs a directory" >&2; exit 2; }; workdir="$2"; shift 2 ;;
    --workdir=*) workdir="${1#*=}"; shift ;;
    --source) [ $# -ge 2 ] || { echo "error: --source needs a folder" >&2; exit 2; }; source="$2"; shift 2 ;;
    --source=*) source="${1#*=}"; shift ;;
    --debug) variant=":debug"; shift ;;
    -h|--help) sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown argument '$1' (valid: --workdir DIR, --source FOLDER, --debug)" >&2; exit 2 ;;
  esac
done
[ "$source" = bundled ] || [ -d "$source" ] || { echo "error: --source '$source' is no folder" >&2; exit 2; }
[ "$source" = bundled ] || source="$(cd "$source" && pwd)"
workdir="$(mkdir -p "$workdir" && cd "$workdir" && pwd)"
setup_environment requirements.txt
optional_environment "instructions will be hashed words" requirements-text.txt --no-deps
[ "$source" != bundled ] || optional_environment "there will be no rollouts" requirements-sim.txt
cd "$root"
echo "== motion model, probe, labels, policy, rollouts, server, report; everything goes to $workdir"
.venv/bin/python -m como_jax.main --config="configs/quickstart.py$variant" --config.source="$source" --workdir="$workdir"
echo "== $(( $(date +%s) - began )) s in all, installation included"
