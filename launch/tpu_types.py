"""Common names of TPU slices, and their names in Google's APIs.

Examples: v5e-16, v6e-64, v5p-128, tpu7x-32, and v5e-16x2 for two slices. The number is Google's:
chips for v5e and v6e, TensorCores (two per chip) for v4, v5p and tpu7x. Sources:
cloud.google.com/tpu/docs/runtimes and /types-topologies,
cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
"""

import dataclasses
import re

from common import errors

FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {
  4: "2x2x1",
  8: "2x2x2",
  16: "2x2x4",
  32: "2x4x4",
  64: "4x4x4",
  128: "4x4x8",
  256: "4x8x8",
  512: "8x8x8",
  1024: "8x8x16",
  2048: "8x16x16",
  4096: "16x16x16",
}


@dataclasses.dataclass(frozen=True)
class Family:
  """A TPU generation.

  Attributes:
    api: name in accelerator types of the Cloud TPU API.
    cores: number by which one chip counts in names.
    runtime: software version of a TPU VM; "" = not in the Cloud TPU API (only in GKE and Compute
      Engine).
    label: of its nodes in GKE (cloud.google.com/gke-tpu-accelerator).
    machine: machine type of its hosts; "{}" stands for the chips per host.
    shapes: chips of a slice -> topology.
  """

  api: str
  cores: int
  runtime: str
  label: str
  machine: str
  shapes: dict[int, str]


FAMILIES = {
  "v4": Family(
    "v4",
    2,
    "tpu-ubuntu2204-base",
    "tpu-v4-podslice",
    "ct4p-hightpu-{}t",
    {n: s for n, s in CUBES.items() if n <= 2048},
  ),
  "v5e": Family(
    "v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", "ct5lp-hightpu-{}t", FLAT
  ),
  "v5p": Family("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", "ct5p-hightpu-{}t", CUBES),
  "v6e": Family("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", "ct6e-standard-{}t", FLAT),
  "tpu7x": Family("tpu7x", 2, "", "tpu7x", "tpu7x-standard-{}t", CUBES),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One kind of slice.

  Attributes:
    name: common name of one slice.
    accelerator: name for gcloud and xpk.
    family: TPU generation.
    chips: chips of one slice.
    chips_per_host: chips of one host.
    topology: shape of one slice.
    slices: number of slices.
  """

  name: str
  accelerator: str
  family: Family
  chips: int
  chips_per_host: int
  topology: str
  slices: int

  @property
  def hosts(self) -> int:
    """Hosts of one slice."""
    return self.chips // self.chips_per_host

  @property
  def machine(self) -> str:
    """Machine type of a host."""
    return self.family.machine.format(self.chips_per_host)


def parse(text: str, *, slices: int = 0) -> Slice:
  """Parses the name of a slice.

  Args:
    text: for example "v5e-16x2".
    slices: number of slices from a separate option; 0 = the number in the name.

  Raises:
    errors.UserError: names the nearest valid name.
  """
  match = re.fullmatch(r"([a-z0-9]+?)-(\d+)(?:x(\d+))?", text.lower())
  families = {**FAMILIES, **{family.api: family for family in FAMILIES.values()}}
  family = families.get(match[1]) if match else None
  names = [f"{key}-{chips * kind.cores}" for key, kind in FAMILIES.items() for chips in kind.shapes]
  if family is None:
    raise errors.UserError(f"accelerator type {text!r}: {errors.nearest(text, names)}")
  number, chips = int(match[2]), int(match[2]) // family.cores
  short = next(key for key, kind in FAMILIES.items() if kind is family)
  if chips not in family.shapes or number % family.cores:
    sizes = [f"{short}-{size * family.cores}" for size in family.shapes]
    nearest = min(sizes, key=lambda name: abs(int(name.rpartition("-")[2]) - number))
    raise errors.UserError(
      f"accelerator type {text!r}: did you mean {nearest!r}? (valid: {', '.join(sizes)})"
    )
  requested = int(match[3] or 0)
  if requested and slices and requested != slices:
    raise errors.UserError(
      f"accelerator type {text!r} asks for {requested} slices and --slices for {slices}"
    )
  # v5e-8 and v6e-8 have all 8 chips on one host
  chips_per_host = 8 if chips == 8 and family.shapes is FLAT else min(chips, 4)
  return Slice(
    f"{short}-{number}",
    f"{family.api}-{number}",
    family,
    chips,
    chips_per_host,
    family.shapes[chips],
    requested or slices or 1,
  )
