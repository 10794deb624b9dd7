"""GPU nodes of GKE by name: h100-8x2 is two nodes of eight GPUs. NCCL's settings for each launcher.

Labels and machine types: cloud.google.com/kubernetes-engine/docs/how-to/gpus (read November 2026).
"""

import dataclasses
import re

from common import errors

# Environment of a process, by where it runs; --env (or --before on Slurm) overrides them. The rest
# is NCCL's own choice. GPUDirect on GKE (TCPX, TCPXO, RDMA) needs its plugin on the nodes, whose
# nccl-env-profile.sh has its settings.
NCCL = {
  # NCCL says why it cannot start; in a pod, eth0 is the network that all pods are on
  "gke": {"NCCL_DEBUG": "WARN", "NCCL_SOCKET_IFNAME": "eth0"},
  "slurm": {"NCCL_DEBUG": "WARN"},
  # Amazon's network adapters: libfabric with memory of the GPU
  "efa": {"NCCL_DEBUG": "WARN", "FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"},
}


@dataclasses.dataclass(frozen=True)
class Family:
  """A kind of GPU.

  Attributes:
    label: GKE's name of the accelerator.
    machine: machine type with {} GPUs.
    sizes: GPUs of a node.
  """

  label: str
  machine: str
  sizes: tuple[int, ...]


FAMILIES = {
  "h100": Family("nvidia-h100-80gb", "a3-highgpu-{}g", (1, 2, 4, 8)),
  "h100-mega": Family("nvidia-h100-mega-80gb", "a3-megagpu-{}g", (8,)),
  "h200": Family("nvidia-h200-141gb", "a3-ultragpu-{}g", (8,)),
  "a100": Family("nvidia-a100-80gb", "a2-ultragpu-{}g", (1, 2, 4, 8)),
}


@dataclasses.dataclass(frozen=True)
class Nodes:
  """Nodes of one kind.

  Attributes:
    family: kind of GPU.
    gpus: GPUs of a node.
    nodes: number of nodes.
  """

  family: Family
  gpus: int
  nodes: int

  @property
  def machine(self) -> str:
    """Machine type of a node."""
    return self.family.machine.format(self.gpus)


def names() -> list[str]:
  """Names of single nodes."""
  return [f"{key}-{size}" for key, family in FAMILIES.items() for size in family.sizes]


def is_gpu(text: str) -> bool:
  """Whether a name is meant as one of GPUs."""
  return bool(re.match(r"(?:nvidia-)?[abhl]\d+", text.lower()))


def parse(text: str) -> Nodes:
  """Parses the name of nodes.

  Args:
    text: for example "h100-8x2".

  Raises:
    errors.UserError: names the nearest valid name.
  """
  match = re.fullmatch(r"([a-z0-9-]+?)-(\d+)(?:x(\d+))?", text.lower())
  family = FAMILIES.get(match[1]) if match else None
  if match is None or family is None or int(match[2]) not in family.sizes:
    hint = errors.nearest(text.partition("x")[0], names())
    raise errors.UserError(f"accelerator type {text!r}: {hint}; h100-8x2 is two nodes")
  nodes = int(match[3] or 1)
  if nodes < 1:
    raise errors.UserError(f"accelerator type {text!r}: expected at least one node")
  return Nodes(family, int(match[2]), nodes)
