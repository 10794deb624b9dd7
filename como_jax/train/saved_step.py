"""A train step that was compiled once, in a file that later starts load instead of compiling it.

The file holds what the program was made for: versions, devices, config, sources and shapes. Where
one of these differs, the file is not used, and the step is compiled as without it. Its program runs
with the rights of who loads it: use only files of your own.

A file is a line of JSON, then the program as JAX serializes it.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import jax
import xxhash
from jax.experimental import serialize_executable

import como_jax
from como_jax.train import atomic

VERSION = 1
# Keys of config.train that the program does not depend on.
_FREE = (
  "log_every",
  "evaluate_every",
  "checkpoint_every",
  "keep_checkpoints",
  "tensorboard",
  "profile_steps",
  "stall_seconds",
  "wandb",
  "accept_changed_data",
  "compiled_step",
)
# Packages of which the program, or the machine code, depends on the version.
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "jax-cuda12-plugin", "jax-cuda13-plugin")


def identity(config: Any, mesh: jax.sharding.Mesh, arguments: Any) -> dict[str, str]:
  """What a compiled step depends on, in words.

  Args:
    config: of the run.
    mesh: of its devices.
    arguments: of the step: pytree of arrays or shapes.
  """
  plain = json.loads(json.dumps(config.to_dict(), default=str))
  plain["train"] = {key: value for key, value in plain["train"].items() if key not in _FREE}
  devices = mesh.devices.flat
  return {
    "format": str(VERSION),
    **{name: _version(name) for name in _PACKAGES},
    "backend": f"{devices[0].client.platform} {devices[0].client.platform_version}",
    "devices": f"{mesh.size} x {devices[0].device_kind}, {jax.process_count()} processes",
    "device ids": " ".join(str(device.id) for device in devices),
    "mesh": json.dumps(dict(mesh.shape)),
    "host": _host(devices[0].platform),
    "flags": " ".join(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")),
    "config": _digest(json.dumps(plain, sort_keys=True)),
    "program": _sources(pathlib.Path(como_jax.__file__).parent),
    "shapes": _shapes(arguments),
  }


def save(
  path: pathlib.Path, compiled: jax.stages.Compiled, known: dict[str, str], metrics: list[str]
) -> None:
  """Writes a compiled step. The file appears whole or not at all.

  Args:
    path: of the file.
    compiled: the step, made in `compiling`.
    known: as returned by `identity`.
    metrics: names of the step's metrics.

  Raises:
    ValueError, NotImplementedError: this kind of device cannot serialize it.
    OSError: the file cannot be written.
  """
  program, _, _ = serialize_executable.serialize(compiled)
  checksum = xxhash.xxh3_64_hexdigest(program)
  header = {"identity": known, "metrics": metrics, "xxh3_64": checksum}
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write_bytes(path, json.dumps(header).encode() + b"\n" + program)


def try_save(
  path: pathlib.Path, compiled: jax.stages.Compiled, known: dict[str, str], metrics: list[str]
) -> str:
  """Writes a compiled step as `save`; returns what to say of it. A failure ends no run."""
  try:
    save(path, compiled, known, metrics)
  except OSError as error:
    return f"; it cannot be written: {error.strerror or error}"
  except Exception as error:  # whatever the backend raises
    lines = str(error).splitlines() or [""]
    return f"; it cannot be saved: {type(error).__name__}: {lines[0][:200]}"
  return "; written for the next start"


def load(path: pathlib.Path, known: dict[str, str], arguments: tuple[Any, ...]) -> Any:
  """Loads a compiled step.

  Args:
    path: of the file.
    known: as returned by `identity` for this run.
    arguments: of the step, the state first: pytrees of arrays or shapes.

  Returns:
    The `jax.stages.Compiled`.

  Raises:
    Unusable: the file is missing, damaged or was made for something else.
  """
  try:
    first, _, program = path.read_bytes().partition(b"\n")
    header = json.loads(first)
    saved, metrics, checksum = header["identity"], header["metrics"], header["xxh3_64"]
  except FileNotFoundError:
    raise Unusable("it is not there yet") from None
  except OSError as error:
    raise Unusable(f"it cannot be read: {error.strerror or error}") from None
  except (ValueError, KeyError, TypeError):
    raise Unusable("it is no compiled step") from None
  for name in [*known, *sorted(saved.keys() - known.keys())]:
    if saved.get(name) != known.get(name):
      raise Unusable(_difference(name, saved.get(name, ""), known.get(name, "")))
  if xxhash.xxh3_64_hexdigest(program) != checksum:
    raise Unusable("it is damaged: it holds other bytes than were written")
  results = (arguments[0], dict.fromkeys(metrics, 0))
  try:
    return serialize_executable.deserialize_and_load(
      program, jax.tree.structure((arguments, {})), jax.tree.structure(results)
    )
  except Exception as error:  # whatever the backend raises
    lines = str(error).splitlines() or [""]
    raise Unusable(f"it cannot be loaded: {type(error).__name__}: {lines[0][:200]}") from error


class Unusable(Exception):
  """A file that holds no step for this run; the message says why."""


def _difference(name: str, saved: str, now: str) -> str:
  """Why a file is not for this run."""
  if name in ("config", "program", "shapes"):
    words = {"config": "config", "program": "version of como_jax", "shapes": "state or batch"}
    return f"it was compiled for another {words[name]}"
  return f"it was compiled for {name} {saved[:120] or 'none'!r}, this is {now[:120] or 'none'!r}"


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ""


def _host(kind: str) -> str:
  """What machine code for a CPU depends on; "" for accelerators."""
  if kind != "cpu":
    return ""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  return f"{platform.machine()} {_digest(flags)}"


def _sources(folder: pathlib.Path) -> str:
  """Checksum of all sources of the package."""
  texts = [
    f"{path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}"
    for path in sorted(folder.rglob("*.py"))
  ]
  return _digest("\0".join(texts))


def _shapes(arguments: Any) -> str:
  """Checksum of names, shapes, types and shardings."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(arguments)
  lines = [
    f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} {getattr(leaf, 'sharding', None)}"
    for path, leaf in leaves
  ]
  return _digest("\n".join(lines))


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:16]
