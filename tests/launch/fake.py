"""A run that the tests supervise: `fake.py WORKDIR PLAN [--resume]`.

Every start takes the next word of the plan:

  crash@S   logs up to step S, exit code 1            bad       exit code 2
  die@S     logs up to step S, kills itself -9        stop@S    logs up to step S, exit code 143
  wait      logs a step and waits for SIGTERM (143)   done      exit code 0
  leave@S   as die@S, and leaves a process behind     later     exit code 75
  lost      exit code 75                              abort     exit code 134
  nan       exit code 3

Like como_jax.main it refuses a directory that is not empty without --resume, and --resume of
nothing.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time


def lives(pid: int) -> bool:
  """Whether a process is still there in a second (one that has ended and is not yet collected is
  not).
  """
  for _ in range(20):
    state = subprocess.run(
      ["ps", "-o", "stat=", "-p", str(pid)], stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    if not state or state.startswith("Z"):
      return False
    time.sleep(0.05)
  return True


def main() -> int:
  workdir, plan = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
  marks = workdir.with_name(workdir.name + ".starts")
  with marks.open("a") as file:
    file.write(" ".join(sys.argv[3:]) + "\n")
  word, _, step = plan[min(len(marks.read_text().splitlines()), len(plan)) - 1].partition("@")
  used = workdir.exists() and any(workdir.iterdir())
  if word == "bad" or used != ("--resume" in sys.argv):
    return 2
  signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
  workdir.mkdir(exist_ok=True)
  for name in ("versions.json", "config.json"):
    (workdir / name).write_text("{}")
  if step:
    (workdir / "metrics.jsonl").write_text(
      "".join(json.dumps({"step": i, "kind": "train"}) + "\n" for i in range(1, int(step) + 1))
      + '{"step"'
    )
  if word == "wait":
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n')
    while True:
      time.sleep(0.02)
  if word == "leave":
    workdir.with_name(workdir.name + ".left").write_text(
      str(subprocess.Popen(["sleep", "600"]).pid)
    )
  if word in ("die", "leave"):
    os.kill(os.getpid(), signal.SIGKILL)
  return {"crash": 1, "stop": 143, "later": 75, "lost": 75, "abort": 134, "done": 0, "nan": 3}[word]


if __name__ == "__main__":
  sys.exit(main())
