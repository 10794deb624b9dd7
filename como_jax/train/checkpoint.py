"""Checkpoints of a run (Orbax, asynchronous) and how other stages read the weights of one. Orbax is imported only here."""

import json
import pathlib

import jax
import orbax.checkpoint as ocp

from como_jax import errors, trees, weights
from como_jax.parallel import distributed, rules
from como_jax.train import files

FOLDER = "checkpoints"
SPEC = "state_spec.json"  # {path: [shape, dtype]} of the saved state: Orbax itself casts types silently
WEIGHTS = "weights"


class Checkpointer:
  """Saves the state and the data position of a run under `workdir`/checkpoints.

  Every process of a run has one and calls each method at the same step: they write one checkpoint together, each its own shards,
  into a directory that all of them see. It is read back onto any mesh and any number of processes.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int):
    self._folder = (pathlib.Path(workdir) / FOLDER).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._spec = pathlib.Path(workdir) / SPEC

  def latest(self) -> int | None:
    """The newest committed step, as process 0 sees the directory."""
    step = self._manager.latest_step()
    return json.loads(distributed.from_first(json.dumps(step)))

  def save(self, step: int, state) -> None:
    """Starts saving; a second save of the same step does nothing. The data position is the step (data/pipeline.py)."""
    if step in self._manager.all_steps():
      return
    if distributed.is_first() and not self._spec.exists():
      files.write(self._spec, json.dumps(describe(state), indent=0))
    self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave({"position": step})))

  def restore(self, state, mesh: jax.sharding.Mesh):
    """The newest state, on this mesh; `state` gives structure, shapes and types.

    Raises:
      errors.UserError: naming the leaves that do not fit, or the checkpoint that cannot be read.
    """
    step = self.latest()
    def check():
      if self._spec.exists():
        check_spec(json.loads(self._spec.read_text()), describe(state), what=str(self._folder))
    distributed.together(check)
    target = jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                          state, rules.shardings(state, mesh))
    restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()))
    if restored.data["position"] != step:
      raise errors.UserError(f"{self._folder}/{step}: data position {restored.data['position']} is not the step {step}")
    return restored.state

  def wait(self) -> None:
    """Until the last save is committed."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and closes."""
    self._manager.close()


def describe(state) -> dict[str, list]:
  """{path: [shape, dtype]} of a pytree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}


def check_spec(saved: dict[str, list], expected: dict[str, list], *, what: str) -> None:
  """Compares two descriptions strictly.

  Raises:
    errors.UserError: naming missing, surplus and misshapen leaves.
  """
  missing = [name for name in expected if name not in saved]
  surplus = [name for name in saved if name not in expected]
  other = [f"{name} is {saved[name][1]}{saved[name][0]}, expected {expected[name][1]}{expected[name][0]}"
           for name in expected if name in saved and saved[name] != expected[name]]
  if missing or surplus or other:
    parts = [f"{len(names)} {kind}: " + "; ".join(names[:3]) for kind, names in
             (("missing", missing), ("surplus", surplus), ("of another shape or type", other)) if names]
    raise errors.UserError(f"checkpoint {what} is of another model: " + " | ".join(parts))


def load(path: str | pathlib.Path) -> tuple[dict, dict]:
  """Parameters (nested dict of numpy arrays) and config of a weights-only folder or of a run directory (its newest step).

  Raises:
    errors.UserError: when the path is neither.
  """
  path = pathlib.Path(path)
  if (path / weights.PARAMS).is_file():
    return weights.load(path)
  if (path / WEIGHTS / weights.PARAMS).is_file():
    return weights.load(path / WEIGHTS)
  config, folder = path / "config.json", path / FOLDER
  if not path.exists():
    near = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise errors.UserError(f"checkpoint {str(path)!r} does not exist: {errors.nearest(str(path), near)}")
  if not config.is_file() or not folder.is_dir():
    raise errors.UserError(f"{str(path)!r} is neither a run directory (config.json, {FOLDER}/) nor a weights folder ({weights.PARAMS}, config.json)")
  with ocp.CheckpointManager(folder.absolute()) as manager:
    step = manager.latest_step()
  if step is None:
    raise errors.UserError(f"{str(folder)!r} holds no committed checkpoint yet")
  item = folder.absolute() / str(step) / "state"
  try:
    with ocp.StandardCheckpointer() as reader:
      # On one device of this machine, whatever mesh it was saved on.
      one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), reader.metadata(item).item_metadata.tree)
      saved = reader.restore(item, target)
  except (ValueError, KeyError, OSError, AttributeError) as error:
    raise errors.UserError(f"checkpoint {str(item)!r} cannot be read: {(str(error).splitlines() or [''])[0][:300]}") from error
  params = jax.tree.map(lambda leaf: jax.device_get(leaf), saved["params"])
  if saved.get("ema"):
    params = trees.unflatten({**trees.flatten(params), **trees.flatten(jax.device_get(saved["ema"]))})
  return params, json.loads(config.read_text())
