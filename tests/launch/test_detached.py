"""launch/detached.sh: a command that lives on without its terminal."""

import subprocess
import sys

from tests import limits
from tests.launch.dry_run import FAKE, ROOT


def detached(*words, code=0):
  done = subprocess.run(
    [ROOT / "launch" / "detached.sh", *words],
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout + done.stderr


def test_detached_command_lives_on_and_can_be_stopped(tmp_path):
  job, workdir = tmp_path / "a job", tmp_path / "a run"
  assert "nothing runs" in detached("status", job)
  detached(
    "start",
    job,
    sys.executable,
    ROOT / "launch" / "supervise.py",
    f"--workdir={workdir}",
    "--first-pause=0.01",
    "--",
    sys.executable,
    "-S",
    FAKE,
    workdir,
    "wait,done",
    "--config.tasks=('a','b')",
  )
  assert limits.wait_until((workdir / "metrics.jsonl").exists)
  assert ": running" in detached("status", job)
  assert "is running: stop it first" in detached("start", job, "true", code=2)
  detached("last", job)
  detached("stop", job)
  assert "ended with 143" in detached("end", job, "3600")
  assert "ended with 143" in detached("status", job)
  assert (tmp_path / "a run.starts").read_text() == "--config.tasks=('a','b')\n"
  detached("start", job, "true")
  assert "ended with 0" in detached("end", job, "3600")
  detached("stat", job, code=2)
