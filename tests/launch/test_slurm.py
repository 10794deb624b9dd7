"""What launch/slurm.py would do, word for word, and what it refuses.

Its batch script runs here with stand-ins for the cluster.
"""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
import slurm

from tests import limits
from tests.launch.dry_run import FAKE, PROGRAM, ROOT, launch, stand_in


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
    "--codes=/mnt/my runs/first.supervise-codes",
    "--",
    "srun",
    "--kill-on-bad-exit=0",
    "--wait=300",
    "--gpu-bind=none",
    "--cpus-per-task=8",
    "bash",
    "-c",
    slurm.TASK,
    "/mnt/my runs/first.supervise-codes",
    "/e n v/python",
    "-m",
    "como_jax.main",
    *PROGRAM,
    "--expect=gpu:16",
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


def step(*words):
  """The words of the supervisor and of srun in the script of a dry run."""
  script = launch("slurm.py", "--name=first", *words, "--", *PROGRAM).stdout
  subprocess.run(["bash", "-n", "-c", script.partition("\n\nsbatch ")[0]], check=True)
  line = next(line for line in script.splitlines() if "supervise.py" in line)
  return shlex.split(line.removesuffix(" &")), script


def test_slurm_in_a_container():
  """The supervisor stays outside; srun starts the tasks in the image, which sees the same paths."""
  words, script = step(
    "--container-image=nvcr.io#nvidia/jax:25.10-py3",
    "--container-mounts=/data:/data:ro",
    "--container-mounts=/mnt/my runs:/mnt/my runs",
    "--cache=/shared/xla",
    "--network=efa",
  )
  assert words[:2] == ["python3", "launch/supervise.py"]
  srun = words[words.index("srun") :]
  assert srun[4:10] == [
    "--cpus-per-task=8",
    "--container-image=nvcr.io#nvidia/jax:25.10-py3",
    f"--container-mounts={ROOT}:{ROOT},/mnt/my runs:/mnt/my runs,/data:/data:ro,"
    "/shared/xla:/shared/xla",
    f"--container-workdir={ROOT}",
    "--no-container-mount-home",
    "bash",
  ]
  assert srun[srun.index("como_jax.main") - 2 : srun.index("como_jax.main")] == ["python", "-m"]
  exported = next(line for line in script.splitlines() if line.startswith("export "))
  assert exported == (
    "export COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1 NCCL_DEBUG=WARN FI_PROVIDER=efa "
    "FI_EFA_USE_DEVICE_RDMA=1 JAX_COMPILATION_CACHE_DIR=/shared/xla"
  )


def test_slurm_in_a_container_with_other_pythons():
  words, _ = step("--container-image=/images/a.sqsh", "--python=/opt/p", "--host-python=/usr/p")
  assert words[0] == "/usr/p"
  assert words[words.index("como_jax.main") - 2] == "/opt/p"
  words, _ = step("--network=slurm")
  assert words[0] == words[words.index("como_jax.main") - 2] == f"{ROOT}/.venv/bin/python"
  assert not [word for word in words if "container" in word]


@pytest.mark.parametrize(
  "words, says",
  [
    (["--name=first", "--container-mounts=/a:/b"], "goes with --container-image=IMAGE"),
    (["--name=first", "--container-image=a b"], "--container-image='a b': expected REGISTRY#"),
    (
      ["--name=first", "--container-image=a", "--container-mounts=data"],
      "--container-mounts='data': expected /FROM:/TO",
    ),
    (["--name=first", "--cache=gs://bucket"], "--cache=gs://bucket: expected an absolute path"),
    (["--name=first", "--network=ib"], "invalid choice: 'ib'"),
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


def test_a_crash_counts_before_what_the_other_tasks_say(tmp_path):
  """srun reports the largest exit code: 75 of the task that has lost the one that crashed (1)."""
  bin, runs = tmp_path / "bin", tmp_path / "my runs"
  bin.mkdir()
  runs.mkdir()
  # srun: two tasks; the largest code, as Slurm has it
  stand_in(
    bin,
    "srun",
    'while [ "${1#--}" != "$1" ]; do shift; done\nworst=0\nfor i in 0 1; do SLURM_PROCID=$i "$@"; '
    "code=$?; [ $code -gt $worst ] && worst=$code; done\nexit $worst\n",
  )
  # the program: task 0 crashes, task 1 has lost it
  stand_in(
    bin,
    "python",
    f'[ "$1" = launch/supervise.py ] && exec {sys.executable} "$@"\n'
    f'echo "$@" >> "{tmp_path}/words"; [ $SLURM_PROCID = 0 ] && exit 1; exit 75\n',
  )
  stand_in(bin, "squeue", "echo RUNNING\n")
  text = launch(
    "slurm.py",
    "--name=first",
    f"--python={bin}/python",
    "--",
    "--config=configs/motion.py",
    f"--workdir={runs}/first",
  ).stdout.partition("\n\nsbatch ")[0]
  done = subprocess.run(
    ["bash", "-c", text.replace("--go-on", "--go-on --first-pause=0.01")],
    env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == 3, done.stderr
  lines = [json.loads(line) for line in (runs / "first.supervise.jsonl").read_text().splitlines()]
  ends = [(line["code"], line["next"]) for line in lines if line["event"] == "end"]
  assert [code for code, _ in ends] == [1, 1] and ends[1][1] == "leave with 3"
  words = (tmp_path / "words").read_text().splitlines()
  assert len(words) == 4 and f"--workdir={runs}/first" in words[0]
