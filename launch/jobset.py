"""The JobSet of a run on GKE: one job for each TPU slice, or one for all nodes of GPUs.

Source: jobset.sigs.k8s.io (v1alpha2), GKE's pages on multislice and on GPUs, kueue.sigs.k8s.io.
"""

import dataclasses
import json
import re
from typing import Any

import failures
import gpu_types
import tpu_types

CONTAINER = "como-jax"
NODEPOOL = "cloud.google.com/gke-nodepool"
PORT = 8476  # of the first node of GPUs
# CPUs and memory that a pod asks for, a device: less than any of the machines has
CPUS, TPU_GIB, GPU_GIB = 8, 24, 128


@dataclasses.dataclass(frozen=True)
class Pods:
  """What the machines of a run decide of its pods.

  Attributes:
    job: name of the replicated job.
    jobs: number of jobs.
    hosts: pods of a job, one on each machine.
    device: resource of the accelerator.
    devices: of it in a pod.
    gib: memory that a pod asks for, GiB a device.
    selector: labels of the nodes.
    environment: variables that tell the processes of each other.
    host_network: whether the pods use the machines' network.
  """

  job: str
  jobs: int
  hosts: int
  device: str
  devices: int
  gib: int
  selector: dict[str, str]
  environment: dict[str, Any]
  host_network: bool


def tpu(kind: tpu_types.Slice) -> Pods:
  """The pods of TPU slices.

  GKE sets environment variables in each pod (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, MEGASCALE_*),
  from which jax finds the others.
  """
  selector = {
    "cloud.google.com/gke-tpu-accelerator": kind.family.label,
    "cloud.google.com/gke-tpu-topology": kind.topology,
  }
  environment = {"COMO_JAX_DISTRIBUTED": "1"}
  return Pods(
    "slice",
    kind.slices,
    kind.hosts,
    "google.com/tpu",
    kind.chips_per_host,
    TPU_GIB,
    selector,
    environment,
    kind.slices > 1,
  )


def gpu(kind: gpu_types.Nodes, *, name: str) -> Pods:
  """The pods of GPU nodes: a process of each node has all its GPUs.

  JobSet gives the first pod a name in the cluster, and Kubernetes each pod its number.
  """
  environment: dict[str, Any] = dict(gpu_types.NCCL["gke"])
  if kind.nodes > 1:
    environment |= {
      "COMO_JAX_COORDINATOR": f"{name}-node-0-0.{name}:{PORT}",
      "COMO_JAX_PROCESSES": str(kind.nodes),
      "COMO_JAX_PROCESS_INDEX": {
        "fieldRef": {
          "fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        }
      },
    }
  selector = {"cloud.google.com/gke-accelerator": kind.family.label}
  return Pods(
    "node", 1, kind.nodes, "nvidia.com/gpu", kind.gpus, GPU_GIB, selector, environment, False
  )


def build(args, pods: Pods, command: list[str]) -> dict:
  """Builds the JobSet: a replicated job with one pod per host.

  Args:
    args: parsed arguments.
    pods: of the machines.
    command: of each pod.
  """
  environment = {
    **pods.environment,
    "PYTHONUNBUFFERED": "1",
    **({"JAX_COMPILATION_CACHE_DIR": args.cache} if args.cache else {}),
    **dict(pair.split("=", 1) for pair in args.env),
  }
  # data workers pass their batches through this shared memory
  mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
  volumes: list[dict[str, Any]] = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
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
  spot = {"cloud.google.com/gke-spot": "true"} if args.spot else {}
  # Without requests, a pod is the first to be evicted. There is no limit but that of the device:
  # one of memory would count what the data workers share.
  requests = {
    pods.device: pods.devices,
    "cpu": args.cpu or str(CPUS * pods.devices),
    "memory": args.memory or f"{pods.gib * pods.devices}Gi",
  }
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": args.grace,
    "nodeSelector": {**pods.selector, **spot},
    "tolerations": [
      {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in (pods.device, *spot)
    ],
    **({"serviceAccountName": args.service_account} if args.service_account else {}),
    **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if pods.host_network else {}),
    "containers": [
      {
        "name": CONTAINER,
        "image": args.image,
        "imagePullPolicy": args.pull,
        "command": [_escape(word) for word in command],
        "env": [_variable(name, value) for name, value in environment.items()],
        "resources": {"requests": requests, "limits": {pods.device: pods.devices}},
        "volumeMounts": mounts,
      }
    ],
    "volumes": volumes,
  }
  job = {
    "parallelism": pods.hosts,
    "completions": pods.hosts,
    "completionMode": "Indexed",  # each pod has a number
    "backoffLimit": 0,  # a run needs all its hosts, so a single pod is not restarted
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
  metadata: dict[str, Any] = {"name": args.name, "namespace": args.namespace}
  if pods.device == "google.com/tpu":  # a slice is a node pool, which belongs to one job
    metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": NODEPOOL}
  if args.queue:
    metadata["labels"] = {"kueue.x-k8s.io/queue-name": args.queue}
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": metadata,
    "spec": {
      # pods have names in the cluster before all of them are ready
      "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
      "failurePolicy": {
        "maxRestarts": args.restarts,
        "rules": [
          {
            "name": "deterministic",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
          },
          # A preemption, or a pod that came late. The supervisor bounds the restarts after unknown
          # failures (it ends with 3), by its ledger: on the volume, where it outlives the pods.
          *(
            [
              {
                "name": "transient",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["BackoffLimitExceeded"],
              }
            ]
            if args.at
            else []
          ),
        ],
      },
      "replicatedJobs": [{"name": pods.job, "replicas": pods.jobs, "template": {"spec": job}}],
    },
  }


def _variable(name: str, value: Any) -> dict[str, Any]:
  """An environment variable: a text, or where Kubernetes finds it."""
  if isinstance(value, str):
    return {"name": name, "value": _escape(value)}
  return {"name": name, "valueFrom": value}


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
