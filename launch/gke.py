#!/usr/bin/env python3
r"""One training run on TPU slices of a GKE cluster, as a JobSet.

  launch/gke.py --name=first --type=v5e-16x2 \
      --image=REGION-docker.pkg.dev/PROJECT/como/como_jax:1 --claim=runs --at=/mnt/runs \
      -- --config=configs/motion.py --workdir=/mnt/runs/first

writes gke-first.yaml, applies it with kubectl and prints the xpk command that would do the same on
a cluster made by xpk. --dry-run prints the YAML and the commands, and runs none. The image is that
of launch/Dockerfile. The run's directory is on a volume that all hosts see: --claim (ReadWriteMany,
for example Filestore) or --bucket (Cloud Storage FUSE). Every pod runs como_jax.main under
launch/supervise.py, which adds --resume where there is a run. When a pod fails, the JobSet starts
all of them again, --restarts times; exit codes 2 (bad input) and 3 (deterministic crash) end it at
once.
"""

import dataclasses
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import common
import tpu_types
from common import errors

CONTAINER = "como-jax"
FINAL = (2, 3)  # exit codes that a restart cannot mend
NODEPOOL = "cloud.google.com/gke-nodepool"


def main(words: Sequence[str]) -> int:
  """Writes and applies the JobSet, or prints it."""
  given = _arguments(words)
  kind = tpu_types.parse(given.type, slices=given.slices)
  if given.chips_per_host:
    if kind.chips % given.chips_per_host or given.chips_per_host not in (1, 4, 8):
      raise errors.UserError(
        f"--chips-per-host={given.chips_per_host}: expected 1, 4 or 8, dividing the "
        f"{kind.chips} chips of {kind.name}"
      )
    kind = dataclasses.replace(kind, chips_per_host=given.chips_per_host)
  common.name(given.name, what="--name")
  _check(given)
  arguments = common.program(given.program, hosts=kind.hosts * kind.slices)
  if given.at and not common.value(arguments, "workdir").startswith(given.at.rstrip("/") + "/"):
    raise errors.UserError(
      f"--workdir={common.value(arguments, 'workdir')} is not below --at={given.at}: it would "
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
  text = to_yaml(jobset(given, kind, command)) + "\n"
  runner = common.Runner(given.dry_run)
  if given.dry_run:
    print(text)
  else:
    pathlib.Path(given.file).write_text(text)
    print(f"wrote {given.file}")
  runner.run(["kubectl", "apply", f"--namespace={given.namespace}", f"--filename={given.file}"])
  label = f"--selector=jobset.sigs.k8s.io/jobset-name={given.name}"
  notes = [
    ("status", ["kubectl", "get", f"--namespace={given.namespace}", "jobset,pods", label]),
    (
      "log of the first process",
      [
        "kubectl",
        "logs",
        f"--namespace={given.namespace}",
        "--follow",
        "--tail=200",
        f"{label},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0",
      ],
    ),
    (
      "stop and delete the pods (they save first)",
      ["kubectl", "delete", f"--namespace={given.namespace}", "jobset", given.name],
    ),
    ("the same by xpk", xpk(given, kind, command)),
  ]
  for title, line in notes:
    print(f"# {title}:\n#   {shlex.join(line)}")
  return 0


def jobset(given, kind: tpu_types.Slice, command: list[str]) -> dict:
  """The JobSet: a replicated job with one job a slice and one pod a host.

  Where it comes from: jobset.sigs.k8s.io (v1alpha2) and GKE's page on multislice; GKE gives each
  pod its place among the others (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, MEGASCALE_*), which is where
  jax finds them.
  """
  environment = {
    "COMO_JAX_DISTRIBUTED": "1",
    "PYTHONUNBUFFERED": "1",
    **dict(pair.split("=", 1) for pair in given.env),
  }
  # data workers hand their batches over through it
  mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
  volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
  annotations = {}
  if given.at:
    mounts.append({"name": "runs", "mountPath": given.at})
    volumes.append(
      {"name": "runs", "persistentVolumeClaim": {"claimName": given.claim}}
      if given.claim
      else {
        "name": "runs",
        "csi": {
          "driver": "gcsfuse.csi.storage.gke.io",
          "volumeAttributes": {"bucketName": given.bucket, "mountOptions": "implicit-dirs"},
        },
      }
    )
    annotations = {} if given.claim else {"gke-gcsfuse/volumes": "true"}
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": given.grace,
    "nodeSelector": {
      "cloud.google.com/gke-tpu-accelerator": kind.family.label,
      "cloud.google.com/gke-tpu-topology": kind.topology,
      **({"cloud.google.com/gke-spot": "true"} if given.spot else {}),
    },
    "tolerations": [
      {"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"},
      *(
        [{"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}]
        if given.spot
        else []
      ),
    ],
    **({"serviceAccountName": given.service_account} if given.service_account else {}),
    **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if kind.slices > 1 else {}),
    "containers": [
      {
        "name": CONTAINER,
        "image": given.image,
        "command": [_plain(word) for word in command],
        "env": [{"name": name, "value": _plain(value)} for name, value in environment.items()],
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
    "backoffLimit": 0,  # a slice has all its hosts or none
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(FINAL)},
        }
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
      "name": given.name,
      "namespace": given.namespace,
      "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": NODEPOOL},
    },
    "spec": {
      "failurePolicy": {
        "maxRestarts": given.restarts,
        "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
      },
      "replicatedJobs": [{"name": "slice", "replicas": kind.slices, "template": {"spec": job}}],
    },
  }


def xpk(given, kind: tpu_types.Slice, command: list[str]) -> list[str]:
  """The xpk command; the volume must have been attached to the cluster (xpk storage attach) under
  the name given here.
  """
  cluster = given.cluster or "CLUSTER"
  return [
    "xpk",
    "workload",
    "create",
    f"--cluster={cluster}",
    f"--workload={given.name}",
    f"--tpu-type={kind.accelerator}",
    f"--num-slices={kind.slices}",
    f"--docker-image={given.image}",
    f"--max-restarts={given.restarts}",
    f"--restart-on-exit-codes=1,{errors.Transient.code}",  # beside 42 and 127-255, its own
    f"--termination-grace-period-seconds={given.grace}",
    *(["--spot"] if given.spot else []),
    *([f"--storage={given.claim or given.bucket}"] if given.at else []),
    "--env=COMO_JAX_DISTRIBUTED=1",
    *(f"--env={pair}" for pair in given.env),
    f"--command={shlex.join(command)}",
  ]


def to_yaml(value, *, indent: int = 0) -> str:
  """Block YAML of dicts, lists, numbers, booleans and texts; texts in JSON's quotes, which YAML
  reads alike.
  """
  pad = " " * indent
  if isinstance(value, dict) and value:
    keys = [key if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", key) else json.dumps(key) for key in value]
    return "\n".join(
      f"{pad}{key}:{_below(item, indent + 2)}"
      for key, item in zip(keys, value.values(), strict=False)
    )
  if isinstance(value, list) and value:
    return "\n".join(f"{pad}- {to_yaml(item, indent=indent + 2).lstrip()}" for item in value)
  return pad + json.dumps(value, ensure_ascii=False)


def _below(value, indent: int) -> str:
  return (
    f"\n{to_yaml(value, indent=indent)}"
    if isinstance(value, (dict, list)) and value
    else f" {json.dumps(value, ensure_ascii=False)}"
  )


def _plain(text: str) -> str:
  """A text that Kubernetes takes as it is: it would put variables in place of $(NAME)."""
  return text.replace("$", "$$")


def _check(given) -> None:
  """Refuses what the cluster would refuse later, or what would lose the run."""
  if not re.fullmatch(
    r"[a-z0-9.-]+(:\d+)?(/[A-Za-z0-9._-]+)*(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?", given.image
  ):
    raise errors.UserError(f"--image={given.image!r}: expected REGISTRY/PROJECT/NAME:TAG")
  if given.claim and given.bucket:
    raise errors.UserError("--claim and --bucket exclude each other")
  if bool(given.at) != bool(given.claim or given.bucket):
    raise errors.UserError(
      "--at=DIRECTORY goes with --claim=NAME or --bucket=NAME: where the pods see the volume"
    )
  if given.at and not given.at.startswith("/"):
    raise errors.UserError(f"--at={given.at!r}: expected an absolute path")
  if given.restarts < 0 or given.grace < 1:
    raise errors.UserError(
      f"--restarts={given.restarts} and --grace={given.grace}: expected at least 0 and 1"
    )
  for pair in given.env:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", pair, re.S):
      raise errors.UserError(f"--env={pair!r}: expected NAME=VALUE")


def _arguments(words: Sequence[str]):
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
  parser.add_argument("--restarts", type=int, default=20, help="of the whole JobSet")
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
  given = parser.read(words)
  given.file = given.file or f"gke-{given.name}.yaml"
  return given


if __name__ == "__main__":
  sys.exit(common.main(main))
