"""Checkpoints of a run (Orbax, asynchronous), and loading of their weights by other tasks.

Orbax is imported only here.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
import sys
import threading
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from como_jax import errors, trees, weights
from como_jax.parallel import distributed, rules
from como_jax.train import atomic, integrity, memory

# Orbax warns about optional files, and logs the exceptions that it raises
absl_logging.set_verbosity(absl_logging.FATAL)

FOLDER = "checkpoints"
# {path: [shape, dtype]} of the saved state, needed because Orbax casts types silently
SPEC = "state_spec.json"
WEIGHTS = "weights"


class Checkpointer:
  """Saves the state and the data position of a run under `workdir`/checkpoints.

  Every process of a run has a Checkpointer and calls each method at the same step. Together they
  write one checkpoint into a shared directory; each process writes its own shards. A checkpoint can
  be restored onto any mesh and any number of processes.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int):
    self._folder = (pathlib.Path(workdir) / FOLDER).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._spec = pathlib.Path(workdir) / SPEC
    self._seal: tuple[threading.Thread, threading.Event] | None = None
    self._failed = False
    if not _unraisable:  # only once: a later hook of another library may call ours
      _unraisable.append(sys.unraisablehook)
      sys.unraisablehook = _report_unraisable

  def latest(self) -> int | None:
    """Returns the newest committed step that process 0 sees in the directory."""
    step = self._manager.latest_step()
    return json.loads(distributed.broadcast_from_primary(json.dumps(step)))

  def save(self, step: int, state) -> None:
    """Starts to save the state; a second save of the same step does nothing.

    The data position is the step (data/pipeline.py).

    Raises:
      errors.Storage: this save or the previous one cannot be written.
    """
    if step in self._manager.all_steps():
      return
    data = {"position": step, "version": integrity.VERSION}
    with self._writing(step):
      if distributed.is_primary() and not self._spec.exists():
        atomic.write(self._spec, json.dumps(describe(state), indent=0))
      self._manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data)),
      )
    self._end_seal()  # of the previous save, which Orbax has waited for
    if distributed.is_primary():
      written = threading.Event()
      thread = threading.Thread(target=self._run_seal, args=(step, written), daemon=True)
      self._seal = thread, written
      thread.start()

  def restore(self, state, mesh: jax.sharding.Mesh):
    """Restores the newest valid state; None where nothing has been saved.

    A damaged step is renamed (never deleted) and printed; the step before it is used.

    Args:
      state: gives structure, shapes and types.
      mesh: for the restored arrays.

    Raises:
      errors.UserError: names the leaves that do not match, or the checkpoint that cannot be read.
    """

    def check():
      if self._spec.exists():
        check_spec(weights.read_json(self._spec), describe(state), what=str(self._folder))

    distributed.run_on_all_processes(check)
    target = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      state,
      rules.shardings(state, mesh),
    )
    set_aside = []
    while (step := self.latest()) is not None:
      folder = self._folder / str(step)
      distributed.run_on_all_processes(lambda folder=folder: integrity.check_version(folder))
      problem = self._problem(folder)
      if not problem:
        restored, problem = self._restore(step, target)
        if not problem:
          return restored
      if distributed.is_primary():
        set_aside.append(str(integrity.set_aside(folder)))
        print(
          f"checkpoint {folder} is damaged ({problem}): set aside as {set_aside[-1]}, the one "
          "before it is taken"
        )
      distributed.broadcast_from_primary("")  # a barrier: all processes see the new name
      self._manager.reload()
    if distributed.broadcast_from_primary(", ".join(set_aside)):
      raise errors.Shared(
        f"--resume: no good checkpoint is left in {self._folder} (damaged and set aside: "
        f"{', '.join(set_aside) or 'all'}): --resume once more starts from step 0"
      )
    return None

  def _problem(self, folder: pathlib.Path) -> str:
    """Describes the damage of a step's files, "" for none; the same in every process."""
    part = dict(index=jax.process_index(), count=jax.process_count())
    try:
      distributed.run_on_all_processes(lambda: integrity.check(folder, **part))
    except (integrity.Damaged, errors.Shared) as error:
      return str(error)
    return ""

  def _restore(self, step: int, target):
    """Returns (state, "") or (None, reason why it cannot be read).

    A step with correct checksums is not damaged, so a failure to read it raises UserError.
    """
    try:
      items = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
      )
      return self._manager.restore(step, args=items).state, ""
    except Exception as error:  # Orbax and TensorStore raise many types
      intact = (self._folder / str(step) / integrity.CHECKSUMS).is_file() or jax.process_count() > 1
      if intact or _is_machine_error(error):
        raise errors.UserError(
          f"checkpoint {self._folder / str(step)} cannot be read: {_line(error)}"
        ) from error
      return None, _line(error)

  def restart_point(self, step: int) -> int | None:
    """Returns the newest step to restart from after a loss that was not finite; None without one.

    Later steps, and steps that cannot be used, are renamed. Every process must call this method.

    Args:
      step: the step of that loss. A restart from the step before it would give the same loss with
        any learning rate, because the loss depends on its weights and on the same batch.
    """
    self.wait()
    for saved in json.loads(
      distributed.broadcast_from_primary(json.dumps(integrity.steps(self._folder)))
    ):
      folder = self._folder / str(saved)
      problem = distributed.broadcast_from_primary(
        "its weights lead there at once" if saved >= step - 1 else self._unusable(folder)
      )
      if not problem:
        return saved
      if distributed.is_primary():
        print(f"checkpoint {folder} is set aside as {integrity.set_aside(folder)}: {problem}")
      distributed.broadcast_from_primary("")
    return None

  def _unusable(self, folder: pathlib.Path) -> str:
    """Reason why a run cannot restart from a step; "" where it can."""
    try:
      finite = all_finite(_read(folder / integrity.STATE))
      return "" if finite else "it holds numbers that are not finite"
    except Exception as error:  # Orbax and TensorStore raise many types
      if _is_machine_error(error):
        raise
      return f"it cannot be read: {_line(error)}"

  def wait(self) -> None:
    """Waits until the last save is committed and has its checksums.

    Raises:
      errors.Storage: the save cannot be written.
    """
    with self._writing(None):
      self._manager.wait_until_finished()
    self._end_seal()

  def close(self) -> None:
    """Waits for the last save and closes the manager."""
    with contextlib.ExitStack() as stack:
      if self._failed:  # the error was already raised; Orbax raises it again
        stack.enter_context(contextlib.suppress(Exception))
      with self._writing(None):
        self._manager.close()
    self._end_seal()

  @contextlib.contextmanager
  def _writing(self, step: int | None):
    """Converts the errors of a full disk or a read-only directory to one line."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      text = atomic.storage_problem(error)
      if not text:
        raise
      self._failed = True
      # asyncio would log every unfinished write
      logging.getLogger("asyncio").setLevel(logging.CRITICAL)
      last = next((saved for saved in integrity.steps(self._folder) if saved != step), None)
      good = f"the last one is of step {last}" if last is not None else "there is no earlier one"
      raise errors.Storage(
        f"cannot write a checkpoint into {self._folder}: {text}; {good}: make room, then give "
        "--resume"
      ) from error

  def _run_seal(self, step: int, written: threading.Event) -> None:
    """Waits until a step is committed, or `written` is set; then writes its checksums."""
    folder = self._folder / str(step)
    while not folder.is_dir() and not written.wait(0.05):  # the folder appears at the commit
      pass
    try:
      integrity.seal(folder)
    except OSError as error:
      print(f"checkpoint {folder} has no checksums: {error.strerror or error}")

  def _end_seal(self) -> None:
    if self._seal:
      thread, written = self._seal
      written.set()
      thread.join()
      self._seal = None


_unraisable: list = []  # the previous sys.unraisablehook


def _report_unraisable(unraisable: Any) -> None:
  """A `sys.unraisablehook` that hides consequences of a failed checkpoint write.

  When a write fails (a full disk), Orbax closes its event loop. Each of the hundreds of unfinished
  writes then calls the closed loop from a thread of TensorStore. `_writing` reports the failure.
  """
  error, trace = unraisable.exc_value, unraisable.exc_traceback
  # the traceback begins in asyncio, because the caller is not Python code
  module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
  closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
  if not (closed and module.startswith("asyncio.")):
    _unraisable[-1](unraisable)


def _is_machine_error(error: Exception) -> bool:
  """Whether reading failed for lack of memory or permission; the step may still be intact."""
  return (
    isinstance(error, PermissionError)
    or memory.is_out_of_memory(error)
    or "RESOURCE_EXHAUSTED" in str(error)  # TensorStore's message
  )


def all_finite(tree) -> bool:
  """Whether all floating-point values of a pytree of numpy arrays are finite."""
  return all(
    np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
  )


def describe(state) -> dict[str, list]:
  """Returns {path: [shape, dtype]} of a pytree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)]
    for path, leaf in leaves
  }


def check_spec(saved: dict[str, list], expected: dict[str, list], *, what: str) -> None:
  """Compares two descriptions strictly.

  Args:
    saved: as returned by `describe`.
    expected: as returned by `describe`.
    what: name of the checkpoint, for the message.

  Raises:
    errors.UserError: names missing and surplus leaves, and leaves of another shape or type.
  """
  missing = [name for name in expected if name not in saved]
  surplus = [name for name in saved if name not in expected]
  different = [
    f"{name} is {saved[name][1]}{saved[name][0]}, expected {expected[name][1]}{expected[name][0]}"
    for name in expected
    if name in saved and saved[name] != expected[name]
  ]
  groups = {"missing": missing, "surplus": surplus, "of another shape or type": different}
  parts = [
    f"{len(names)} {kind}: " + "; ".join(names[:3]) for kind, names in groups.items() if names
  ]
  if parts:
    raise errors.UserError(f"checkpoint {what} is of another model: " + " | ".join(parts))


@dataclasses.dataclass(frozen=True)
class Found:
  """Location of the weights that belong to a path.

  Attributes:
    weights: a weights-only folder, or None when the weights are in `state`.
    state: the state of a checkpoint, or None.
    config: the config that belongs to the weights.
    step: training step of the weights; None where it is unknown.
    notes: lines about the choice that the user must see.
  """

  weights: pathlib.Path | None
  state: pathlib.Path | None
  config: pathlib.Path
  step: int | None
  notes: tuple[str, ...] = ()


def find(path: str | pathlib.Path) -> Found:
  """Finds the weights of a weights-only folder, or the newest valid state of a run directory.

  Raises:
    errors.UserError: the path is neither of them, or contains no valid weights.
  """
  path = pathlib.Path(path)
  if (path / weights.PARAMS).is_file():
    return _explicit(path)
  exported, config, folder = path / WEIGHTS, path / weights.CONFIG, path / FOLDER
  if not path.exists():
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise errors.UserError(
      f"checkpoint {str(path)!r} does not exist: {errors.nearest(str(path), siblings)}"
    )
  has_weights = (exported / weights.PARAMS).is_file()
  if not has_weights and not (config.is_file() and folder.is_dir()):
    raise errors.UserError(
      f"{str(path)!r} is neither a run directory (config.json, {FOLDER}/) nor a weights folder "
      f"({weights.PARAMS}, config.json)"
    )
  exported_step = weights.read_step(exported) if has_weights else None
  notes = []
  for step in integrity.steps(folder.absolute()):
    if has_weights and exported_step is not None and exported_step >= step:
      break
    saved = folder.absolute() / str(step)
    integrity.check_version(saved)
    if problem := integrity.problem(saved):
      notes.append(f"checkpoint {saved} is damaged ({problem}) and is not used")
      continue
    if has_weights:
      notes.append(
        f"{exported} is of step {_format_step(exported_step)}, the newest checkpoint of step "
        f"{step}: the checkpoint is used (give {exported} to use that folder)"
      )
    return Found(None, saved / integrity.STATE, config, step, tuple(notes))
  if has_weights:
    return Found(exported, None, exported / weights.CONFIG, exported_step, tuple(notes))
  raise errors.UserError("; ".join(notes) or f"{str(folder)!r} holds no committed checkpoint yet")


def _explicit(folder: pathlib.Path) -> Found:
  """Uses the weights folder of the user; notes when the run around it has a later checkpoint."""
  step, parent = weights.read_step(folder), folder.absolute().parent
  is_export = folder.absolute().name == WEIGHTS
  newest = next(iter(integrity.steps(parent / FOLDER)), None) if is_export else None
  notes = ()
  if newest is not None and (step is None or newest > step):
    notes = (
      f"{folder} is of step {_format_step(step)}, its run has a checkpoint of step {newest}: the "
      f"folder is used, as given (give {parent} to use the checkpoint)",
    )
  return Found(folder, None, folder / weights.CONFIG, step, notes)


def _format_step(step: int | None) -> str:
  return "unknown" if step is None else str(step)


def load(path: str | pathlib.Path) -> tuple[dict, dict]:
  """(Parameters as a nested dict of numpy arrays, config) of what `find` chooses, see `read`."""
  return read(find(path))


def read(location: Found) -> tuple[dict, dict]:
  """Loads what `find` chose, and prints its notes. Raises errors.UserError: it is damaged."""
  for note in location.notes:
    print(f"note: {note}")
  if location.weights:
    return weights.load(location.weights)
  try:
    saved = _read(location.state)
  except (ValueError, KeyError, OSError, AttributeError) as error:
    raise errors.UserError(
      f"checkpoint {str(location.state)!r} cannot be read: {_line(error)}"
    ) from error
  params = saved["params"]
  if saved.get("ema"):
    params = trees.unflatten({**trees.flatten(params), **trees.flatten(saved["ema"])})
  return params, weights.read_config(location.config)


def _read(item: pathlib.Path) -> dict:
  """Reads a saved state as numpy arrays, with one device and from any mesh.

  The device is the CPU if jax supports it, else the first device of this machine.
  """
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    device = jax.local_devices()[0]
  with ocp.StandardCheckpointer() as reader:
    sharding = jax.sharding.SingleDeviceSharding(device)
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      reader.metadata(item).item_metadata.tree,
    )
    return jax.tree.map(jax.device_get, reader.restore(item, target))


def _line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:300]
