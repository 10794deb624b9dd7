"""Saves and restores the checkpoints of a run (Orbax, asynchronous)."""

import contextlib
import json
import logging
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from como_jax import errors, trees, weights
from como_jax.parallel import distributed, rules
from como_jax.train import atomic, checkpoint, frozen_weights, integrity, memory, single_reading

# {path: [shape, dtype]} of the saved state, needed because Orbax casts types silently; of frozen
# weights, which are not in the steps, with the checksum of their file
SPEC = "state_spec.json"


class Checkpointer:
  """Saves the state and the data position of a run under `workdir`/checkpoints.

  Every process of a run has a Checkpointer and calls each method at the same step. Together they
  write one checkpoint into a shared directory; each process writes its own shards. A checkpoint can
  be restored onto any mesh and any number of processes. Frozen weights are written once, beside the
  checkpoints (frozen_weights.py).
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int, frozen: tuple[str, ...] = ()):
    """Opens the folder of checkpoints.

    Args:
      workdir: the run directory.
      keep: number of steps that are kept.
      frozen: patterns of the frozen parameters of the states.
    """
    self._folder = (pathlib.Path(workdir) / checkpoint.FOLDER).absolute()
    self._frozen = frozen_weights.FrozenWeights(self._folder.parent, frozen)
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

  def save(self, step: int, state: Any) -> None:
    """Starts to save the state; a second save of the same step does nothing.

    The data position is the step (data/pipeline.py).

    Raises:
      errors.StorageError: this save or the previous one cannot be written.
    """
    if step in self._manager.all_steps():
      return
    trained, frozen = self._frozen.split(state)
    data: dict[str, Any] = {"position": step, "version": integrity.VERSION}
    with self._writing(step):
      if frozen:
        data[frozen_weights.KEY] = self._frozen.save(frozen)
      if distributed.is_primary():
        self._write_spec(state, frozen)
      self._manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(trained), data=ocp.args.JsonSave(data)),
      )
    self._end_seal()  # of the previous save, which Orbax has waited for
    if distributed.is_primary():
      written = threading.Event()
      thread = threading.Thread(target=self._run_seal, args=(step, written), daemon=True)
      self._seal = thread, written
      thread.start()

  def _write_spec(self, state: Any, frozen: dict[str, Any]) -> None:
    """Writes the description of the state, unless it is there."""
    outside = {f"params/{name}": [self._frozen.checksum] for name in trees.flatten(frozen)}
    spec = {name: entry + outside.get(name, []) for name, entry in describe(state).items()}
    if not self._spec.exists() or weights.read_json(self._spec) != spec:
      atomic.write(self._spec, json.dumps(spec, indent=0))

  def restore(self, state: Any, mesh: jax.sharding.Mesh) -> Any:
    """Restores the newest valid state; None where nothing has been saved.

    A damaged step is renamed (never deleted) and printed; the step before it is used.

    Args:
      state: gives structure, shapes and types; and the frozen weights, where their file is lost and
        they are the same.
      mesh: for the restored arrays.

    Raises:
      errors.UserError: names the leaves that do not match, or the checkpoint or the frozen weights
        that cannot be read.
    """

    def check() -> None:
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
        checksum = distributed.broadcast_from_primary(frozen_weights.checksum_of(folder))
        trained, frozen = self._frozen.split(target) if checksum else (target, {})
        restored, problem = self._restore(step, trained)
        if not problem:
          return self._frozen.restore(restored, checksum, frozen, state) if checksum else restored
      if distributed.is_primary():
        set_aside.append(str(integrity.set_aside(folder)))
        print(
          f"checkpoint {folder} is damaged ({problem}): set aside as {set_aside[-1]}, the one "
          "before it is taken"
        )
      distributed.broadcast_from_primary("")  # a barrier: all processes see the new name
      self._manager.reload()
    if distributed.broadcast_from_primary(", ".join(set_aside)):
      raise errors.SharedUserError(
        f"--resume: no good checkpoint is left in {self._folder} (damaged and set aside: "
        f"{', '.join(set_aside) or 'all'}): --resume once more starts from step 0"
      )
    return None

  def _problem(self, folder: pathlib.Path) -> str:
    """Describes the damage of a step's files, "" for none; the same in every process."""
    part = dict(index=jax.process_index(), count=jax.process_count())
    try:
      distributed.run_on_all_processes(lambda: integrity.check(folder, **part))
    except (integrity.Damaged, errors.SharedUserError) as error:
      return str(error)
    return ""

  def _restore(self, step: int, target: Any) -> tuple[Any, str]:
    """Returns (state, "") or (None, reason why it cannot be read).

    A step with correct checksums is not damaged, so a failure to read it raises UserError.
    """
    try:
      if single_reading.replicas(target) > 1:
        return single_reading.restore(self._folder / str(step) / integrity.STATE, target), ""
      items = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
      )
      return self._manager.restore(step, args=items)["state"], ""
    except Exception as error:  # Orbax and TensorStore raise many types
      intact = (self._folder / str(step) / integrity.CHECKSUMS).is_file() or jax.process_count() > 1
      if intact or _is_machine_error(error):
        raise errors.UserError(
          f"checkpoint {self._folder / str(step)} cannot be read: {checkpoint.first_line(error)}"
        ) from error
      return None, checkpoint.first_line(error)

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
      finite = checkpoint.all_finite(checkpoint.read_state(folder / integrity.STATE))
      return "" if finite else "it holds numbers that are not finite"
    except Exception as error:  # Orbax and TensorStore raise many types
      if _is_machine_error(error):
        raise
      return f"it cannot be read: {checkpoint.first_line(error)}"

  def wait(self) -> None:
    """Waits until the last save is committed and has its checksums.

    Raises:
      errors.StorageError: the save cannot be written.
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
  def _writing(self, step: int | None) -> Iterator[None]:
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
      raise errors.StorageError(
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


def describe(state: Any) -> dict[str, list]:
  """Returns {path: [shape, dtype]} of a pytree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)]
    for path, leaf in leaves
  }


def check_spec(saved: dict[str, list], expected: dict[str, list], *, what: str) -> None:
  """Compares two descriptions strictly.

  Args:
    saved: as returned by `describe`, or as in `SPEC`.
    expected: as returned by `describe`.
    what: name of the checkpoint, for the message.

  Raises:
    errors.UserError: names missing and surplus leaves, and leaves of another shape or type.
  """
  saved = {name: entry[:2] for name, entry in saved.items()}
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
