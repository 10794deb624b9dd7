"""What launch/slurm.py would do, word for word, and what it refuses.

Its batch script runs here with stand-ins for the cluster.
"""

import os
import shlex
import signal
import subprocess
import sys

import pytest

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
