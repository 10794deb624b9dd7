"""Checkpoints of a run (Orbax, asynchronous) and how other stages read the weights of one.

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

# Orbax warns about files that it does without, and logs what it raises as well
absl_logging.set_verbosity(absl_logging.FATAL)

FOLDER = "checkpoints"
# {path: [shape, dtype]} of the saved state: Orbax itself casts types silently
SPEC = "state_spec.json"
WEIGHTS = "weights"


class Checkpointer:
  """Saves the state and the data position of a run under `workdir`/checkpoints.

  Every process of a run has one and calls each method at the same step: they write one checkpoint
  together, each its own shards, into a directory that all of them see. It is read back onto any
  mesh and any number of processes.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int):
    self._folder = (pathlib.Path(workdir) / FOLDER).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._spec = pathlib.Path(workdir) / SPEC
    self._seal: tuple[threading.Thread, threading.Event] | None = None
    self._failed = False
    if not _unraisable:  # once: another's hook may call ours
      _unraisable.append(sys.unraisablehook)
      sys.unraisablehook = _say_unraisable

  def latest(self) -> int | None:
    """The newest committed step, as process 0 sees the directory."""
    step = self._manager.latest_step()
    return json.loads(distributed.broadcast_from_primary(json.dumps(step)))

  def save(self, step: int, state) -> None:
    """Starts saving; a second save of the same step does nothing.

    The data position is the step (data/pipeline.py).

    Raises:
      errors.Storage: this save or the one before it cannot be written.
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
    self._end_seal()  # of the save before this one, which Orbax has waited for
    if distributed.is_primary():
      written = threading.Event()
      self._seal = (
        threading.Thread(target=self._run_seal, args=(step, written), daemon=True),
        written,
      )
      self._seal[0].start()

  def restore(self, state, mesh: jax.sharding.Mesh):
    """The newest good state, on this mesh, or None where nothing has been saved; `state` gives
    structure, shapes and types.

    A damaged step is set aside (renamed, never deleted) and named, and the one before it is taken.

    Raises:
      errors.UserError: naming the leaves that do not fit, or the checkpoint that cannot be read.
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
    aside = []
    while (step := self.latest()) is not None:
      folder = self._folder / str(step)
      distributed.run_on_all_processes(lambda folder=folder: integrity.check_version(folder))
      problem = self._problem(folder)
      if not problem:
        restored, problem = self._restore(step, target)
        if not problem:
          return restored
      if distributed.is_primary():
        aside.append(str(integrity.set_aside(folder)))
        print(
          f"checkpoint {folder} is damaged ({problem}): set aside as {aside[-1]}, the one "
          "before it is taken"
        )
      distributed.broadcast_from_primary("")  # nobody looks before it is renamed
      self._manager.reload()
    if distributed.broadcast_from_primary(", ".join(aside)):
      raise errors.Shared(
        f"--resume: no good checkpoint is left in {self._folder} (damaged and set aside: "
        f"{', '.join(aside) or 'all'}): --resume once more starts from step 0"
      )
    return None

  def _problem(self, folder: pathlib.Path) -> str:
    """What is wrong with a step as far as its files show it, "" for nothing; the same in every
    process.
    """
    part = dict(index=jax.process_index(), count=jax.process_count())
    try:
      distributed.run_on_all_processes(lambda: integrity.check(folder, **part))
    except (integrity.Damaged, errors.Shared) as error:
      return str(error)
    return ""

  def _restore(self, step: int, target):
    """(state, "") or (None, why it cannot be read).

    What has its checksums cannot be damaged: then it is an error.
    """
    try:
      items = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
      )
      return self._manager.restore(step, args=items).state, ""
    except Exception as error:  # Orbax and TensorStore raise all kinds
      known = (self._folder / str(step) / integrity.CHECKSUMS).is_file() or jax.process_count() > 1
      if known or _of_the_machine(error):
        raise errors.UserError(
          f"checkpoint {self._folder / str(step)} cannot be read: {_line(error)}"
        ) from error
      return None, _line(error)

  def restart_point(self, step: int) -> int | None:
    """The newest step to go on from after a loss that was not finite; later ones are set aside.

    Every process must call it.

    Args:
      step: the one with that loss. It was computed from the weights of the step before it and a
        batch that comes again, so going on from there would meet it again, whatever the learning
        rate.
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
    """Why nothing can go on from a step, "" where it can."""
    try:
      return (
        ""
        if all_finite(_read(folder / integrity.STATE))
        else "it holds numbers that are not finite"
      )
    except Exception as error:  # Orbax and TensorStore raise all kinds
      if _of_the_machine(error):
        raise
      return f"it cannot be read: {_line(error)}"

  def wait(self) -> None:
    """Until the last save is committed and has its checksums.

    Raises `errors.Storage` where it cannot be written.
    """
    with self._writing(None):
      self._manager.wait_until_finished()
    self._end_seal()

  def close(self) -> None:
    """Waits and closes."""
    with contextlib.ExitStack() as stack:
      if self._failed:  # it has been said; Orbax says it once more
        stack.enter_context(contextlib.suppress(Exception))
      with self._writing(None):
        self._manager.close()
    self._end_seal()

  @contextlib.contextmanager
  def _writing(self, step: int | None):
    """Turns what a full disk or a read-only directory raises into one line."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      text = atomic.storage_problem(error)
      if not text:
        raise
      self._failed = True
      # it lists every write that was under way
      logging.getLogger("asyncio").setLevel(logging.CRITICAL)
      last = next((one for one in integrity.steps(self._folder) if one != step), None)
      good = f"the last one is of step {last}" if last is not None else "there is no earlier one"
      raise errors.Storage(
        f"cannot write a checkpoint into {self._folder}: {text}; {good}: make room, then give "
        "--resume"
      ) from error

  def _run_seal(self, step: int, written: threading.Event) -> None:
    folder = self._folder / str(step)
    while not folder.is_dir() and not written.wait(0.05):  # it appears when it is committed
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


_unraisable: list = []  # what sys.unraisablehook was


def _say_unraisable(unraisable: Any) -> None:
  """`sys.unraisablehook` without what says nothing: when a write of a checkpoint fails (a full
  disk), Orbax closes its event loop, and each of the hundreds of writes under way then calls back
  into it from a thread of TensorStore. `_writing` tells the failure itself.
  """
  error, trace = unraisable.exc_value, unraisable.exc_traceback
  # no code of Python called it
  begins_there = trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
    "asyncio."
  )
  if not (
    isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and begins_there
  ):
    _unraisable[-1](unraisable)


def _of_the_machine(error: Exception) -> bool:
  """Whether a step cannot be read for want of memory or permission, which says nothing of the
  step.
  """
  # TensorStore's own
  return (
    isinstance(error, PermissionError)
    or memory.is_out_of_memory(error)
    or "RESOURCE_EXHAUSTED" in str(error)
  )


def all_finite(tree) -> bool:
  """Whether no number of a pytree of numpy arrays is infinite or not a number."""
  return all(
    np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
  )


def describe(state) -> dict[str, list]:
  """{path: [shape, dtype]} of a pytree."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)]
    for path, leaf in leaves
  }


def check_spec(saved: dict[str, list], expected: dict[str, list], *, what: str) -> None:
  """Compares two descriptions strictly.

  Raises:
    errors.UserError: naming missing, surplus and misshapen leaves.
  """
  missing = [name for name in expected if name not in saved]
  surplus = [name for name in saved if name not in expected]
  other = [
    f"{name} is {saved[name][1]}{saved[name][0]}, expected {expected[name][1]}{expected[name][0]}"
    for name in expected
    if name in saved and saved[name] != expected[name]
  ]
  if missing or surplus or other:
    parts = [
      f"{len(names)} {kind}: " + "; ".join(names[:3])
      for kind, names in (
        ("missing", missing),
        ("surplus", surplus),
        ("of another shape or type", other),
      )
      if names
    ]
    raise errors.UserError(f"checkpoint {what} is of another model: " + " | ".join(parts))


@dataclasses.dataclass(frozen=True)
class Found:
  """Where the weights that a path means are.

  Attributes:
    weights: a weights-only folder, or None: then they are in `state`, the state of a checkpoint.
    config: the config that belongs to them.
    step: the training step they are of; None where nothing says it.
    notes: what the user must be told about the choice, a line each.
  """

  weights: pathlib.Path | None
  state: pathlib.Path | None
  config: pathlib.Path
  step: int | None
  notes: tuple[str, ...] = ()


def find(path: str | pathlib.Path) -> Found:
  """The weights that a path means: a weights-only folder as it is, of a run directory the newest
  good state it holds.

  Raises:
    errors.UserError: when the path is neither, or holds nothing that is whole.
  """
  path = pathlib.Path(path)
  if (path / weights.PARAMS).is_file():
    return _explicit(path)
  exported, config, folder = path / WEIGHTS, path / weights.CONFIG, path / FOLDER
  if not path.exists():
    near = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise errors.UserError(
      f"checkpoint {str(path)!r} does not exist: {errors.nearest(str(path), near)}"
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
        f"{exported} is of step {_word(exported_step)}, the newest checkpoint of step {step}: the "
        f"checkpoint is used (give {exported} to use that folder)"
      )
    return Found(None, saved / integrity.STATE, config, step, tuple(notes))
  if has_weights:
    return Found(exported, None, exported / weights.CONFIG, exported_step, tuple(notes))
  what = "; ".join(notes) or f"{str(folder)!r} holds no committed checkpoint yet"
  raise errors.UserError(what)


def _explicit(folder: pathlib.Path) -> Found:
  """A weights folder that was named: it is used, and said when the run around it has gone
  further.
  """
  step, parent = weights.read_step(folder), folder.absolute().parent
  newest = (
    next(iter(integrity.steps(parent / FOLDER)), None)
    if folder.absolute().name == WEIGHTS
    else None
  )
  notes = ()
  if newest is not None and (step is None or newest > step):
    notes = (
      f"{folder} is of step {_word(step)}, its run has a checkpoint of step {newest}: the folder "
      f"is used, as given (give {parent} to use the checkpoint)",
    )
  return Found(folder, None, folder / weights.CONFIG, step, notes)


def _word(step: int | None) -> str:
  return "unknown" if step is None else str(step)


def load(path: str | pathlib.Path) -> tuple[dict, dict]:
  """Parameters (nested dict of numpy arrays) and config of what `find` finds; what the user must
  know about it is printed.

  Raises:
    errors.UserError: when the path is neither a run nor a weights folder, or what it holds cannot
      be read.
  """
  found = find(path)
  for note in found.notes:
    print(f"note: {note}")
  if found.weights:
    return weights.load(found.weights)
  try:
    saved = _read(found.state)
  except (ValueError, KeyError, OSError, AttributeError) as error:
    raise errors.UserError(
      f"checkpoint {str(found.state)!r} cannot be read: {_line(error)}"
    ) from error
  params = saved["params"]
  if saved.get("ema"):
    params = trees.unflatten({**trees.flatten(params), **trees.flatten(saved["ema"])})
  return params, weights.read_json(found.config)


def _read(item: pathlib.Path) -> dict:
  """A saved state as numpy arrays, read by one device of this machine (its CPU, where jax has it),
  whatever mesh it was saved on.
  """
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    device = jax.local_devices()[0]
  with ocp.StandardCheckpointer() as reader:
    one = jax.sharding.SingleDeviceSharding(device)
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one),
      reader.metadata(item).item_metadata.tree,
    )
    return jax.tree.map(jax.device_get, reader.restore(item, target))


def _line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:300]
