"""What launch/tpu_vm.py would do, word for word, what it refuses, and how it reaches the hosts."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
from unittest import mock

import pytest
import tpu_slices

from tests import limits
from tests.launch.dry_run import PROGRAM, ROOT, commands, common, launch, stand_in

POD = ["--zone=us-east5-b", "--type=v5e-16"]
TWO = ["--zone=us-east5-b", "--type=v5e-16x2", "--project=p"]


def test_tpu_vm_create():
  done = launch("tpu_vm.py", "create", "first", *POD, "--spot", "--wait")
  assert done.stdout.splitlines() == [
    "gcloud compute tpus queued-resources create first --zone=us-east5-b "
    "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=first --spot",
    (
      "gcloud compute tpus queued-resources describe first --zone=us-east5-b "
      "'--format=value(state.state)'"
    ),
  ]
  done = launch(
    "tpu_vm.py", "create", "first", *TWO, "--internal-ips", "--network=n", "--valid-until=6h"
  )
  assert done.stdout.splitlines() == [
    "gcloud compute tpus queued-resources create first --zone=us-east5-b --project=p "
    "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-count=2 "
    "--node-prefix=first --internal-ips --network=n --valid-until-duration=6h"
  ]


def test_tpu_vm_run_quotes_once_for_the_hosts():
  first, second = commands(launch("tpu_vm.py", "run", "first", *TWO, "--", *PROGRAM, "--resume"))
  assert (
    first[:7] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "first-0", "--zone=us-east5-b"]
    and second[5] == "first-1"
  )
  assert first[7:9] == ["--project=p", "--worker=all"] and first[9] == second[9]
  script = first[9].removeprefix("--command=")
  assert script.startswith(
    "cd ~/como_jax_checkout && COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1 launch/detached.sh "
    "start ~/como_jax_job "
  )
  words = shlex.split(script)[8:]
  # the same on all hosts of both slices, and another one at the next start
  assert re.fullmatch(r"--start=\d{8}T\d{6}", words.pop(3))
  assert words == [
    ".venv/bin/python",
    "launch/supervise.py",
    "--go-on",
    "--restarts-per-hour=10",
    "--",
    ".venv/bin/python",
    "-m",
    "como_jax.main",
    *PROGRAM,
    "--expect=tpu",
  ]


def test_tpu_vm_setup():
  done = launch("tpu_vm.py", "setup", "first", *POD, "--nfs=10.0.0.2:/share", "--at=/mnt/my runs")
  *listed, pack, copy = done.stdout.partition("\ngcloud compute tpus tpu-vm ssh")[0].splitlines()
  assert pack == f"# packs the files of {ROOT} into como_jax.tar.gz" and all(
    line.endswith("--exclude-standard") for line in listed
  )
  assert copy == (
    "gcloud compute tpus tpu-vm scp como_jax.tar.gz first:como_jax.tar.gz --zone=us-east5-b "
    "--worker=all"
  )
  script = commands(done)[-1][-1].removeprefix("--command=")
  subprocess.run(["bash", "-n", "-c", script], check=True)
  lines = script.splitlines()
  assert lines[0] == "set -eo pipefail" and "setup_environment requirements-tpu.txt" in lines
  assert (
    lines[-1] == "mountpoint -q '/mnt/my runs' || sudo mount -t nfs 10.0.0.2:/share '/mnt/my runs'"
  )


def packed(folder):
  """Names in the archive of a checkout; there is no tar, as there is no GNU tar on a Mac."""
  bin, target = folder / "bin", folder / "c.tar.gz"
  bin.mkdir(exist_ok=True)
  stand_in(bin, "tar", "exit 1\n")
  with mock.patch.dict(os.environ, {"PATH": f"{bin}:{os.environ['PATH']}"}):
    tpu_slices.pack(common.Runner(False), target)
  with tarfile.open(target) as archive:
    return sorted(archive.getnames())


def test_tpu_vm_packs_what_git_would_track(tmp_path, monkeypatch):
  checkout = tmp_path / "a checkout"
  (checkout / "runs").mkdir(parents=True)
  for name in ("tracked", "deleted", "new", "ignored", "runs/log"):
    (checkout / name).write_text(name)
  (checkout / ".gitignore").write_text("ignored\nruns\n")
  monkeypatch.setattr(common, "ROOT", checkout)
  assert packed(tmp_path) == [".gitignore", "deleted", "ignored", "new", "tracked"]
  for words in (["init", "--quiet"], ["add", "tracked", "deleted", ".gitignore"]):
    subprocess.run(["git", "-C", checkout, *words], check=True)
  (checkout / "deleted").unlink()
  assert packed(tmp_path) == [".gitignore", "new", "tracked"]
  (checkout / ".git" / "HEAD").unlink()
  with pytest.raises(common.errors.UserError, match="git lists no files"):
    packed(tmp_path)


def test_tpu_vm_reaches_the_slices_at_the_same_time(tmp_path):
  """As `tail -F` does, each stand-in for ssh goes on until the other one has begun."""
  stand_in(
    tmp_path,
    "gcloud",
    f'touch "{tmp_path}/$5"; for _ in $(seq 100); do\n'
    f'  [ -e "{tmp_path}/first-0" ] && [ -e "{tmp_path}/first-1" ] && exit 0\n'
    "  sleep 0.05\ndone; exit 9\n",
  )
  words = [sys.executable, str(ROOT / "launch" / "tpu_vm.py")]
  env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
  for more in (["logs", "first", *TWO, "--worker=all"], ["run", "first", *TWO, "--", *PROGRAM]):
    done = subprocess.run(
      [*words, *more], capture_output=True, text=True, env=env, timeout=limits.SAFETY_NET
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("first-0", "first-1"):
      (tmp_path / name).unlink()
  fails = ["sh", "-c", "exit 3"]
  assert common.Runner(False).run(["true"], fails, ["true"], check=False) == 3
  with pytest.raises(common.errors.UserError, match="sh -c exit 3 ... ended with exit code 3"):
    common.Runner(False).run(["true"], fails)


def test_tpu_vm_stop_tells_one_host_and_waits_for_all():
  words = [(line[5], *line[-2:]) for line in commands(launch("tpu_vm.py", "stop", "first", *TWO))]
  do = "--command=~/como_jax_checkout/launch/detached.sh"
  assert words == [
    ("first-0", "--worker=all", f"{do} last ~/como_jax_job"),
    ("first-1", "--worker=all", f"{do} last ~/como_jax_job"),
    ("first-0", "--worker=0", f"{do} stop ~/como_jax_job"),
    ("first-0", "--worker=all", f"{do} end ~/como_jax_job 300"),
    ("first-1", "--worker=all", f"{do} end ~/como_jax_job 300"),
  ]


def test_only_delete_deletes():
  for verb, more in (
    ("create", []),
    ("setup", []),
    ("run", ["--", *PROGRAM]),
    ("logs", []),
    ("status", []),
    ("stop", []),
  ):
    assert "delete" not in launch("tpu_vm.py", verb, "first", *POD, *more).stdout
  assert launch("tpu_vm.py", "delete", "first", *POD).stdout.strip() == (
    # and gcloud asks
    "gcloud compute tpus queued-resources delete first --zone=us-east5-b --force"
  )
  assert launch("tpu_vm.py", "delete", "first", *POD, "--yes").stdout.strip().endswith("--quiet")
  assert launch("tpu_vm.py", "logs", "first", *TWO).stdout.count("ssh first-0") == 1
  assert "ssh first-1" not in launch("tpu_vm.py", "logs", "first", *TWO).stdout


@pytest.mark.parametrize(
  "words, says",
  [
    (["creat", "first", *POD], "did you mean 'create'?"),
    (["create", "First_Run", *POD], "'first-run'"),
    (["create", "first", "--zone=us-east5", "--type=v5e-16"], "expected a zone"),
    (["create", "first", "--zone=us-east5-b", "--type=v5e-12"], "did you mean 'v5e-8'?"),
    (["create", "first", "--zone=us-east5-b", "--type=v5lite-16"], "did you mean"),
    (["create", "first", "--zone=us-east5-b", "--type=tpu7x-32"], "use launch/gke.py"),
    (["create", "first", *POD, "--spott"], "did you mean '--spot'?"),
    (
      ["create", "first", "--zone=us-east5-b", "--type=v5e-16x2", "--slices=3"],
      "asks for 2 slices",
    ),
    (["create", "first", "--zone=us-east5-b"], "required: --type"),
    (["setup", "first", *POD, "--nfs=a:/b"], "--at=DIRECTORY goes with"),
    (["logs", "first", *POD, "--", "x"], "takes no arguments after --"),
    (["run", "first", *POD], "expected the program's arguments after --"),
    (
      ["run", "first", *POD, "--", "--config=configs/moton.py", "--workdir=/a"],
      "did you mean 'configs/motion.py'?",
    ),
    (["run", "first", *POD, "--", "--config=configs/motion.py"], "--workdir is missing"),
    (
      ["run", "first", *POD, "--", "--config=configs/motion.py", "--workdir=runs/a"],
      "4 hosts need one directory",
    ),
    (
      ["run", "first", *POD, "--", "--config=configs/motion.py", "--workdir=gs://b/a"],
      "mount the bucket",
    ),
    (
      ["run", "first", *POD, "--", "--config=configs/motion.py", "--workdir=/a", "--overwrite"],
      "would delete it",
    ),
  ],
)
def test_tpu_vm_refuses(words, says):
  done = launch("tpu_vm.py", *words, code=2)
  assert says in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_without_the_cloud_tool_one_line_says_so(tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / "launch" / "tpu_vm.py"), "status", "first", *POD],
    capture_output=True,
    text=True,
    env={**os.environ, "PATH": str(tmp_path)},
    timeout=limits.SAFETY_NET,
  )
  assert (
    done.returncode == 2
    and "'gcloud' is not installed here" in done.stderr
    and done.stderr.count("\n") == 1
  )


def test_the_port_and_the_cache_of_a_run():
  done = launch(
    "tpu_vm.py",
    "run",
    "first",
    *POD,
    "--coordinator-port=8476",
    "--cache=/mnt/my runs/xla",
    "--",
    *PROGRAM,
  )
  (command,) = commands(done)
  script = command[-1].removeprefix("--command=")
  assert script.startswith(
    "cd ~/como_jax_checkout && COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1 "
    "JAX_COORDINATOR_PORT=8476 JAX_COMPILATION_CACHE_DIR='/mnt/my runs/xla' launch/detached.sh "
  )
  plain = launch("tpu_vm.py", "run", "first", *POD, "--", *PROGRAM).stdout
  assert "JAX_COORDINATOR_PORT" not in plain and "JAX_COMPILATION_CACHE_DIR" not in plain
  for word, says in (
    ("--coordinator-port=70000", "--coordinator-port=70000: expected a port, for example 8476"),
    ("--coordinator-port=-1", "--coordinator-port=-1: expected a port"),
    ("--cache=xla", "--cache=xla: expected an absolute path"),
  ):
    refused = launch("tpu_vm.py", "run", "first", *POD, word, "--", *PROGRAM, code=2)
    assert says in refused.stderr and refused.stderr.count("\n") == 1
