"""Machines by name, and their devices to compile for without having one.

  v5e-N, v6e-N          N chips
  v5p-N, v4-N, tpu7x-N  N cores: N / 2 chips, as Google counts them
  v5p-128x2             two slices of 64 chips, joined by the data center's network; also
                        "v5p-128 x 2 slices"
  cpu-8, cpu-8x2        CPU devices of this process (the second in two imaginary slices): to try
                        things out, with no memory limit

Describing a TPU needs the package libtpu and no TPU. What cannot be known this way: real times,
contention, the input pipeline.
"""

import contextlib
import dataclasses
import math
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from como_jax import errors

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one jax device has: a chip, or half a chip of tpu7x, which shows two devices a chip.

  Attributes:
    hbm: GiB that a program can use, as the compiler says (v5e: 15.75 of 16); inf for a CPU.
    tflops: peak of bfloat16 matrix products, 1e12/s.
    hbm_rate: GB/s of memory.
    ici_rate: GB/s that a device can send over all its links inside a slice (half of the
      bidirectional figure Google prints).
    dcn_rate: GB/s that a device can send to other slices: its host's network, shared out.
    per_chip: devices a chip.
    counts_cores: whether the N of a name counts cores, two a chip.
    most: chips of the largest slice.
  """

  hbm: float
  tflops: float
  hbm_rate: float
  ici_rate: float
  dcn_rate: float
  per_chip: int = 1
  counts_cores: bool = False
  most: int = 256
  config: str = "default"
  flat: bool = False  # a two-dimensional mesh of chips


# Peak rates: cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e, tpu7x (read November 2026); ICI
# and DCN are printed there as GB/s or Gb/s a chip, for v5e and v6e DCN as Tb/s a pod. v4's DCN is
# an assumption (v5p's hosts). HBM: the "available" of libtpu 0.0.42's out-of-memory message,
# measured. A CPU has no figures, so no roofline.
CHIPS = {
  "v4": Chip(30.75, 275, 1228, 300, 6.25, counts_cores=True, most=2048, config="megacore"),
  "v5e": Chip(15.75, 197, 819, 200, 3.125, flat=True),
  "v5p": Chip(95.74, 459, 2765, 600, 6.25, counts_cores=True, most=6144),
  "v6e": Chip(31.25, 918, 1638, 400, 12.5, flat=True),
  "tpu7x": Chip(94.75, 1153.5, 3690, 300, 6.25, per_chip=2, counts_cores=True, most=9216),
  "cpu": Chip(math.inf, 0, 0, 0, 0, most=1024),
}
_ALIASES = {"v5litepod": "v5e", "v7x": "tpu7x"}
_FLAT = {
  1: (1, 1),
  4: (2, 2),
  8: (2, 4),
  16: (4, 4),
  32: (4, 8),
  64: (8, 8),
  128: (8, 16),
  256: (16, 16),
}
# larger ones are made of cubes of 64 chips
_SMALL = {1: (1, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4)}
_HOST = 4  # chips of a host of a TPU pod
_LIBTPU = "0.0.42.*"  # what jax[tpu]==0.10.2 asks for
_NAME = re.compile(r"([a-z0-9]+)-(\d+)\s*(?:x\s*(\d+)(?:\s*slices?)?)?")


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of one kind.

  Attributes:
    kind: key of CHIPS.
    chips: of one slice.
    slices: how many.
  """

  kind: str
  chips: int
  slices: int = 1

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def name(self) -> str:
    """The user's name for it."""
    number = self.chips * (2 if self.chip.counts_cores else 1)
    return f"{self.kind}-{number}" + (f"x{self.slices}" if self.slices > 1 else "")

  @property
  def shape(self) -> tuple[int, ...]:
    """Chips along each axis of a slice."""
    return _shape(self.kind, self.chips)

  @property
  def slice_devices(self) -> int:
    """Jax devices of one slice."""
    return self.chips * self.chip.per_chip

  @property
  def count(self) -> int:
    """Jax devices of all slices."""
    return self.slice_devices * self.slices

  def host(self) -> "Topology":
    """One host of it, which is what a process of extraction has."""
    return Topology(self.kind, min(self.chips, _HOST))

  def one(self) -> "Topology":
    """One chip of it, which is what serves a policy."""
    return Topology(self.kind, 1)

  def describe(self) -> str:
    """In words."""
    chip, shape = self.chip, "x".join(map(str, self.shape))
    if self.kind == "cpu":
      return f"{self.name}: {self.count} CPU devices" + (
        f" in {self.slices} imaginary slices" if self.slices > 1 else ""
      )
    devices = f", {self.count} devices of half a chip" if chip.per_chip > 1 else ""
    where = (
      f"{self.slices} slices of {self.chips} chips ({shape})"
      if self.slices > 1
      else f"{self.chips} chip{'s' * (self.chips > 1)} ({shape})"
    )
    return (
      f"{self.name}: {where}{devices}; each {chip.hbm:g} GiB usable, {chip.tflops:g} bf16 "
      f"TFLOP/s, {chip.hbm_rate:g} GB/s HBM, {chip.ici_rate:g} GB/s ICI out"
      + (f", {chip.dcn_rate:g} GB/s DCN out" if self.slices > 1 else "")
    )


def _shape(kind: str, chips: int) -> tuple[int, ...]:
  """How a slice of so many chips is laid out; () when there is none.

  Three dimensions: the most compact multiples of four.
  """
  if kind == "cpu":
    return (chips,)
  if CHIPS[kind].flat:
    return _FLAT.get(chips, ())
  if chips in _SMALL:
    return _SMALL[chips]
  if chips % 64 or chips > CHIPS[kind].most:
    return ()
  cubes = chips // 64
  ways = [
    (a, b, cubes // a // b)
    for a in range(1, cubes + 1)
    if cubes % a == 0
    for b in range(a, cubes // a + 1)
    if cubes // a % b == 0 and b <= cubes // a // b
  ]
  return tuple(4 * side for side in min(ways, key=sum))


def names(kind: str) -> list[str]:
  """Names of the usual sizes of a kind, the smallest first."""
  chips = CHIPS[kind]
  sizes = (
    sorted(_FLAT)
    if chips.flat
    else [1, 2, 4, 8, 16]
    if kind == "cpu"
    else [*sorted(_SMALL)[1:], *(64 * 2**i for i in range(8))]
  )
  return [Topology(kind, size).name for size in sizes if size <= chips.most]


def parse(text: str) -> Topology:
  """The topology that a name means.

  Raises:
    errors.UserError: an unknown form, kind or size, naming near ones.
  """
  match = _NAME.fullmatch(text.strip().lower())
  usual = [name for kind in CHIPS for name in names(kind)]
  if not match:
    raise errors.UserError(
      f"config.topology={text!r}: expected KIND-NUMBER or KIND-NUMBERxSLICES, for example "
      f"v5p-128x2; {errors.nearest(text, usual)}"
    )
  kind, number, slices = _ALIASES.get(match[1], match[1]), int(match[2]), int(match[3] or 1)
  if kind not in CHIPS:
    raise errors.UserError(
      f"config.topology={text!r}: kind {match[1]!r} is unknown: {errors.nearest(match[1], CHIPS)}"
    )
  chip = CHIPS[kind]
  chips = number // 2 if chip.counts_cores else number
  fits = (
    number > 0
    and chips <= chip.most
    and chips * (2 if chip.counts_cores else 1) == number
    and _shape(kind, chips)
  )
  if not fits or slices < 1:
    listed = names(kind)
    nearby = min(listed, key=lambda name: abs(int(name.split("-")[1]) - number))
    counted = " (the number counts cores, two a chip)" if chip.counts_cores else ""
    raise errors.UserError(
      f"config.topology={text!r}: there is no such slice{counted}: did you mean {nearby!r}? "
      f"(usual: {', '.join(listed)})"
    )
  return Topology(kind, chips, slices)


def devices(topology: Topology) -> list[Any]:
  """Devices to compile for, slice after slice; those of a TPU are descriptions.

  Raises:
    errors.UserError: libtpu is missing, or this process has fewer CPU devices and it is too late to
      make more.
  """
  if topology.kind == "cpu":
    return _cpu(topology.count)
  _settle("jax_platforms", "cpu")  # what runs while planning runs here
  # A description asks no metadata server, takes no lock and wants no host's name.
  for name, value in dict(
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
  ).items():
    os.environ.setdefault(name, value)
  chip = topology.chip
  settings: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
  if chip.config != "default":
    settings["chip_config_name"] = chip.config
  if topology.chips == 1:
    settings["chips_per_host_bounds"] = (1, 1, 1)
  shape = "x".join(map(str, topology.shape))
  try:
    described = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{topology.kind}:{shape}", **settings
    ).devices
  except (RuntimeError, ImportError, ModuleNotFoundError) as error:
    line = (str(error).splitlines() or [""])[0][:200]
    raise errors.UserError(
      f"config.topology={topology.name!r} cannot be described ({line}): the compiler for TPUs is "
      f'missing, give pip install "libtpu=={_LIBTPU}" (no TPU is needed)'
    ) from error
  if len(described) != topology.count:
    raise errors.UserError(
      f"config.topology={topology.name!r}: libtpu describes {len(described)} devices, "
      f"{topology.count} were expected"
    )
  return sorted(described, key=lambda device: getattr(device, "slice_index", None) or 0)


def _cpu(count: int) -> list[Any]:
  """CPU devices of this process; as many as wanted while jax has not started."""
  _settle("jax_platforms", "cpu")
  _settle("jax_num_cpu_devices", count)
  found = jax.devices("cpu")
  if len(found) < count:
    raise errors.UserError(
      f"config.topology=cpu-{count}: this process has {len(found)} CPU devices; start it with "
      f"COMO_JAX_CPU_DEVICES={count}"
    )
  return found[:count]


def _settle(name: str, value: Any) -> None:
  """A setting of jax that counts only before it starts; afterwards what is there has to do."""
  with contextlib.suppress(RuntimeError):
    jax.config.update(name, value)


def slice_numbers(topology: Topology, mesh: jax.sharding.Mesh) -> np.ndarray:
  """Slice of each device, in the order in which compiled programs number them (that of the mesh):
  int [devices].
  """
  flat = list(mesh.devices.flat)
  if flat[0].platform == "tpu":
    return np.array([getattr(device, "slice_index", None) or 0 for device in flat])
  order = {device.id: i for i, device in enumerate(sorted(flat, key=lambda device: device.id))}
  return np.array([order[device.id] * topology.slices // len(flat) for device in flat])
