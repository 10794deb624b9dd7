"""What the probes predict: each robot's own actions and changes of state, over its own windows.

Data sets of several robots are padded with zeros to the widest, so a z that knows the data set
would read the padding. Here every robot is probed by itself. Legend: N windows to fit on, M
held-out windows, A dimensions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import positions, probes
from como_jax.tasks import latents

Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Robot:
  """The windows of one robot that have a target; rows number the windows to fit on and, behind
  them, the held-out ones.

  Attributes:
    label: of its data set.
    rows: int [N + M]. held_out: bool [N + M]. groups: motion of each [N + M].
    scored: int [M], the held-out ones, numbered among the held-out windows.
    values: targets without padding [N + M, A].
    names: of the dimensions.
    positions: bool [A], the actions that are positions and so stand as action minus state; None
      where actions and states cannot be compared, and for the change of state.
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
  """One target of all robots that have it, and what is to be said about it."""

  name: str  # "action" or "state"
  robots: tuple[Robot, ...]
  notes: tuple[str, ...]

  @property
  def groups(self) -> np.ndarray:
    """Motion of every sample, robot after robot, as a pooled probe numbers them."""
    return np.concatenate([robot.groups for robot in self.robots])

  @property
  def positions(self) -> float | None:
    """Share of the action dimensions that are positions, mean over held-out windows; None where
    that is not known of any.
    """
    known = [
      (one.positions.mean(), one.held_out.sum()) for one in self.robots if one.positions is not None
    ]
    if not known:
      return None
    shares, windows = zip(*known, strict=False)
    return float(np.average(shares, weights=windows))

  def probe(self, run, z: np.ndarray, *, seed: int) -> probes.ProbeResult:
    """The result of a probe (`linear_probe.probe` and its like) of inputs [N + M, Z] on each robot,
    pooled.
    """
    results = [
      run(
        z[one.rows],
        one.values,
        episodes=one.groups,
        names=one.names,
        held_out=one.held_out,
        seed=seed,
      )
      for one in self.robots
    ]
    return probes.pool(
      results, [one.label for one in self.robots], [one.groups for one in self.robots]
    )


def build(
  name: str,
  fit: Columns,
  held_out: Columns,
  *,
  names: Mapping[str, Sequence[Any]],
  datasets: Sequence[str],
) -> Target:
  """The robots of a target.

  Args:
    name: "action" or "state".
    fit, held_out: columns of the windows.
    names: "action" and "state" -> names of the dimensions of each data set, None where it gives
      none.
    datasets: labels.
  """
  sides = [latents.having(columns, name) for columns in (fit, held_out)]
  if not all(side.any() for side in sides):
    return Target(name, (), (f"the data has no {name}: no probe of it",))
  whole = _join(fit, held_out)
  has, side = np.concatenate(sides), np.arange(len(whole["group"])) >= len(fit["group"])
  kinds = np.unique(np.stack([whole["dataset"], whole[f"{name}_size"]], 1)[has], axis=0)
  robots, notes = [], []
  for dataset, size in kinds:
    rows = np.flatnonzero(has & (whole["dataset"] == dataset) & (whole[f"{name}_size"] == size))
    label = datasets[dataset] + (f", {size} numbers" if (kinds[:, 0] == dataset).sum() > 1 else "")
    if len(np.unique(whole["group"][rows][~side[rows]])) < 2 or not side[rows].any():
      few = (
        "fewer than 2 episodes to fit on have "
        f"one{'' if side[rows].any() else ', and no held-out one'}"
      )
      notes.append(f"{name}{f' of {label}' if len(kinds) > 1 else ''}: {few}: no probe of it")
      continue
    values = whole[latents.TARGETS[name]][rows, 1, :size].astype(np.float64)
    found = _compared(whole, rows, side[rows], names, dataset) if name == "action" else None
    if found is not None and found[0].dimensions.any():
      values = found[0].motion(values, found[1])
    scored = rows[side[rows]] - len(fit["group"])
    robots.append(
      Robot(
        label,
        rows,
        side[rows],
        whole["group"][rows],
        scored,
        values,
        latents.names(names[name][dataset], size, name),
        None if found is None else found[0].dimensions,
      )
    )
  return Target(name, tuple(robots), (*notes, *_notes(name, robots, len(held_out["group"]))))


def _compared(
  whole: Columns,
  rows: np.ndarray,
  held_out: np.ndarray,
  names: Mapping[str, Sequence[Any]],
  dataset: int,
):
  """(positions, mean state of each window in the order of the actions [N + M, A]), judged by the
  windows to fit on; None where the
  actions have no states to compare with: other names and another number of them.
  """
  if "state_mean" not in whole or not whole["has_state"][rows].all():
    return None
  size, state_size = int(whole["action_size"][rows[0]]), np.unique(whole["state_size"][rows])
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

  state, change = take(whole["state_mean"]), take(whole["state_delta"])
  following = (
    state + change / np.maximum(whole["stride"][rows], 1)[:, None]
  )  # the mean over the same frames, one later
  fitted = rows[~held_out]
  action = whole["action"][fitted, 1, :size]
  return positions.detect(action, following[~held_out], change[~held_out]), state


def _order(
  action: Sequence[str] | None, state: Sequence[str] | None, size: int, state_size: int
) -> list[int] | None:
  """Of each action dimension the state dimension of the same name (-1: none); where none has one,
  in order if as many; else None.
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
  notes, counts = [], [int(one.held_out.sum()) for one in robots]
  if robots and sum(counts) < windows:
    those = ", ".join(dict.fromkeys(one.label for one in robots))
    notes.append(
      f"{name}: {sum(counts)} of {windows} held-out windows have one, those of {those}: "
      "the probes are of these"
    )
  if len(robots) > 1:
    parts = "; ".join(
      f"{one.label}: {one.values.shape[1]} dimensions, {count} held-out windows"
      for one, count in zip(robots, counts, strict=False)
    )
    notes.append(
      f"{name}: each robot is probed on its own dimensions over its own windows, and the mean "
      f"over windows stands here ({parts})"
    )
  for one in robots:
    if one.positions is not None and one.positions.any():
      which = (
        "the actions"
        if one.positions.all()
        else f"{int(one.positions.sum())} of {len(one.positions)} actions"
      )
      notes.append(
        f"action of {one.label}: {which} are positions (the next state tells them), which no "
        "motion tells: probed is action minus state, and the change of state beside it"
      )
  return notes


def _join(fit: Columns, held_out: Columns) -> dict[str, np.ndarray]:
  return {name: np.concatenate([fit[name], held_out[name]]) for name in held_out if name in fit}
