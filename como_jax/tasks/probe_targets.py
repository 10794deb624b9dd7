"""Targets of the probes: the actions and changes of state of each robot, over its own windows.

Actions and states of several robots are padded with zeros to the largest width. A z that knows the
data set could predict the padding, so each robot is probed separately.

Legend: N windows to fit on, M held-out windows, A dimensions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import positions, probes
from como_jax.inference import motion_evaluator

Columns = Mapping[str, np.ndarray]


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

  def probe(self, run, z: np.ndarray, *, seed: int) -> probes.ProbeResult:
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


def build(
  name: str,
  fit: Columns,
  held_out: Columns,
  *,
  names: Mapping[str, Sequence[Any]],
  datasets: Sequence[str],
) -> Target:
  """Builds a target with its robots.

  Args:
    name: "action" or "state".
    fit: columns of the windows to fit on.
    held_out: columns of the held-out windows.
    names: "action" and "state" -> names of the dimensions of each data set; None: no names.
    datasets: labels of the data sets.
  """
  sides = [motion_evaluator.having(columns, name) for columns in (fit, held_out)]
  if not all(side.any() for side in sides):
    return Target(name, (), (f"the data has no {name}: no probe of it",))
  joined = _join(fit, held_out)
  has_target, held_out_rows = (
    np.concatenate(sides),
    np.arange(len(joined["group"])) >= len(fit["group"]),
  )
  kinds = np.unique(np.stack([joined["dataset"], joined[f"{name}_size"]], 1)[has_target], axis=0)
  robots, notes = [], []
  for dataset, size in kinds:
    rows = np.flatnonzero(
      has_target & (joined["dataset"] == dataset) & (joined[f"{name}_size"] == size)
    )
    label = datasets[dataset] + (f", {size} numbers" if (kinds[:, 0] == dataset).sum() > 1 else "")
    if (
      len(np.unique(joined["group"][rows][~held_out_rows[rows]])) < 2
      or not held_out_rows[rows].any()
    ):
      reason = (
        "fewer than 2 episodes to fit on have "
        f"one{'' if held_out_rows[rows].any() else ', and no held-out one'}"
      )
      notes.append(f"{name}{f' of {label}' if len(kinds) > 1 else ''}: {reason}: no probe of it")
      continue
    values = joined[motion_evaluator.TARGETS[name]][rows, 1, :size].astype(np.float64)
    comparison = (
      _compare_with_states(joined, rows, held_out_rows[rows], names, dataset)
      if name == "action"
      else None
    )
    if comparison is not None and comparison[0].dimensions.any():
      values = comparison[0].motion(values, comparison[1])
    scored = rows[held_out_rows[rows]] - len(fit["group"])
    robots.append(
      Robot(
        label,
        rows,
        held_out_rows[rows],
        joined["group"][rows],
        scored,
        values,
        motion_evaluator.names(names[name][dataset], size, name),
        None if comparison is None else comparison[0].dimensions,
      )
    )
  return Target(name, tuple(robots), (*notes, *_notes(name, robots, len(held_out["group"]))))


def _compare_with_states(
  columns: Columns,
  rows: np.ndarray,
  held_out: np.ndarray,
  names: Mapping[str, Sequence[Any]],
  dataset: int,
):
  """Compares actions with states, to find actions that are positions.

  Only the windows to fit on are used to find them.

  Returns:
    (positions, mean state of each window in the order of the actions [N + M, A]); None if the
    actions have no states to compare with, that is, other names and another number of dimensions.
  """
  if "state_mean" not in columns or not columns["has_state"][rows].all():
    return None
  size, state_size = int(columns["action_size"][rows[0]]), np.unique(columns["state_size"][rows])
  order = (
    _order(names["action"][dataset], names["state"][dataset], size, int(state_size[0]))
    if len(state_size) == 1
    else None
  )
  if order is None:
    return None
  matched = np.array(order) >= 0

  def take(values):
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
  if (
    action
    and state
    and len(action) == size
    and len(state) == state_size
    and set(action) & set(state)
  ):
    return [list(state).index(name) if name in state else -1 for name in action]
  return list(range(size)) if size == state_size else None


def _notes(name: str, robots: Sequence[Robot], windows: int) -> list[str]:
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
      which = (
        "the actions"
        if robot.positions.all()
        else f"{int(robot.positions.sum())} of {len(robot.positions)} actions"
      )
      notes.append(
        f"action of {robot.label}: {which} are positions (the next state tells them), which no "
        "motion tells: probed is action minus state, and the change of state beside it"
      )
  return notes


def _join(fit: Columns, held_out: Columns) -> dict[str, np.ndarray]:
  return {name: np.concatenate([fit[name], held_out[name]]) for name in held_out if name in fit}
