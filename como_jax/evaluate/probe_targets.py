"""Targets of the probes: the actions and changes of state of each robot, over its own windows.

Actions and states of several robots are padded with zeros to the largest width. A z that knows the
data set could predict the padding, so each robot is probed separately.

Legend: N windows to fit on, M held-out windows, A dimensions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from como_jax.evaluate import positions, probes

Columns = Mapping[str, np.ndarray]
# "action" and "state" -> names of the dimensions in each data set; None: it has no names.
Names = Mapping[str, Sequence[Sequence[str] | None]]
# Target of the probes -> column of the windows.
TARGETS = {"action": "action", "state": "state_delta"}


@dataclasses.dataclass(frozen=True)
class Robot:
  """The windows of a robot that have a target.

  Attributes:
    label: label of its data set.
    rows: indices of the windows, int [N + M]; held-out windows are counted after those to fit on.
    held_out: bool [N + M].
    groups: motion of each window [N + M].
    scored: indices of its held-out windows among all held-out windows, int [M].
    values: targets without padding [N + M, A].
    names: names of the dimensions.
    positions: the actions that are positions, for which `values` is action minus state, bool [A];
      None if actions and states cannot be compared, and for the change of state.
  """

  label: str
  rows: np.ndarray
  held_out: np.ndarray
  groups: np.ndarray
  scored: np.ndarray
  values: np.ndarray
  names: tuple[str, ...]
  positions: np.ndarray | None = None


class Probe(Protocol):
  """A probe with a split that is given, such as `linear_probe.probe`."""

  def __call__(
    self,
    z: np.ndarray,
    targets: np.ndarray,
    /,
    *,
    episodes: np.ndarray,
    names: Sequence[str],
    held_out: np.ndarray,
    seed: int,
  ) -> probes.ProbeResult:
    """Fits on the other samples and scores on those that are held out."""
    ...


@dataclasses.dataclass(frozen=True)
class Target:
  """A target of all robots that have it, with notes for the report."""

  name: str  # "action" or "state"
  robots: tuple[Robot, ...]
  notes: tuple[str, ...]

  @property
  def groups(self) -> np.ndarray:
    """Motion of each sample, robot after robot, in the order of pooled probes."""
    return np.concatenate([robot.groups for robot in self.robots])

  @property
  def positions(self) -> float | None:
    """Share of the action dimensions that are positions, mean over held-out windows.

    None if it is not known for any robot.
    """
    share_and_windows = [
      (robot.positions.mean(), robot.held_out.sum())
      for robot in self.robots
      if robot.positions is not None
    ]
    if not share_and_windows:
      return None
    shares, windows = zip(*share_and_windows, strict=False)
    return float(np.average(shares, weights=windows))

  def probe(self, run: Probe, z: np.ndarray, *, seed: int) -> probes.ProbeResult:
    """Probes each robot and pools the results.

    Args:
      run: a probe, such as `linear_probe.probe`.
      z: inputs [N + M, Z].
      seed: seed of the probe.
    """
    results = [
      run(
        z[robot.rows],
        robot.values,
        episodes=robot.groups,
        names=robot.names,
        held_out=robot.held_out,
        seed=seed,
      )
      for robot in self.robots
    ]
    return probes.pool(
      results, [robot.label for robot in self.robots], [robot.groups for robot in self.robots]
    )


def having(columns: Columns, name: str) -> np.ndarray:
  """The windows that have a target ("action" or "state"), bool [M]."""
  has_target = columns["has_" + name]
  return has_target if TARGETS[name] in columns else np.zeros(len(has_target), bool)


def dimension_names(names: Sequence[str] | None, size: int, what: str) -> tuple[str, ...]:
  """Names of the dimensions of an action or state; numbered if the data set has no names.

  Args:
    names: names in the manifest of the data set, or None.
    size: number of dimensions.
    what: prefix of the numbered names.
  """
  if names and len(names) == size:
    return tuple(str(name) for name in names)
  return tuple(f"{what} {i}" for i in range(size))


def build(
  name: str, fit: Columns, held_out: Columns, *, names: Names, datasets: Sequence[str]
) -> Target:
  """Builds a target with its robots.

  Args:
    name: "action" or "state".
    fit: columns of the windows to fit on.
    held_out: columns of the held-out windows.
    names: "action" and "state" -> names of the dimensions of each data set; None: no names.
    datasets: labels of the data sets.
  """
  sides = [having(columns, name) for columns in (fit, held_out)]
  if not all(side.any() for side in sides):
    return Target(name, (), (f"the data has no {name}: no probe of it",))
  columns = {key: np.concatenate([fit[key], held_out[key]]) for key in held_out if key in fit}
  has_target = np.concatenate(sides)
  is_held_out = np.arange(len(columns["group"])) >= len(fit["group"])
  sizes = np.stack([columns["dataset"], columns[f"{name}_size"]], axis=1)
  kinds = np.unique(sizes[has_target], axis=0)  # a robot is a data set and its number of dimensions
  robots, notes = [], []
  for dataset, size in kinds.tolist():
    rows = np.flatnonzero(has_target & (sizes == (dataset, size)).all(axis=1))
    several_sizes = (kinds[:, 0] == dataset).sum() > 1
    label = datasets[int(dataset)] + (f", {size} numbers" if several_sizes else "")
    if reason := _too_few(columns["group"][rows], is_held_out[rows]):
      of_label = f" of {label}" if len(kinds) > 1 else ""
      notes.append(f"{name}{of_label}: {reason}: no probe of it")
      continue
    robot = _robot(name, label, columns, rows, is_held_out[rows], names=names)
    scored = rows[robot.held_out] - len(fit["group"])
    robots.append(dataclasses.replace(robot, scored=scored))
  return Target(name, tuple(robots), (*notes, *_notes(name, robots, len(held_out["group"]))))


def _too_few(groups: np.ndarray, held_out: np.ndarray) -> str:
  """Why a robot cannot be probed with these windows; "" if it can."""
  if len(np.unique(groups[~held_out])) >= 2 and held_out.any():
    return ""
  no_held_out = "" if held_out.any() else ", and no held-out one"
  return f"fewer than 2 episodes to fit on have one{no_held_out}"


def _robot(
  name: str, label: str, columns: Columns, rows: np.ndarray, held_out: np.ndarray, *, names: Names
) -> Robot:
  """Builds a robot of a target; `scored` counts among all windows.

  Args:
    name: "action" or "state".
    label: label of the data set.
    columns: columns of all windows.
    rows: indices of the windows of this robot.
    held_out: whether each of them is held out.
    names: as for `build`.
  """
  dataset, size = (int(columns[key][rows[0]]) for key in ("dataset", f"{name}_size"))
  values = columns[TARGETS[name]][rows, 1, :size].astype(np.float64)
  is_position = None
  if name == "action" and (
    comparison := _compare_with_states(columns, rows, held_out, names, dataset)
  ):
    detected, state = comparison
    is_position = detected.dimensions
    if is_position.any():
      values = detected.motion(values, state)
  return Robot(
    label,
    rows,
    held_out,
    columns["group"][rows],
    rows[held_out],
    values,
    dimension_names(names[name][dataset], size, name),
    is_position,
  )


def _compare_with_states(
  columns: Columns, rows: np.ndarray, held_out: np.ndarray, names: Names, dataset: int
) -> tuple[positions.Positions, np.ndarray] | None:
  """Compares actions with states, to find actions that are positions.

  Only the windows to fit on are used to find them.

  Returns:
    (positions, mean state of each window in the order of the actions [N + M, A]); None if the
    actions have no states to compare with, that is, other names and another number of dimensions.
  """
  if "state_mean" not in columns or not columns["has_state"][rows].all():
    return None
  size, state_sizes = int(columns["action_size"][rows[0]]), np.unique(columns["state_size"][rows])
  if len(state_sizes) != 1:
    return None
  order = _order(names["action"][dataset], names["state"][dataset], size, int(state_sizes[0]))
  if order is None:
    return None
  matched = np.array(order) >= 0

  def take(values: np.ndarray) -> np.ndarray:
    return np.where(matched, values[rows, 1][:, order], 0.0)

  state, change = take(columns["state_mean"]), take(columns["state_delta"])
  # The mean state over the same frames, one frame later.
  following = state + change / np.maximum(columns["stride"][rows], 1)[:, None]
  fitted = rows[~held_out]
  action = columns["action"][fitted, 1, :size]
  return positions.detect(action, following[~held_out], change[~held_out]), state


def _order(
  action: Sequence[str] | None, state: Sequence[str] | None, size: int, state_size: int
) -> list[int] | None:
  """The state dimension of each action dimension.

  It is the dimension of the same name (-1: none). If no names are equal, dimensions are matched in
  order if their numbers are equal, else the result is None.
  """
  named = (len(action or ()), len(state or ())) == (size, state_size)
  if action and state and named and set(action) & set(state):
    return [list(state).index(name) if name in state else -1 for name in action]
  return list(range(size)) if size == state_size else None


def _notes(name: str, robots: Sequence[Robot], windows: int) -> list[str]:
  """What the report says of the windows and robots of a target, and of actions as positions.

  Args:
    name: "action" or "state".
    robots: the robots that are probed.
    windows: number of held-out windows, with and without this target.
  """
  notes, counts = [], [int(robot.held_out.sum()) for robot in robots]
  if robots and sum(counts) < windows:
    labels = ", ".join(dict.fromkeys(robot.label for robot in robots))
    notes.append(
      f"{name}: {sum(counts)} of {windows} held-out windows have one, those of {labels}: "
      "the probes are of these"
    )
  if len(robots) > 1:
    parts = "; ".join(
      f"{robot.label}: {robot.values.shape[1]} dimensions, {count} held-out windows"
      for robot, count in zip(robots, counts, strict=False)
    )
    notes.append(
      f"{name}: each robot is probed on its own dimensions over its own windows, and the mean "
      f"over windows stands here ({parts})"
    )
  for robot in robots:
    if robot.positions is not None and robot.positions.any():
      count, dimensions = int(robot.positions.sum()), len(robot.positions)
      which = "the actions" if robot.positions.all() else f"{count} of {dimensions} actions"
      notes.append(
        f"action of {robot.label}: {which} are positions (the next state tells them), which no "
        "motion tells: probed is action minus state, and the change of state beside it"
      )
  return notes
