"""The options of labeling, read from a config once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from como_jax import errors, models
from como_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """The data section; configs/extract.py says what each key means."""

  path: str | None
  cameras: tuple[str, ...]
  resize: str | None
  cache: str
  workers: int
  threads: int
  prefetch: int


@dataclasses.dataclass(frozen=True)
class Options:
  """The config of labeling; configs/extract.py says what each key means."""

  checkpoint: str
  offset_seconds: float | None
  batch_size: int
  pairs_batch: int
  dtype: str
  lerobot: str
  mesh: Mapping[str, int]
  timeout: float
  shared: bool
  lease_seconds: float
  runner: str
  runner_flags: tuple[str, ...]
  data: DataOptions


def from_config(config: Any) -> Options:
  """Reads the options.

  Args:
    config: a ConfigDict with the keys of configs/extract.py.

  Raises:
    errors.UserError: an unknown dtype, or options that exclude each other.
  """
  values = config.to_dict()
  data, dtype = values["data"], values["dtype"]
  if dtype and dtype not in models.DTYPES:
    raise errors.UserError(
      f'config.dtype={dtype!r}: {errors.nearest(dtype, models.DTYPES)}, or "" for the model\'s own'
    )
  independent = values["shared"] or values["runner"]
  if independent and values["lerobot"]:
    raise errors.UserError(
      "config.lerobot is written by one process: give it with --resume and without config.shared "
      "and config.runner, once the labels are there"
    )
  return Options(
    checkpoint=values["checkpoint"],
    offset_seconds=values["offset_seconds"],
    batch_size=values["batch_size"],
    pairs_batch=values["pairs_batch"],
    dtype=dtype,
    lerobot=values["lerobot"],
    mesh=values["mesh"],
    timeout=values["timeout"],
    shared=values["shared"],
    lease_seconds=values["lease_seconds"],
    runner=values["runner"],
    runner_flags=tuple(values["runner_flags"]),
    data=DataOptions(
      path=data["path"],
      cameras=tuple(data["cameras"]),
      resize=data["resize"],
      cache=data["cache"],
      workers=data["workers"],
      threads=data["threads"],
      prefetch=data["prefetch"],
    ),
  )


def make_mesh(options: Options) -> jax.sharding.Mesh:
  """The mesh of this process's devices: processes do not wait for each other.

  Raises:
    errors.UserError: the mesh does not fit the devices, or a batch does not fit the mesh.
  """
  try:
    mesh = mesh_lib.make(**options.mesh, devices=jax.local_devices())
  except errors.UserError as error:
    raise errors.UserError(str(error).replace("config.train.mesh", "config.mesh")) from error
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  for key, size in (("batch_size", options.batch_size), ("pairs_batch", options.pairs_batch)):
    if size % ways:
      raise errors.UserError(
        f"config.{key}={size} is not divisible by the {ways} devices of config.mesh"
      )
  return mesh
