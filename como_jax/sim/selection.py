"""What a rollout uses of a simulator: its tasks, the arguments of `build`, and its cameras.

Each choice is checked before a worker starts; messages name the key of the config.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.sim import base

# arguments of a simulator's `build` that have keys of their own in the config
_OWN = ("task", "cameras", "image_size", "stride", "scene")


def task_names(
  tasks: Iterable[str], known: Mapping[str, str], *, simulator: str
) -> tuple[str, ...]:
  """The tasks to play, with suites ("libero_10") spelled out.

  Args:
    tasks: names of tasks and suites; empty = all tasks.
    known: task of the simulator -> instruction.
    simulator: its name, for messages.

  Raises:
    errors.UserError: naming the nearest task or suite.
  """
  names: list[str] = []
  for task in tuple(tasks) or tuple(known):
    suite = [name for name in known if name.startswith(f"{task}/")]
    if task not in known and not suite:
      valid = {*known, *(name.rpartition("/")[0] for name in known if "/" in name)}
      raise errors.UserError(
        f"config.tasks: {simulator} task {task!r} is unknown: {errors.nearest(task, valid)}"
      )
    names += suite or [task]
  return tuple(dict.fromkeys(names))


def builder(
  build: Callable[..., base.Simulator], options: Mapping[str, Any], *, simulator: str
) -> functools.partial[base.Simulator]:
  """A simulator's `build` with further arguments; workers import it by name.

  Args:
    build: of the simulator's module.
    options: the further arguments (config.build).
    simulator: its name, for messages.

  Raises:
    errors.UserError: an argument that it does not have.
  """
  known = set(inspect.signature(build).parameters).difference(_OWN)
  for name in options:
    if name not in known:
      raise errors.UserError(
        f"config.build: {simulator} has no {name!r}: {errors.nearest(name, known)}"
      )
  return functools.partial(build, **options)


def camera_names(
  chosen: Sequence[str],
  known: Sequence[str],
  *,
  slots: Sequence[str] | None,
  video: bool,
  simulator: str,
) -> tuple[str, ...]:
  """Cameras of the simulator to render, in the order of the policy's slots.

  Args:
    chosen: config.cameras; empty = those of the same names as the slots.
    known: cameras of the simulator.
    slots: names of the policy's camera slots; None = no policy looks.
    video: whether a video is recorded.
    simulator: its name, for messages.

  Raises:
    errors.UserError: a camera that the simulator does not have, or another number of cameras than
      of slots.
  """
  if slots is not None and chosen and len(chosen) != len(slots):
    raise errors.UserError(
      f"config.cameras names {len(chosen)} cameras, the policy has {len(slots)} slots: "
      + ", ".join(slots)
    )
  if chosen:
    names = tuple(chosen)
  elif slots is not None:
    names = tuple(slots)
  else:  # experts are blind; a video needs a camera
    names = tuple(known[:1]) if video else ()
  for name in names:
    if name not in known:
      raise errors.UserError(
        f"{simulator} has no camera {name!r}: {errors.nearest(name, known)}; "
        "config.cameras names one for each of the policy's slots"
      )
  return names


def spec(
  build: Callable[..., base.Simulator], task: str, *, cameras: Sequence[str], image_size: int
) -> base.Spec:
  """The spec of a task; the simulator is built once and closed."""
  simulator = build(task, cameras=tuple(cameras), image_size=image_size)
  simulator.close()
  return simulator.spec
