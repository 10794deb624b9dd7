"""What the launchers would do (--dry-run), word for word, and what they refuse.

Their scripts run here with stand-ins for the cluster.
"""

import contextlib
import importlib
import io
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tarfile
from unittest import mock

import pytest
import yaml

sys.path.append(str(pathlib.Path(__file__).parent.parent.parent / "launch"))

import common
import tpu_vm

from tests import limits

ROOT = pathlib.Path(__file__).parent.parent.parent
FAKE = pathlib.Path(__file__).parent / "fake.py"
PROGRAM = ["--config=configs/motion.py", "--config.tasks=('a','b')", "--workdir=/mnt/my runs/first"]
POD = ["--zone=us-east5-b", "--type=v5e-16"]
TWO = ["--zone=us-east5-b", "--type=v5e-16x2", "--project=p"]
IMAGE = "--image=us-docker.pkg.dev/p/como/como_jax:1"
GKE = ["--name=first", IMAGE, "--claim=runs", "--at=/mnt/my runs"]


def launch(script, *words, code=0):
  """A dry run, in this process: starting Python some sixty times would be most of the time."""
  cut = words.index("--") if "--" in words else len(words)
  out, err = io.StringIO(), io.StringIO()
  argv = [script, *words[:cut], "--dry-run", *words[cut:]]
  with (
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(sys, "argv", argv),
  ):
    found = common.main(importlib.import_module(script.removesuffix(".py")).main)
  assert found == code, out.getvalue() + err.getvalue()
  return subprocess.CompletedProcess(argv, found, out.getvalue(), err.getvalue())


def commands(done):
  """The printed gcloud commands as lists of words, as a shell would read them."""
  words = shlex.split(done.stdout)
  begins = [i for i, word in enumerate(words) if word == "gcloud"]
  return [words[i:j] for i, j in zip(begins, [*begins[1:], None], strict=False)]


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
  assert shlex.split(script)[8:] == [
    ".venv/bin/python",
    "launch/supervise.py",
    "--go-on",
    "--restarts-per-hour=10",
    "--",
    ".venv/bin/python",
    "-m",
    "como_jax.main",
    *PROGRAM,
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
    tpu_vm.pack(common.Runner(False), target)
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


def jobset(*words):
  done = launch("gke.py", *words, "--", *PROGRAM)
  text, _, rest = done.stdout.partition("\n\nkubectl ")
  return yaml.safe_load(text), "kubectl " + rest


def test_gke_jobset():
  found, rest = jobset(*GKE, "--type=v5e-16x2", "--spot", "--env=TEXT=a: 'b' $(c)\n#d")
  spec = found["spec"]
  assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (
    "jobset.x-k8s.io/v1alpha2",
    "JobSet",
    "first",
  )
  assert spec["failurePolicy"] == {
    "maxRestarts": 20,
    "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
  }
  (job,) = spec["replicatedJobs"]
  assert job["replicas"] == 2 and (
    job["template"]["spec"]["parallelism"],
    job["template"]["spec"]["completions"],
  ) == (4, 4)
  assert job["template"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3]
  pod = job["template"]["spec"]["template"]["spec"]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "4x4",
    "cloud.google.com/gke-spot": "true",
  }
  (container,) = pod["containers"]
  assert container["command"] == [
    "python",
    "launch/supervise.py",
    "--go-on",
    "--restarts-per-hour=0",
    "--",
    "python",
    "-m",
    "como_jax.main",
    *PROGRAM,
  ]
  assert container["env"] == [
    {"name": "COMO_JAX_DISTRIBUTED", "value": "1"},
    {"name": "PYTHONUNBUFFERED", "value": "1"},
    # Kubernetes makes one $ of two
    {"name": "TEXT", "value": "a: 'b' $$(c)\n#d"},
  ]
  assert (
    container["resources"]["limits"] == {"google.com/tpu": 4}
    and pod["restartPolicy"] == "Never"
    and pod["hostNetwork"] is True
  )
  assert pod["volumes"][1] == {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
  assert container["volumeMounts"][1] == {"name": "runs", "mountPath": "/mnt/my runs"}
  lines = rest.splitlines()
  assert lines[0] == "kubectl apply --namespace=default --filename=gke-first.yaml"
  xpk = shlex.split(rest[rest.index("xpk workload") :])
  assert {
    "--tpu-type=v5litepod-16",
    "--num-slices=2",
    "--max-restarts=20",
    "--restart-on-exit-codes=1,75",
    "--spot",
    "--storage=runs",
  } <= set(xpk)
  assert shlex.split(xpk[-1].removeprefix("--command="))[-3:] == PROGRAM


@pytest.mark.parametrize(
  "kind, hosts, chips, topology, label",
  [
    ("v5e-1", 1, 1, "1x1", "tpu-v5-lite-podslice"),
    ("v5e-8", 1, 8, "2x4", "tpu-v5-lite-podslice"),
    ("v5e-256", 64, 4, "16x16", "tpu-v5-lite-podslice"),
    ("v6e-64", 16, 4, "8x8", "tpu-v6e-slice"),
    ("v4-32", 4, 4, "2x2x4", "tpu-v4-podslice"),
    ("v5p-128", 16, 4, "4x4x4", "tpu-v5p-slice"),
    ("tpu7x-32", 4, 4, "2x2x4", "tpu7x"),
    ("v5litepod-16", 4, 4, "4x4", "tpu-v5-lite-podslice"),
  ],
)
def test_gke_kinds_of_slices(kind, hosts, chips, topology, label):
  found, _ = jobset(*GKE, f"--type={kind}")
  (job,) = found["spec"]["replicatedJobs"]
  pod = job["template"]["spec"]["template"]["spec"]
  assert job["template"]["spec"]["completions"] == hosts and "hostNetwork" not in pod
  assert pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == chips
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": label,
    "cloud.google.com/gke-tpu-topology": topology,
  }


def test_gke_bucket():
  found, _ = jobset(
    "--name=first",
    IMAGE,
    "--bucket=b",
    "--at=/mnt/my runs",
    "--type=v5e-8",
    "--chips-per-host=4",
    "--service-account=s",
  )
  template = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
  assert found["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == 2
  assert (
    template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    and template["spec"]["serviceAccountName"] == "s"
  )
  assert template["spec"]["volumes"][1]["csi"]["volumeAttributes"]["bucketName"] == "b"


@pytest.mark.parametrize(
  "words, says",
  [
    (["--name=First", IMAGE, "--type=v5e-16"], "'first'"),
    (["--name=first", "--image=a b", "--type=v5e-16"], "--image='a b'"),
    (
      ["--name=first", IMAGE, "--type=v5e-16", "--claim=a", "--bucket=b", "--at=/mnt"],
      "exclude each other",
    ),
    (["--name=first", IMAGE, "--type=v5e-16", "--claim=a"], "--at=DIRECTORY goes with"),
    (["--name=first", IMAGE, "--type=v5e-16", "--claim=a", "--at=/other"], "is not below --at"),
    (["--name=first", IMAGE, "--type=v5e-16", "--env=a"], "expected NAME=VALUE"),
    (["--name=first", IMAGE, "--tpe=v5e-16", "--type=v5e-16"], "did you mean '--type'?"),
  ],
)
def test_gke_refuses(words, says):
  done = launch("gke.py", *words, "--", *PROGRAM, code=2)
  assert says in done.stderr and done.stderr.count("\n") == 1


def test_gke_image_holds_what_a_pod_runs():
  text = (ROOT / "launch" / "Dockerfile").read_text()
  for folder in ("como_jax", "configs", "launch"):
    assert f"COPY {folder} {folder}" in text
  assert (
    ROOT / "requirements-tpu.txt"
  ).is_file() and "ARG REQUIREMENTS=requirements-tpu.txt" in text


def test_slurm_script():
  done = launch(
    "slurm.py",
    "--name=first",
    "--nodes=2",
    "--partition=gpu",
    "--time=04:00:00",
    "--before=module load cuda",
    "--python=/e n v/python",
    "--logs=/my logs",
    "--",
    *PROGRAM,
  )
  script, _, rest = done.stdout.partition("\n\nsbatch ")
  subprocess.run(["bash", "-n", "-c", script], check=True)
  header = [
    line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")
  ]
  assert header == [
    "job-name=first",
    "nodes=2",
    "ntasks-per-node=8",
    "gpus-per-node=8",
    "cpus-per-task=8",
    "time=04:00:00",
    "partition=gpu",
    "signal=B:USR1@180",
    "open-mode=append",
    "requeue",
  ]
  assert "module load cuda\nexport COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1\n" in script
  command = next(line for line in script.splitlines() if "supervise.py" in line).removesuffix(" &")
  assert shlex.split(command) == [
    "/e n v/python",
    "launch/supervise.py",
    "--go-on",
    "--leave-when-stopped",
    "--settle=0",
    "--restarts-per-hour=10",
    "--workdir=/mnt/my runs/first",
    "--ledger=/mnt/my runs/first.supervise.jsonl",
    "--",
    "srun",
    "--kill-on-bad-exit=0",
    "--wait=300",
    "--gpu-bind=none",
    "--cpus-per-task=8",
    "/e n v/python",
    "-m",
    "como_jax.main",
    *PROGRAM,
  ]
  assert shlex.split(rest.splitlines()[0]) == [
    f"--chdir={ROOT}",
    "--output=/my logs/%x-%j.log",
    "slurm-first.sh",
  ]


def test_slurm_one_process_a_node():
  script = launch(
    "slurm.py", "--name=first", "--gpus-per-node=4", "--processes=node", "--", *PROGRAM
  ).stdout
  assert (
    "#SBATCH --ntasks-per-node=1\n" in script
    and "#SBATCH --cpus-per-task=32\n" in script
    and "JAX_LOCAL_DEVICE_IDS=0,1,2,3\n" in script
  )


@pytest.mark.parametrize(
  "words, says",
  [
    (["--name=first", "--time=soon"], "--time='soon'"),
    (["--name=first", "--nodes=0"], "--nodes=0"),
    (["--name=first", "--partition=a b"], "--partition"),
    (["--name=first", "--process=node"], "did you mean '--processes'?"),
    (["--name=first", "--processes=both"], "invalid choice: 'both'"),
  ],
)
def test_slurm_refuses(words, says):
  done = launch("slurm.py", *words, "--", *PROGRAM, code=2)
  assert says in done.stderr and done.stderr.count("\n") == 1


def stand_in(folder, name, text):
  file = folder / name
  file.write_text("#!/bin/bash\n" + text)
  file.chmod(0o755)


@pytest.mark.parametrize(
  "number, state, requeued",
  [
    (signal.SIGUSR1, "RUNNING", True),
    (signal.SIGUSR1, "COMPLETING", False),
    (signal.SIGTERM, "RUNNING", True),
  ],
)
def test_slurm_script_saves_and_goes_back_into_the_queue(tmp_path, number, state, requeued):
  """The batch script itself, with a fake srun, scancel, squeue and scontrol around the fake run.
  srun kills its tasks on a SIGTERM.
  """
  runs, bin = tmp_path / "my runs", tmp_path / "bin"
  runs.mkdir()
  bin.mkdir()
  stand_in(
    bin,
    "srun",
    f'echo $PPID > "{tmp_path}/supervisor"\n'
    # all that the fake run takes
    '[ "${@: -1}" = --resume ] && set -- --resume || set --\n'
    f'{sys.executable} -S {FAKE} "{runs}/first" wait,done "$@" &\n'
    f'echo $! > "{tmp_path}/task"; trap "kill -9 $!; exit 137" TERM; wait $!\n',
  )
  stand_in(
    bin, "scancel", f'[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat "{tmp_path}/task")"\n'
  )
  stand_in(bin, "squeue", f"echo {state}\n")
  stand_in(bin, "scontrol", f'echo "$*" >> "{tmp_path}/requeued"\n')
  script = launch(
    "slurm.py",
    "--name=first",
    f"--python={sys.executable}",
    "--",
    "--config=configs/motion.py",
    f"--workdir={runs}/first",
  ).stdout.partition("\n\nsbatch ")[0]
  env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
  process = subprocess.Popen(
    ["bash", "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )
  assert limits.wait_until((runs / "first" / "metrics.jsonl").exists, while_alive=process)
  if number == signal.SIGTERM:
    os.kill(int((tmp_path / "supervisor").read_text()), number)
  process.send_signal(number)
  out, _ = process.communicate(timeout=limits.SAFETY_NET)
  assert process.returncode == 143, out
  assert (tmp_path / "requeued").exists() == requeued
  if requeued:
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    # what the queue does then
    again = subprocess.run(
      ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=limits.SAFETY_NET
    )
    assert again.returncode == 0, again.stderr
    assert (runs / "first.starts").read_text() == "\n--resume\n"


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


def test_scripts_run_by_hand_and_parse():
  for name in (
    "tpu_vm.py",
    "gke.py",
    "slurm.py",
    "supervise.py",
    "local_processes.py",
    "detached.sh",
  ):
    assert os.access(ROOT / "launch" / name, os.X_OK), name
  subprocess.run(["bash", "-n", ROOT / "launch" / "detached.sh"], check=True)
  for path in (ROOT / "launch").iterdir():
    assert path.is_dir() or len(path.read_text().splitlines()) <= 350, path


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
