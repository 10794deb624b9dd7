"""What an example of a policy holds, the same in all of a run.

Legend: T history, C camera slots, H W image, S state, A action, K chunk of actions, M chunk of
latent motions, Z numbers of one latent motion, L language tokens, E their width.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from como_jax import errors
from como_jax.data import normalization, policy_row

REDUCTIONS = ("mean", "first", "last")
Language = Mapping[str, tuple[np.ndarray, np.ndarray]]  # instruction -> (tokens [L, E], mask [L])
Robots = Mapping[str, tuple[int, int]]  # name -> (A, S)


def check_reduction(name: str) -> None:
  """Raises `errors.UserError` for an unknown reduction of actions."""
  if name not in REDUCTIONS:
    raise errors.UserError(
      f"unknown reduction of actions {name!r}: {errors.nearest(name, REDUCTIONS)}"
    )


@dataclasses.dataclass(frozen=True)
class Layout:
  """What an example of a policy holds, the same in all of a run.

  Attributes:
    normalization: of actions, states and latent motions.
    language: instruction -> (tokens [L, E], mask [L]), for every instruction of the data; "" may be
      absent (no token).
    robots: name -> (A, S). Their numbers are their places in sorted order; the widest decides the
      padding.
    num_cameras, history: C and T; the history's frames are one policy step apart, and before a
      segment's first frame repeat it.
    action_horizon, reduce: K, and how the actions of a step become one: "mean", "first" or "last".
    motion_horizon, latent_size: M and Z.
    image_size: H = W.
    step_seconds: of an element of a chunk, see `policy_index.chunk_edges`; 0 = 1 frame.
  """

  normalization: normalization.Normalization
  language: Language
  robots: Robots
  num_cameras: int
  history: int
  action_horizon: int
  reduce: str
  motion_horizon: int
  latent_size: int
  image_size: int
  step_seconds: float

  def check(self) -> "Layout":
    """Raises `errors.UserError`."""
    check_reduction(self.reduce)
    if self.step_seconds < 0:
      raise errors.UserError(
        f"step_seconds is {self.step_seconds}, expected 0 (the data's own rate) or more"
      )
    for name, least in (
      ("num_cameras", 1),
      ("history", 1),
      ("action_horizon", 1),
      ("motion_horizon", 0),
      ("latent_size", 0),
      ("image_size", 1),
    ):
      if getattr(self, name) < least:
        raise errors.UserError(
          f"policy batches: {name} is {getattr(self, name)}, expected at least {least}"
        )
    return self

  def row_builder(self) -> policy_row.RowBuilder:
    """What builds the inputs of every example."""
    transforms = {
      name: self.normalization.robots[name]["state"]
      for name in self.names
      if "state" in self.normalization.robots.get(name, ())
    }
    return policy_row.RowBuilder(
      self.names, self.history, self.num_cameras, self.image_size, self.state_size, transforms
    )

  @property
  def names(self) -> tuple[str, ...]:
    """Robots in the order of their numbers: sorted, as config sections are."""
    return tuple(sorted(self.robots))

  @property
  def action_size(self) -> int:
    """A of the widest robot."""
    return max((sizes[0] for sizes in self.robots.values()), default=0)

  @property
  def state_size(self) -> int:
    """S of the widest robot."""
    return max((sizes[1] for sizes in self.robots.values()), default=0)
