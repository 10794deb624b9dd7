#!/usr/bin/env python3
r"""One training run on TPU slices of a GKE cluster, as a JobSet.

  launch/gke.py --name=first --type=v5e-16x2 \
      --image=REGION-docker.pkg.dev/PROJECT/como/como_jax:1 --claim=runs --at=/mnt/runs \
      -- --config=configs/motion.py --workdir=/mnt/runs/first

writes gke-first.yaml, applies it with kubectl and prints the equivalent xpk command for a cluster
made by xpk. --dry-run prints the YAML and the commands, and runs none. The image is built from
launch/Dockerfile. The run's directory is on a volume that all hosts share: --claim (ReadWriteMany,
for example Filestore) or --bucket (Cloud Storage FUSE). Every pod runs como_jax.main under
launch/supervise.py, which adds --resume where the directory contains a run. When a pod fails, is
preempted or comes late, the JobSet restarts all pods, without limit; at most --restarts times where
there is no volume. Exit codes 2 (bad input) and 3 (a deterministic failure, or too many unknown
ones without a new step) end it at once. This needs a JobSet controller with rules of failure
policies, and Kubernetes 1.31 or newer.
"""

import dataclasses
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import common
import failures
import tpu_types
from common import errors

CONTAINER = "como-jax"
NODEPOOL = "cloud.google.com/gke-nodepool"


def main(argv: Sequence[str]) -> int:
  """Writes and applies the JobSet, or prints it."""
  args = _arguments(argv)
  kind = tpu_types.parse(args.type, slices=args.slices)
  if args.chips_per_host:
    if kind.chips % args.chips_per_host or args.chips_per_host not in (1, 4, 8):
      raise errors.UserError(
        f"--chips-per-host={args.chips_per_host}: expected 1, 4 or 8, dividing the "
        f"{kind.chips} chips of {kind.name}"
      )
    kind = dataclasses.replace(kind, chips_per_host=args.chips_per_host)
  common.name(args.name, what="--name")
  _check(args)
  arguments = common.program(args.program, hosts=kind.hosts * kind.slices, expect="tpu")
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
  text = to_yaml(jobset(args, kind, command)) + "\n"
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
    ("the same by xpk", xpk(args, kind, command)),
  ]
  for title, line in notes:
    print(f"# {title}:\n#   {shlex.join(line)}")
  return 0


def jobset(args, kind: tpu_types.Slice, command: list[str]) -> dict:
  """Builds the JobSet: a replicated job with one job per slice and one pod per host.

  Source: jobset.sigs.k8s.io (v1alpha2) and GKE's page on multislice. GKE sets environment variables
  in each pod (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, MEGASCALE_*), from which jax finds the others.

  Args:
    args: parsed arguments.
    kind: the slices.
    command: of each pod.
  """
  environment = {
    "COMO_JAX_DISTRIBUTED": "1",
    "PYTHONUNBUFFERED": "1",
    **dict(pair.split("=", 1) for pair in args.env),
  }
  # data workers pass their batches through this shared memory
  mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
  volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
  annotations = {}
  if args.at:
    mounts.append({"name": "runs", "mountPath": args.at})
    volumes.append(
      {"name": "runs", "persistentVolumeClaim": {"claimName": args.claim}}
      if args.claim
      else {
        "name": "runs",
        "csi": {
          "driver": "gcsfuse.csi.storage.gke.io",
          "volumeAttributes": {"bucketName": args.bucket, "mountOptions": "implicit-dirs"},
        },
      }
    )
    annotations = {} if args.claim else {"gke-gcsfuse/volumes": "true"}
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": args.grace,
    "nodeSelector": {
      "cloud.google.com/gke-tpu-accelerator": kind.family.label,
      "cloud.google.com/gke-tpu-topology": kind.topology,
      **({"cloud.google.com/gke-spot": "true"} if args.spot else {}),
    },
    "tolerations": [
      {"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"},
      *(
        [{"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}]
        if args.spot
        else []
      ),
    ],
    **({"serviceAccountName": args.service_account} if args.service_account else {}),
    **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if kind.slices > 1 else {}),
    "containers": [
      {
        "name": CONTAINER,
        "image": args.image,
        "command": [_escape(word) for word in command],
        "env": [{"name": name, "value": _escape(value)} for name, value in environment.items()],
        "resources": {
          "requests": {"google.com/tpu": kind.chips_per_host},
          "limits": {"google.com/tpu": kind.chips_per_host},
        },
        "volumeMounts": mounts,
      }
    ],
    "volumes": volumes,
  }
  job = {
    "parallelism": kind.hosts,
    "completions": kind.hosts,
    "backoffLimit": 0,  # a slice needs all its hosts, so a single pod is not restarted
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {
            "containerName": CONTAINER,
            "operator": "In",
            "values": list(failures.FINAL),
          },
        },
        # a preempted or drained node: the pod is made again, and the job has not failed
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
      ]
    },
    "template": {
      **({"metadata": {"annotations": annotations}} if annotations else {}),
      "spec": pod,
    },
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": args.name,
      "namespace": args.namespace,
      "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": NODEPOOL},
    },
    "spec": {
      "failurePolicy": {
        "maxRestarts": args.restarts,
        "rules": [
          {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
          # A preemption, or a pod that came late. The supervisor bounds the restarts after unknown
          # failures (it ends with 3), by its ledger: on the volume, where it outlives the pods.
          *(
            [
              {
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["BackoffLimitExceeded"],
              }
            ]
            if args.at
            else []
          ),
        ],
      },
      "replicatedJobs": [{"name": "slice", "replicas": kind.slices, "template": {"spec": job}}],
    },
  }


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
    *(f"--env={pair}" for pair in args.env),
    f"--command={shlex.join(command)}",
  ]


def to_yaml(value, *, indent: int = 0) -> str:
  """Formats dicts, lists, numbers, booleans and strings as block YAML.

  Strings are quoted as in JSON, which is valid YAML.

  Args:
    value: to format.
    indent: spaces before each line.
  """
  pad = " " * indent
  if isinstance(value, dict) and value:
    keys = [key if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", key) else json.dumps(key) for key in value]
    return "\n".join(
      f"{pad}{key}:{_nested_yaml(item, indent + 2)}"
      for key, item in zip(keys, value.values(), strict=False)
    )
  if isinstance(value, list) and value:
    return "\n".join(f"{pad}- {to_yaml(item, indent=indent + 2).lstrip()}" for item in value)
  return pad + json.dumps(value, ensure_ascii=False)


def _nested_yaml(value, indent: int) -> str:
  """A value after "key:": on the next lines if it is a nonempty dict or list, else on the same."""
  return (
    f"\n{to_yaml(value, indent=indent)}"
    if isinstance(value, (dict, list)) and value
    else f" {json.dumps(value, ensure_ascii=False)}"
  )


def _escape(text: str) -> str:
  """Escapes "$", because Kubernetes would replace $(NAME) by a variable."""
  return text.replace("$", "$$")


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
  for pair in args.env:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", pair, re.S):
      raise errors.UserError(f"--env={pair!r}: expected NAME=VALUE")


def _arguments(argv: Sequence[str]):
  parser = common.Parser(prog="gke.py", description=__doc__)
  for flag in ("--name", "--type", "--image"):
    parser.add_argument(flag, required=True)
  for flag in ("--claim", "--bucket", "--at", "--service-account", "--cluster", "--file"):
    parser.add_argument(flag, default="")
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
