#!/usr/bin/env bash
# A command that outlives the connection that started it, one a folder (tpu_vm.py calls this on every host):
#   launch/detached.sh start FOLDER COMMAND...   starts it; FOLDER gets log, pid and, at the end, code
#   launch/detached.sh status FOLDER             running, the exit code, or nothing; and the last line of the log
#   launch/detached.sh last FOLDER               tells a supervisor not to restart (SIGUSR1)
#   launch/detached.sh stop FOLDER               tells it to save and end (SIGTERM)
#   launch/detached.sh end FOLDER SECONDS        waits so long for the end, then tells it to stop too
set -euo pipefail
usage() { sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb="$1" folder="$2"
shift 2

running() { [ -f "$folder/lock" ] && ! flock --nonblock "$folder/lock" true; }  # the command holds the lock while it lives
tell() { if running && [ -f "$folder/pid" ]; then kill "-$1" "$(cat "$folder/pid")" 2> /dev/null || true; fi; }

case "$verb" in
  start)
    [ $# -ge 1 ] || usage
    mkdir -p "$folder"
    exec 9> "$folder/lock"
    flock --nonblock 9 || { echo "error: $(hostname): a command of $folder is running: stop it first" >&2; exit 2; }
    rm -f "$folder/code" "$folder/pid"
    setsid bash "${BASH_SOURCE[0]}" held "$folder" "$@" >> "$folder/log" 2>&1 < /dev/null &
    for _ in $(seq 50); do [ -f "$folder/pid" ] && break; sleep 0.1; done
    echo "$(hostname): started, log in $folder/log" ;;
  held)  # the other half of start, in a session of its own
    trap '' HUP
    "$@" &
    echo $! > "$folder/pid"
    code=0
    wait $! || code=$?
    echo "$code" > "$folder/code" ;;
  status)
    if running; then state=running; elif [ -f "$folder/code" ]; then state="ended with $(cat "$folder/code")"; else state="nothing runs"; fi
    echo "$(hostname): $state"
    tail -n 1 "$folder/log" 2> /dev/null || true ;;
  last) tell USR1 ;;
  stop) tell TERM ;;
  end)
    for _ in $(seq "${1:-300}"); do running || break; sleep 1; done
    tell TERM
    echo "$(hostname): $(running && echo "still saving" || echo "ended with $(cat "$folder/code" 2> /dev/null)")" ;;
  *) usage ;;
esac
