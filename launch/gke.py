#!/usr/bin/env python3
r"""One training run on TPU slices or GPU nodes of a GKE cluster, as a JobSet.

  launch/gke.py --name=first --type=v5e-16x2 \
      --image=REGION-docker.pkg.dev/PROJECT/como/como_jax:1 --claim=runs --at=/mnt/runs \
      -- --config=configs/motion.py --workdir=/mnt/runs/first

writes gke-first.yaml, applies it with kubectl and prints the equivalent xpk command for a cluster
made by xpk. --dry-run prints the YAML and the commands, and runs none. --type=h100-8x2 is two nodes
of eight GPUs (gpu_types.py), with one process on each node. The image is built from
launch/Dockerfile. The run's directory is on a volume that all hosts share: --claim (ReadWriteMany,
for example Filestore) or --bucket (Cloud Storage FUSE). Every pod runs como_jax.main under
launch/supervise.py, which adds --resume where the directory contains a run. When a pod fails, is
preempted or comes late, the JobSet restarts all pods, without limit; at most --restarts times where
there is no volume. Exit codes 2 (bad input) and 3 (a deterministic failure, or too many unknown
ones without a new step) end it at once. This needs a JobSet controller with rules of failure
policies, and Kubernetes 1.31 or newer.
"""

import dataclasses
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import common
import gpu_types
import jobset
import tpu_types
from common import errors


def main(argv: Sequence[str]) -> int:
  """Writes and applies the JobSet, or prints it."""
  args = _arguments(argv)
  gpu = gpu_types.parse(args.type) if gpu_types.is_gpu(args.type) else None
  tpu = None if gpu else _slices(args)
  common.name(args.name, what="--name")
  _check(args)
  if gpu:
    if args.slices or args.chips_per_host:
      raise errors.UserError("--slices and --chips-per-host are for TPUs: say --type=h100-8x2")
    pods, expect = jobset.gpu(gpu, name=args.name), f"gpu:{gpu.gpus * gpu.nodes}"
  else:
    pods, expect = jobset.tpu(tpu), "tpu"
  arguments = common.program(args.program, hosts=pods.hosts * pods.jobs, expect=expect)
  if args.at and not common.value(arguments, "workdir").startswith(args.at.rstrip("/") + "/"):
    raise errors.UserError(
      f"--workdir={common.value(arguments, 'workdir')} is not below --at={args.at}: it would "
      "be lost with the pod"
    )
  command = [
    "python",
    "launch/supervise.py",
    "--go-on",
    "--restarts-per-hour=0",
    "--",
    "python",
    "-m",
    "como_jax.main",
    *arguments,
  ]
  text = jobset.to_yaml(jobset.build(args, pods, command)) + "\n"
  runner = common.Runner(args.dry_run)
  if args.dry_run:
    print(text)
  else:
    pathlib.Path(args.file).write_text(text)
    print(f"wrote {args.file}")
  runner.run(["kubectl", "apply", f"--namespace={args.namespace}", f"--filename={args.file}"])
  label = f"--selector=jobset.sigs.k8s.io/jobset-name={args.name}"
  notes = [
    ("status", ["kubectl", "get", f"--namespace={args.namespace}", "jobset,pods", label]),
    (
      "log of the first process",
      [
        "kubectl",
        "logs",
        f"--namespace={args.namespace}",
        "--follow",
        "--tail=200",
        f"{label},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0",
      ],
    ),
    (
      "stop and delete the pods (they save first)",
      ["kubectl", "delete", f"--namespace={args.namespace}", "jobset", args.name],
    ),
  ]
  if tpu:
    notes.append(("the same by xpk", xpk(args, tpu, command)))
  for title, line in notes:
    print(f"# {title}:\n#   {shlex.join(line)}")
  return 0


def _slices(args) -> tpu_types.Slice:
  """The slices of --type, --slices and --chips-per-host."""
  kind = tpu_types.parse(args.type, slices=args.slices)
  if not args.chips_per_host:
    return kind
  if kind.chips % args.chips_per_host or args.chips_per_host not in (1, 4, 8):
    raise errors.UserError(
      f"--chips-per-host={args.chips_per_host}: expected 1, 4 or 8, dividing the "
      f"{kind.chips} chips of {kind.name}"
    )
  return dataclasses.replace(kind, chips_per_host=args.chips_per_host)


def xpk(args, kind: tpu_types.Slice, command: list[str]) -> list[str]:
  """Builds the equivalent xpk command.

  The volume must be attached to the cluster (xpk storage attach) under the name of --claim or
  --bucket.

  Args:
    args: parsed arguments.
    kind: the slices.
    command: of each pod.
  """
  cluster = args.cluster or "CLUSTER"
  return [
    "xpk",
    "workload",
    "create",
    f"--cluster={cluster}",
    f"--workload={args.name}",
    f"--tpu-type={kind.accelerator}",
    f"--num-slices={kind.slices}",
    f"--docker-image={args.image}",
    f"--max-restarts={args.restarts}",
    f"--restart-on-exit-codes=1,{errors.TransientError.code}",  # xpk adds 42 and 127-255 itself
    f"--termination-grace-period-seconds={args.grace}",
    *(["--spot"] if args.spot else []),
    *([f"--storage={args.claim or args.bucket}"] if args.at else []),
    "--env=COMO_JAX_DISTRIBUTED=1",
    *([f"--env=JAX_COMPILATION_CACHE_DIR={args.cache}"] if args.cache else []),
    *(f"--env={pair}" for pair in args.env),
    f"--command={shlex.join(command)}",
  ]


def _check(args) -> None:
  """Refuses arguments that the cluster would refuse later, or that would lose the run."""
  if not re.fullmatch(
    r"[a-z0-9.-]+(:\d+)?(/[A-Za-z0-9._-]+)*(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?", args.image
  ):
    raise errors.UserError(f"--image={args.image!r}: expected REGISTRY/PROJECT/NAME:TAG")
  if args.claim and args.bucket:
    raise errors.UserError("--claim and --bucket exclude each other")
  if bool(args.at) != bool(args.claim or args.bucket):
    raise errors.UserError(
      "--at=DIRECTORY goes with --claim=NAME or --bucket=NAME: where the pods see the volume"
    )
  if args.at and not args.at.startswith("/"):
    raise errors.UserError(f"--at={args.at!r}: expected an absolute path")
  if args.restarts < 0 or args.grace < 1:
    raise errors.UserError(
      f"--restarts={args.restarts} and --grace={args.grace}: expected at least 0 and 1"
    )
  common.cache(args.cache)
  if args.queue:
    common.name(args.queue, what="--queue", longest=63)
  for key, form, example in (
    ("cpu", r"\d+m?|\d+\.\d+", "16"),
    ("memory", r"\d+(\.\d+)?([KMGTP]i?)?", "96Gi"),
  ):
    if getattr(args, key) and not re.fullmatch(form, getattr(args, key)):
      raise errors.UserError(
        f"--{key}={getattr(args, key)!r}: expected an amount such as {example!r}"
      )
  for pair in args.env:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", pair, re.S):
      raise errors.UserError(f"--env={pair!r}: expected NAME=VALUE")


def _arguments(argv: Sequence[str]):
  parser = common.Parser(prog="gke.py", description=__doc__)
  for flag in ("--name", "--type", "--image"):
    parser.add_argument(flag, required=True)
  for flag in ("--claim", "--bucket", "--at", "--service-account", "--cluster", "--file"):
    parser.add_argument(flag, default="")
  for flag, text in (
    ("--cpu", f"CPUs that a pod asks for; default: {jobset.CPUS} a device"),
    (
      "--memory",
      f"memory that a pod asks for; default: {jobset.TPU_GIB}Gi a TPU, {jobset.GPU_GIB}Gi a GPU",
    ),
    ("--queue", "local queue of Kueue"),
    ("--cache", common.CACHE),
  ):
    parser.add_argument(flag, default="", help=text)
  parser.add_argument(
    "--pull", choices=("IfNotPresent", "Always", "Never"), default="IfNotPresent", help="the image"
  )
  parser.add_argument("--namespace", default="default")
  parser.add_argument("--slices", type=int, default=0)
  parser.add_argument(
    "--chips-per-host",
    type=int,
    default=0,
    help="where the node pool's machines differ from the usual ones",
  )
  parser.add_argument(
    "--restarts", type=int, default=20, help="for other reasons than a failed pod"
  )
  parser.add_argument(
    "--grace",
    type=int,
    default=120,
    metavar="SECONDS",
    help="between SIGTERM and the end of a pod (a spot node gives 25)",
  )
  parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
  for flag in ("--spot", "--dry-run"):
    parser.add_argument(flag, action="store_true")
  args = parser.read(argv)
  args.file = args.file or f"gke-{args.name}.yaml"
  return args


if __name__ == "__main__":
  sys.exit(common.main(main))
