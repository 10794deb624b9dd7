"""TPU slices by the names people use (v5e-16, v6e-64, v5p-128, tpu7x-32, v5e-16x2 for two slices),
and what clouds call them.

The number is the one of Google's names: chips for v5e and v6e, TensorCores (two a chip) for v4, v5p
and tpu7x. Sources: cloud.google.com/tpu/docs/runtimes and /types-topologies,
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
    api: its name in accelerator types of the Cloud TPU API.
    cores: what one chip counts in names.
    runtime: software version of a TPU VM; "" = not in the Cloud TPU API (only GKE and Compute
      Engine have it).
    label: of its nodes in GKE (cloud.google.com/gke-tpu-accelerator).
    machine: machine type of its hosts, with the chips of one.
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
  """One kind of slice, and how many of them a name asked for."""

  name: str
  accelerator: str  # for gcloud and xpk
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
  """The slice of a name.

  Args:
    slices: how many were asked for beside the name; 0 = what the name says.

  Raises:
    errors.UserError: naming the nearest valid name.
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
    near = min(sizes, key=lambda name: abs(int(name.rpartition("-")[2]) - number))
    raise errors.UserError(
      f"accelerator type {text!r}: did you mean {near!r}? (valid: {', '.join(sizes)})"
    )
  asked = int(match[3] or 0)
  if asked and slices and asked != slices:
    raise errors.UserError(
      f"accelerator type {text!r} asks for {asked} slices and --slices for {slices}"
    )
  # v5e-8 and v6e-8 are one machine
  each = 8 if chips == 8 and family.shapes is FLAT else min(chips, 4)
  return Slice(
    f"{short}-{number}",
    f"{family.api}-{number}",
    family,
    chips,
    each,
    family.shapes[chips],
    asked or slices or 1,
  )
