#!/usr/bin/env python3
r"""One training run on GPU nodes of a Slurm cluster: writes a batch script and submits it.

  launch/slurm.py --name=first --nodes=2 --gpus-per-node=8 --time=1-00:00:00 --partition=gpu \
      -- --config=configs/motion.py --workdir=/shared/runs/first

--dry-run prints both and submits nothing.

The default is one process per GPU (--processes=gpu), which is also jax's default in a Slurm step:
task i of a node uses GPU i. Each GPU then has its own Python process for decoding, and a crash
names its GPU. --processes=node starts one process with all GPUs of a node (JAX_LOCAL_DEVICE_IDS).
This is needed for --config.train.mesh.tensor above 1, because this axis stays inside a process.

The tasks run under launch/supervise.py inside the batch script: after a crash they restart in the
same allocation, with --resume. Before the time limit, Slurm sends SIGUSR1 to the script, and the
tasks receive SIGTERM: the run saves, ends with 143, and the job is queued again. The tasks of a
preempted job receive SIGTERM from Slurm and do the same. If srun receives it too, it kills them,
and the run continues from its last checkpoint. `scancel JOB` ends the job. The virtual environment
(--python) and the run's directory must be on file systems that all nodes share.

--container-image=IMAGE runs the tasks in a container (Pyxis and enroot), of which Python and its
packages are used. This checkout and the folder of the run's directory are mounted at their own
paths; --container-mounts adds others, such as the data. The supervisor runs outside of it, with
--host-python, and needs nothing but Python 3.11.
"""

import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import common
import gpu_types
from common import errors

BATCH = """#!/bin/bash
{header}
# Written by launch/slurm.py. Goes on by itself after a time limit, a preemption or a node failure;
# scancel ends it.
set -u
{prologue}export COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1{variables}
cd {root}
# Told to stop, once: the supervisor tells the tasks to save (by scancel: srun would kill them), and
# leaves after their end.
trap 'trap : USR1; kill -TERM "$supervisor"' USR1
trap : TERM  # must not end the script before the tasks
# --kill-on-bad-exit=0, --wait: when one task has ended with 143, the others may still be saving.
{command} &
supervisor=$!
# A signal interrupts the wait.
while kill -0 "$supervisor" 2> /dev/null; do wait "$supervisor"; done
wait "$supervisor"
code=$?
# Stopped after saving: back into the queue, unless the job is being canceled.
state="$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)"
if [ "$code" = 143 ] && [ "$state" = RUNNING ]; then
  echo "saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""

# A task: srun reports the largest exit code alone, which hides a crash (1) behind what the others
# say when they have lost that process (75). $0 is the folder of the codes.
TASK = 'trap : TERM; "$@"; code=$?; echo "$code" > "$0/$SLURM_PROCID"; exit "$code"'


def main(argv: Sequence[str]) -> int:
  """Writes and submits the batch script, or prints it."""
  args = _arguments(argv)
  _check(args)
  arguments = common.program(
    args.program, hosts=args.nodes, expect=f"gpu:{args.nodes * args.gpus_per_node}"
  )
  text = batch(args, arguments)
  runner = common.Runner(args.dry_run)
  file = pathlib.Path(args.file or f"slurm-{args.name}.sh")
  if args.dry_run:
    print(text)
  else:
    file.write_text(text)
    print(f"wrote {file}")
  # Paths may contain spaces, so they are arguments: #SBATCH lines have their own quoting rules.
  runner.run(
    ["sbatch", f"--chdir={common.ROOT}", f"--output={args.logs.rstrip('/')}/%x-%j.log", str(file)]
  )
  print(
    f"# status: squeue --me --name={args.name}\n# save and go back into the queue: scancel "
    "--signal=USR1 --batch JOB\n# end: scancel JOB"
  )
  return 0


def batch(args, arguments: Sequence[str]) -> str:
  """Builds the batch script.

  Args:
    args: parsed arguments.
    arguments: of como_jax.main.
  """
  tasks = args.gpus_per_node if args.processes == "gpu" else 1
  options = {
    "job-name": args.name,
    "nodes": args.nodes,
    "ntasks-per-node": tasks,
    "gpus-per-node": args.gpus_per_node,
    "cpus-per-task": args.cpus_per_gpu * args.gpus_per_node // tasks,
    "time": args.time,
    "mem": args.memory,
    "partition": args.partition,
    "account": args.account,
    "qos": args.qos,
    "constraint": args.constraint,
    "signal": f"B:USR1@{args.warning}",
    "open-mode": "append",
  }
  header = "\n".join(
    [*(f"#SBATCH --{key}={value}" for key, value in options.items() if value), "#SBATCH --requeue"]
  )
  workdir = common.value(arguments, "workdir").rstrip("/")
  codes = f"{workdir}.supervise-codes"
  # Every task sees all GPUs of its node, and jax chooses one. Slurm's binding would renumber them.
  step = [
    "srun",
    "--kill-on-bad-exit=0",
    f"--wait={args.saving}",
    "--gpu-bind=none",
    f"--cpus-per-task={options['cpus-per-task']}",
    *_container(args, workdir),
    "bash",
    "-c",
    TASK,
    codes,
  ]
  # srun returns when all tasks have ended
  command = [
    args.host_python if args.container_image else args.python,
    "launch/supervise.py",
    "--go-on",
    "--leave-when-stopped",
    "--settle=0",
    f"--restarts-per-hour={args.restarts_per_hour}",
    f"--workdir={workdir}",
    f"--ledger={workdir}.supervise.jsonl",
    f"--codes={codes}",
    "--",
    *step,
    args.python,
    "-m",
    "como_jax.main",
    *arguments,
  ]
  variables = dict(gpu_types.NCCL[args.network]) if args.network else {}
  if args.processes == "node":
    variables["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(args.gpus_per_node)))
  if args.cache:
    variables["JAX_COMPILATION_CACHE_DIR"] = args.cache
  prologue = "".join(f"{line}\n" for line in args.before)
  return BATCH.format(
    header=header,
    prologue=prologue,
    variables="".join(f" {name}={shlex.quote(value)}" for name, value in variables.items()),
    root=shlex.quote(str(common.ROOT)),
    command=shlex.join(command),
  )


def _container(args, workdir: str) -> list[str]:
  """Options of srun for a container; [] without one."""
  if not args.container_image:
    return []
  root, runs = str(common.ROOT), str(pathlib.PurePath(workdir).parent)
  mounts = list(dict.fromkeys([f"{root}:{root}", f"{runs}:{runs}", *args.container_mounts]))
  if args.cache:
    mounts.append(f"{args.cache}:{args.cache}")
  return [
    f"--container-image={args.container_image}",
    f"--container-mounts={','.join(mounts)}",
    f"--container-workdir={root}",
    "--no-container-mount-home",
  ]


def _check(args) -> None:
  """Refuses invalid arguments."""
  common.name(args.name, what="--name")
  common.cache(args.cache)
  if args.container_mounts and not args.container_image:
    raise errors.UserError("--container-mounts goes with --container-image=IMAGE")
  if re.search(r"\s", args.container_image):
    raise errors.UserError(
      f"--container-image={args.container_image!r}: expected REGISTRY#NAME:TAG or a .sqsh file"
    )
  for mount in args.container_mounts:
    if not re.fullmatch(r"/[^:,]*:/[^:,]*(:(ro|rw))?", mount):
      raise errors.UserError(
        f"--container-mounts={mount!r}: expected /FROM:/TO or /FROM:/TO:ro, once for each"
      )
  for key, minimum in (
    ("nodes", 1),
    ("gpus_per_node", 1),
    ("cpus_per_gpu", 1),
    ("warning", 30),
    ("saving", 30),
    ("restarts_per_hour", 0),
  ):
    if getattr(args, key) < minimum:
      raise errors.UserError(
        f"--{key.replace('_', '-')}={getattr(args, key)}, expected at least {minimum}"
      )
  if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", args.time):
    raise errors.UserError(f"--time={args.time!r}: expected minutes, HH:MM:SS or D-HH:MM:SS")
  for key in ("partition", "account", "qos", "constraint", "memory"):
    if not re.fullmatch(r"[A-Za-z0-9_.,&|*+-]*", getattr(args, key)):
      raise errors.UserError(
        f"--{key}={getattr(args, key)!r}: letters, digits and _.,&|*+- are expected"
      )


def _arguments(argv: Sequence[str]):
  parser = common.Parser(prog="slurm.py", description=__doc__)
  parser.add_argument("--name", required=True)
  parser.add_argument("--nodes", type=int, default=1)
  parser.add_argument("--gpus-per-node", type=int, default=8)
  parser.add_argument("--cpus-per-gpu", type=int, default=8)
  parser.add_argument(
    "--processes",
    choices=("gpu", "node"),
    default="gpu",
    help="one a GPU, or one a node with all its GPUs",
  )
  parser.add_argument("--time", default="1-00:00:00")
  for flag in ("--partition", "--account", "--qos", "--constraint", "--memory", "--file"):
    parser.add_argument(flag, default="")
  parser.add_argument(
    "--python",
    default="",
    help="of an environment with requirements-gpu.txt (default: .venv of this checkout), or in the "
    "container (default: python)",
  )
  parser.add_argument("--container-image", default="", help="of the tasks, by Pyxis")
  parser.add_argument(
    "--container-mounts", action="append", default=[], metavar="/FROM:/TO", help="once for each"
  )
  parser.add_argument(
    "--host-python", default="python3", help="of the supervisor, beside a container"
  )
  parser.add_argument("--cache", default="", help=common.CACHE)
  parser.add_argument(
    "--network", choices=("slurm", "efa"), default="", help="settings of NCCL (gpu_types.py)"
  )
  parser.add_argument(
    "--before",
    action="append",
    default=[],
    metavar="LINE",
    help="shell line to run first, such as 'module load cuda'",
  )
  parser.add_argument("--logs", default=".", help="folder of the log; must exist")
  parser.add_argument(
    "--warning", type=int, default=180, metavar="SECONDS", help="before the time limit, to save in"
  )
  parser.add_argument(
    "--saving",
    type=int,
    default=300,
    metavar="SECONDS",
    help="the others may take after one process has ended",
  )
  parser.add_argument("--restarts-per-hour", type=int, default=10)
  parser.add_argument("--dry-run", action="store_true", help="print the script and the command")
  args = parser.read(argv)
  args.python = args.python or (
    "python" if args.container_image else str(common.ROOT / ".venv/bin/python")
  )
  return args


if __name__ == "__main__":
  sys.exit(common.main(main))
