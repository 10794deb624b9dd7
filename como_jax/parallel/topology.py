"""Machines by name, and descriptions of their devices for compilation without the machine.

  v5e-N, v6e-N          N chips
  v5p-N, v4-N, tpu7x-N  N cores: N / 2 chips, as Google counts them
  v5p-128x2             two slices of 64 chips, connected by the data center's network; also
                        "v5p-128 x 2 slices"
  h100-8, h200-8, a100-8
                        8 GPUs of one node, connected by NVLink; h100-8x4: four such nodes
  cpu-8, cpu-8x2        CPU devices of this process (the second in two imaginary slices): for
                        tests, without a memory limit

Describing a TPU needs the package libtpu but no TPU. CPU devices of this process stand in for GPUs
(stand_ins.py says for what). A description cannot give real times, contention or the speed of the
input pipeline.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from como_jax import errors
from como_jax.parallel.chips import CHIPS, Chip

GIB = 2**30


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
# larger slices consist of cubes of 64 chips
_SMALL = {1: (1, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4)}
_HOST = 4  # chips of a host of a TPU pod
_MOST_CPUS = 1024  # devices of this process
_NAME = re.compile(r"([a-z0-9]+)-(\d+)\s*(?:x\s*(\d+)(?:\s*slices?)?)?")


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of one kind of machine.

  Attributes:
    kind: key of CHIPS.
    chips: chips of one slice.
    slices: number of slices.
  """

  kind: str
  chips: int
  slices: int = 1

  @property
  def chip(self) -> Chip:
    """Properties of one device."""
    return CHIPS[self.kind]

  @property
  def name(self) -> str:
    """Name in the form that `parse` accepts."""
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
    """One host of it, which one process of the extraction uses."""
    return Topology(self.kind, self.chips if self.chip.gpu else min(self.chips, _HOST))

  def one(self) -> "Topology":
    """One chip of it, which serves a policy."""
    return Topology(self.kind, 1)

  def describe(self) -> str:
    """Describes the machine in one line."""
    chip, shape = self.chip, "x".join(map(str, self.shape))
    if self.kind == "cpu":
      return f"{self.name}: {self.count} CPU devices" + (
        f" in {self.slices} imaginary slices" if self.slices > 1 else ""
      )
    if chip.gpu:
      gpus = f"{self.chips} GPU{'s' * (self.chips > 1)}"
      return (
        f"{self.name}: {self.slices} nodes of {gpus}" if self.slices > 1 else f"{self.name}: {gpus}"
      ) + (
        f"; each {chip.hbm:g} GiB usable, {chip.tflops:g} bf16 TFLOP/s, {chip.hbm_rate:g} GB/s "
        f"HBM, {chip.ici_rate:g} GB/s NVLink out"
        + (f", {chip.dcn_rate:g} GB/s network out" if self.slices > 1 else "")
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
  """Chips along each axis of a slice; () when there is no such slice.

  With three dimensions, it is the most compact shape whose sides are multiples of four.
  """
  if kind == "cpu" or CHIPS[kind].gpu:
    return (chips,) if chips <= CHIPS[kind].max_chips else ()
  if CHIPS[kind].flat:
    return _FLAT.get(chips, ())
  if chips in _SMALL:
    return _SMALL[chips]
  if chips % 64 or chips > CHIPS[kind].max_chips:
    return ()
  cubes = chips // 64
  shapes = [
    (a, b, cubes // a // b)
    for a in range(1, cubes + 1)
    if cubes % a == 0
    for b in range(a, cubes // a + 1)
    if cubes // a % b == 0 and b <= cubes // a // b
  ]
  return tuple(4 * side for side in min(shapes, key=sum))


def names(kind: str) -> list[str]:
  """Names of the usual sizes of a kind, in ascending order."""
  chips = CHIPS[kind]
  sizes = (
    sorted(_FLAT)
    if chips.flat
    else [1, 2, 4, 8, 16]
    if kind == "cpu" or chips.gpu
    else [*sorted(_SMALL)[1:], *(64 * 2**i for i in range(8))]
  )
  return [Topology(kind, size).name for size in sizes if size <= chips.max_chips]


def parse(text: str) -> Topology:
  """Parses the name of a topology.

  Args:
    text: for example "v5p-128x2".

  Raises:
    errors.UserError: an unknown form, kind or size; the message names similar ones.
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
  exists = (
    number > 0
    and chips <= chip.max_chips
    and chips * (2 if chip.counts_cores else 1) == number
    and _shape(kind, chips)
  )
  if not exists or slices < 1:
    usual = names(kind)
    nearest = min(usual, key=lambda name: abs(int(name.split("-")[1]) - number))
    if chip.gpu and number > chip.max_chips:  # nodes have 8 of them
      nearest = f"{kind}-{chip.max_chips}x{-(-number // chip.max_chips)}"
    note = " (the number counts cores, two a chip)" if chip.counts_cores else ""
    raise errors.UserError(
      f"config.topology={text!r}: there is no such slice{note}: did you mean {nearest!r}? "
      f"(usual: {', '.join(usual)})"
    )
  if chip.gpu and chips * slices > _MOST_CPUS:
    raise errors.UserError(
      f"config.topology={text!r}: at most {_MOST_CPUS} GPUs can be planned, these are "
      f"{chips * slices}"
    )
  return Topology(kind, chips, slices)


def compiler_versions(topology: Topology) -> dict[str, str | None]:
  """Version of libtpu, the compiler of TPUs; {} for other machines, None where it is unknown."""
  if topology.kind == "cpu" or topology.chip.gpu:
    return {}
  for package in ("libtpu", "libtpu-nightly"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      return {"libtpu": importlib.metadata.version(package)}
  return {"libtpu": None}


def _libtpu() -> str:
  """The requirement for libtpu of the jax that is installed."""
  for requirement in importlib.metadata.requires("jax") or ():
    package, _, extra = requirement.partition(";")
    if package.startswith("libtpu") and re.search(r"extra == ['\"]tpu['\"]", extra):
      return package.strip()
  return "libtpu"


def devices(topology: Topology) -> list[Any]:
  """Returns devices to compile for, slice by slice.

  Those of a TPU are descriptions; for GPUs, CPU devices of this process.

  Raises:
    errors.UserError: libtpu is missing, or this process has fewer CPU devices and jax has already
      started.
  """
  if topology.kind == "cpu" or topology.chip.gpu:
    return _cpu(topology)
  _set_before_start("jax_platforms", "cpu")  # programs that run during planning use the CPU
  # The description needs no metadata server, no lock and no host name.
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
    descriptions = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{topology.kind}:{shape}", **settings
    ).devices
  except (RuntimeError, ImportError, ModuleNotFoundError) as error:
    line = (str(error).splitlines() or [""])[0][:200]
    raise errors.UserError(
      f"config.topology={topology.name!r} cannot be described ({line}): the compiler for TPUs is "
      f'missing, give pip install "{_libtpu()}" (no TPU is needed)'
    ) from error
  if len(descriptions) != topology.count:
    raise errors.UserError(
      f"config.topology={topology.name!r}: libtpu describes {len(descriptions)} devices, "
      f"{topology.count} were expected"
    )
  return sorted(descriptions, key=lambda device: getattr(device, "slice_index", None) or 0)


def _cpu(topology: Topology) -> list[Any]:
  """Returns CPU devices of this process; creates as many as needed if jax has not started."""
  count = topology.count
  _set_before_start("jax_platforms", "cpu")
  _set_before_start("jax_num_cpu_devices", count)
  cpus = jax.devices("cpu")
  if len(cpus) < count:
    raise errors.UserError(
      f"config.topology={topology.name}: this process has {len(cpus)} CPU devices; start it with "
      f"COMO_JAX_CPU_DEVICES={count}"
    )
  return cpus[:count]


def _set_before_start(name: str, value: Any) -> None:
  """Changes a setting of jax; has no effect after jax has started."""
  with contextlib.suppress(RuntimeError):
    jax.config.update(name, value)


def slice_numbers(topology: Topology, mesh: jax.sharding.Mesh) -> np.ndarray:
  """Slice of each device, int [devices], in the order of the mesh.

  Compiled programs number the devices in this order.
  """
  flat = list(mesh.devices.flat)
  if flat[0].platform == "tpu":
    return np.array([getattr(device, "slice_index", None) or 0 for device in flat])
  order = {device.id: i for i, device in enumerate(sorted(flat, key=lambda device: device.id))}
  return np.array([order[device.id] * topology.slices // len(flat) for device in flat])
