"""Spot slices that are preempted come back, with a gcloud that plays a script."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest
import tpu_keep

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
RUNNING, READY, NOTHING = "t1v-0: running\nstep 3", "READY", ""  # new hosts have no script yet


def keep(folder, script, *options, kind="v5e-16", code=0, says=""):
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
  assert done.returncode == code and says in done.stderr, done.stdout + done.stderr
  calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
  return [call for call in calls if not call.startswith("describe")], done.stdout


START = ["ssh status", "scp", "ssh setup", "ssh run"]


def test_preempted_slices_are_created_again_and_the_run_goes_on(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "WAITING_FOR_RESOURCES", *["ACTIVE"] * 3, "SUSPENDED", 1]
      + ["ACTIVE"],
      "tpu-vm describe first": [READY],
      "tpu-vm ssh status": [NOTHING, RUNNING, RUNNING, NOTHING, "t1v-0: ended with 0\ndone"],
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
      "tpu-vm ssh status": [NOTHING, "t1v-0: ended with 0"],
    },
  )
  assert calls == ["create", "create", "create", *START, "ssh status"]
  assert "request 2 is refused (quota or capacity?)" in out


def test_a_request_that_waits_too_long_is_made_anew(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": [1, "WAITING_FOR_RESOURCES", 1, "ACTIVE"],
      "tpu-vm ssh status": [NOTHING, "t1v-0: ended with 0"],
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
      "tpu-vm ssh status": [*[NOTHING] * 4, "t1v-0: ended with 0"],
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
      "tpu-vm ssh status": [
        NOTHING,
        f"{RUNNING}\nt1v-1: nothing runs",
        "a: ended with 0\nb: ended with 0",
      ],
    },
    "--start=id7",
  )
  assert calls == ["create", *START, *START, "ssh status"]
  assert "--start=id7" in (tmp_path / "words").read_text()


@pytest.mark.parametrize("code", [2, 3])
def test_a_run_that_is_given_up_ends_it(tmp_path, code):
  script = {
    "queued-resources describe": ["ACTIVE"],
    "tpu-vm ssh status": [NOTHING, RUNNING, f"a: ended with {code}\nb: ended with 75"],
  }
  calls, _ = keep(tmp_path, script, code=code)
  assert calls == [*START, "ssh status", "ssh status"]


def test_a_run_that_is_at_work_is_adopted_and_no_answer_changes_nothing(tmp_path):
  calls, _ = keep(
    tmp_path,
    {
      "queued-resources describe": ["ACTIVE", 1, "ACTIVE"],
      "queued-resources create": [1],  # it is there
      "tpu-vm describe first": [1],
      "tpu-vm ssh status": [RUNNING, 255, RUNNING, "a: ended with 0"],
    },
  )
  assert calls == ["ssh status", "create", *["ssh status"] * 3]


def test_a_host_that_takes_no_connection_yet_is_set_up_later(tmp_path):
  calls, out = keep(
    tmp_path,
    {
      "queued-resources describe": ["ACTIVE"],
      "tpu-vm ssh setup": [255, ""],
      "tpu-vm ssh status": [255, 255, "a: ended with 0"],
    },
  )
  assert calls == ["ssh status", "scp", "ssh setup", *START, "ssh status"]
  assert "could not be started, to be tried again" in out


@pytest.mark.parametrize(
  "options, says",
  [
    (["--spto"], "did you mean '--spot'?"),
    (["--at=/elsewhere"], "is not below --at=/elsewhere"),
    (["--nfs="], "--at=DIRECTORY goes with"),
  ],
)
def test_what_is_wrong_is_refused_before_anything_is_asked_for(tmp_path, options, says):
  calls, _ = keep(tmp_path, {}, *options, code=2, says=says)
  assert not calls


def test_a_week_of_refused_requests_overflows_nothing(monkeypatch):
  pauses = []
  keeper = tpu_keep.Keeper.__new__(tpu_keep.Keeper)
  keeper._args, keeper._refused = types.SimpleNamespace(every=30.0), 5000
  codes = iter([None, 0])
  monkeypatch.setattr(keeper, "look", lambda: next(codes))
  monkeypatch.setattr(tpu_keep.time, "sleep", pauses.append)
  assert keeper.keep() == 0 and pauses == [tpu_keep.MAX_PAUSE]
