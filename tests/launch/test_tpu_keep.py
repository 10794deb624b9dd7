"""Spot slices that are preempted come back, with a gcloud that plays a script."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import limits

ROOT = pathlib.Path(__file__).parent.parent.parent
# Answers one call after the other: a list of answers per kind of call, the last one again and
# again. An answer is the output, or the exit code of a call that fails.
GCLOUD = """#!{python} -S
import fcntl, json, pathlib, sys
folder, words = pathlib.Path("{folder}"), sys.argv[1:]
what = " ".join(words[2:4])
if what == "tpu-vm ssh":
  what += " status" if "detached.sh status" in words[-1] else (
    " run" if "supervise.py" in words[-1] else " setup")
  if "run" in what:
    (folder / "words").write_text(words[-1])
if what == "tpu-vm describe":
  what += " " + words[4]
lock = (folder / "lock").open("w")  # hosts are reached at the same time
fcntl.flock(lock, fcntl.LOCK_EX)
script = json.loads((folder / "script.json").read_text())
answers = script.get(what, [""])
answer = answers.pop(0) if len(answers) > 1 else answers[0]
(folder / "script.json").write_text(json.dumps(script))
with (folder / "calls").open("a") as file:
  file.write(what.removeprefix("tpu-vm ").removeprefix("queued-resources ") + "\\n")
if isinstance(answer, int):
  sys.exit(answer)
print(answer)
"""
RUNNING, READY = "t1v-0: running\nstep 3", "READY"


def keep(folder, script, *options, kind="v5e-16", code=0):
  """Plays a script; returns the calls that change something, and the output."""
  folder.mkdir(exist_ok=True)
  (folder / "script.json").write_text(json.dumps(script))
  (folder / "gcloud").write_text(GCLOUD.format(python=sys.executable, folder=folder))
  (folder / "gcloud").chmod(0o755)
  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / "launch" / "tpu_keep.py"),
      "first",
      "--zone=us-east5-b",
      f"--type={kind}",
      "--spot",
      "--nfs=10.0.0.2:/share",
      "--at=/mnt/share",
      "--every=0.01",
      *options,
      "--",
      "--config=configs/motion.py",
      "--workdir=/mnt/share/first",
    ],
    env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == code, done.stdout + done.stderr
  calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
  return [call for call in calls if not call.startswith("describe")], done.stdout


START = ["scp", "ssh setup", "ssh run"]


def test_preempted_slices_are_created_again_and_the_run_goes_on(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "WAITING_FOR_RESOURCES", *["ACTIVE"] * 3, "SUSPENDED", 1]
      + ["ACTIVE"],
      "tpu-vm describe first": [READY],
      "tpu-vm ssh status": [RUNNING, RUNNING, "t1v-0: ended with 0\ndone"],
    },
  )
  once = ["create", *START, "ssh status", "ssh status"]
  assert calls == [*once, "delete", "create", *START, "ssh status"]
  assert "first: is SUSPENDED: deleted and asked for again" in out


def test_a_refused_request_is_repeated(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, 1, 1, "ACTIVE"],
      "queued-resources create": [1, 1, ""],
      "tpu-vm ssh status": ["t1v-0: ended with 0"],
    },
  )
  assert calls == ["create", "create", "create", *START, "ssh status"]
  assert "request 2 is refused (quota or capacity?)" in out


def test_a_request_that_waits_too_long_is_made_anew(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "WAITING_FOR_RESOURCES", 1, "ACTIVE"],
      "tpu-vm ssh status": ["t1v-0: ended with 0"],
    },
    "--longest-wait=0",
  )
  assert calls == ["create", "delete", "create", *START, "ssh status"]
  assert "is WAITING_FOR_RESOURCES for 0 minutes" in out


def test_half_of_the_slices_cannot_train(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "ACTIVE", "ACTIVE", 1, "ACTIVE"],
      "tpu-vm describe first-0": [READY],
      "tpu-vm describe first-1": [READY, "PREEMPTED", READY],
      "tpu-vm ssh status": ["t1v-0: ended with 0"],
    },
    kind="v5e-16x2",
  )
  both = [call for call in START for _ in range(2)]
  assert calls == ["create", *both, "delete", "create", *both, "ssh status", "ssh status"]
  assert "has lost first-1" in out


def test_a_host_that_was_restarted_gets_its_supervisor_back_in_the_same_start(tmp_path):
  calls, _ = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "ACTIVE"],
      # the other host refuses, because the run is at work there
      "tpu-vm ssh run": ["", 2],
      "tpu-vm ssh status": [f"{RUNNING}\nt1v-1: nothing runs", "a: ended with 0\nb: ended with 0"],
    },
    "--start=id7",
  )
  assert calls == ["create", *START, "ssh status", *START, "ssh status"]
  assert "--start=id7" in (tmp_path / "words").read_text()


@pytest.mark.parametrize("code", [2, 3])
def test_a_run_that_is_given_up_ends_it(tmp_path, code):
  script = {
    "queued-resources describe": ["ACTIVE"],
    "tpu-vm ssh status": [f"a: ended with {code}\nb: ended with 75"],
  }
  calls, _ = keep(tmp_path, script, code=code)
  assert calls == [*START, "ssh status"]


def test_no_answer_deletes_nothing(tmp_path):
  calls, _ = keep(
    tmp_path,
    {
      "queued-resources describe": ["ACTIVE", "ACTIVE", 1, "ACTIVE"],
      "queued-resources create": [1],  # it is there
      "tpu-vm describe first": [1],
      "tpu-vm ssh setup": [255, ""],  # takes no connection yet
      "tpu-vm ssh status": [255, "a: ended with 0"],
    },
  )
  assert "delete" not in calls and calls.count("ssh setup") >= 2


def test_a_wrong_program_is_refused_before_anything_is_asked_for(tmp_path):
  calls, _ = keep(tmp_path, {}, "--spto", code=2)
  assert not calls
