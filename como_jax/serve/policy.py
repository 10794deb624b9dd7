"""A trained policy ready to act: observations in, chunks of actions in the robot's own units out.

Rollouts and the server use this one class, so that both see exactly the transforms the policy was
trained with: they are read from `policy.json` beside the weights (of an older version from its
stored config), never from a training config file.

Legend: n requests, T history, C camera slots, H W image, S state, A action, K chunk, L language
tokens, E their width.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from como_jax import errors, language
from como_jax.data import policy_spec, value_transforms, video
from como_jax.observations import IMAGE, STATE, TASK, Observation
from como_jax.serve import observed, policy_checkpoint


class Policy:
  """One robot's policy. `infer` may be called from any one thread at a time.

  Attributes:
    robot: whose actions it gives. state_dim, action_dim: S and A. action_names: as in the data.
    action_horizon: K. history: T. image_size: H = W the model sees. cameras: names of the slots
      that this robot's data fill; the others stay empty.
    step_seconds: time between two elements of a chunk, and between two frames of the history.
    metadata: the above as JSON values, for clients.
  """

  def __init__(
    self,
    restored: policy_checkpoint.RestoredPolicy,
    *,
    robot: str = "",
    num_sampling_steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 1,
  ):
    """Prepares one robot's part; compiles nothing.

    Args:
      restored: the policy.
      robot: "" takes the only one there is.
      num_sampling_steps: of the sampler; None as configured.
      guidance_scale: weight of the instruction (1 = none); None as configured.
      batch_size: the most requests answered by one call of the model; smaller numbers are padded to
        a power of two.

    Raises:
      errors.UserError: an unknown robot, or one whose gripper was not trained.
    """
    spec, name = restored.spec, restored.name
    self._model, self._params = restored.model, restored.params
    self.robot = _choose_robot(robot, self._model.robots, name)
    self._facts = spec.robots[self.robot]
    _check_classified(self._model, self.robot, self._facts, name)
    self.state_dim, self.action_dim = self._facts.state, self._facts.action
    self.action_names, self.step_seconds = self._facts.action_names, self._facts.step_seconds
    self.action_horizon, self.image_size = self._model.action_horizon, self._model.image_size
    self.cameras = tuple(name for name in self._facts.cameras if name)
    self._geometry = video.Geometry(self.image_size, spec.resize)
    # clients may send any number of instructions
    self._encode = language.build(spec.language, cache=False)
    self._rows = spec.row_builder()
    self.history = self._rows.history
    self._name, self._batch_size, self._sampling_steps = name, batch_size, num_sampling_steps
    self._guidance_scale = float(spec.guidance_scale if guidance_scale is None else guidance_scale)
    self._jitted_sample = jax.jit(self._sample)

  @classmethod
  def load(cls, path: str, **settings: Any) -> "Policy":
    """From a run directory or weights folder; settings as for the constructor.

    Raises:
      errors.UserError: no path, nothing there, or another kind of model.
    """
    if not path:
      raise errors.UserError(
        "config.checkpoint is empty: give the run directory or weights folder of a policy"
      )
    restored = policy_checkpoint.restore(*policy_checkpoint.load(path), name=str(path))
    return cls(restored, **settings)

  @property
  def metadata(self) -> dict[str, Any]:
    """All that a client needs to know, as JSON values."""
    return {
      "robot": self.robot,
      "cameras": list(self.cameras),
      "image_size": self.image_size,
      "history": self.history,
      "chunk": self.action_horizon,
      "action_dim": self.action_dim,
      "action_names": list(self.action_names),
      "state_dim": self.state_dim,
      "step_seconds": self.step_seconds,
      "steps": self._sampling_steps,
      "guidance": self._guidance_scale,
      "checkpoint": pathlib.Path(self._name).name,
      "instructions": dict(self._facts.instructions),
      "unused_cameras": list(self._facts.unused_cameras),
    }

  def infer(self, histories: Sequence[Sequence[Observation]], *, seed: int = 0) -> np.ndarray:
    """Chunks of actions for n robots.

    Args:
      histories: for each robot its last observations, oldest first, 1 to T of them (the oldest
        stands in for those before it); frames uint8 [H, W, 3] of any size.
      seed: of the sampler's noise; the same seed, histories and batch give the same actions.

    Returns:
      float32 [n, K, A], in the units of the data the policy was trained on.

    Raises:
      errors.UserError: an observation lacks something, or has it in another shape; the message
        names it.
    """
    parts = [
      self._infer(histories[i : i + self._batch_size], seed + i)
      for i in range(0, len(histories), self._batch_size)
    ]
    return (
      np.concatenate(parts)
      if parts
      else np.zeros((0, self.action_horizon, self.action_dim), np.float32)
    )

  def warm_up(self) -> None:
    """Compiles every length of an instruction and every batch size that `infer` can meet."""
    self._encode.warm_up()
    blank = {
      STATE: np.zeros(self.state_dim, np.float32),
      TASK: next(iter(self._facts.instructions["examples"]), ""),
    }
    blank |= {
      IMAGE + camera: np.zeros((self.image_size, self.image_size, 3), np.uint8)
      for camera in self.cameras
    }
    for size in self._sizes():
      self.infer([[blank]] * size)

  def _sizes(self) -> list[int]:
    sizes = [2**i for i in range(self._batch_size.bit_length()) if 2**i <= self._batch_size]
    return sizes if sizes[-1] == self._batch_size else [*sizes, self._batch_size]

  def batch(self, histories: Sequence[Sequence[Observation]]) -> dict[str, np.ndarray]:
    """The model's arrays for n robots, padded to a size that is compiled.

    Arguments and errors as for `infer`.
    """
    padded = next(size for size in self._sizes() if size >= len(histories))
    rows = [self._row(history) for history in histories]
    rows += [rows[0]] * (padded - len(rows))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

  def sample(self, batch: Mapping[str, Any], key: jax.Array) -> jax.Array:
    """Normalized actions float32 [rows of the batch, K, A], on the device."""
    return self._jitted_sample(self._params, batch, key)

  def _sample(
    self, params: Mapping[str, Any], batch: Mapping[str, Any], key: jax.Array
  ) -> jax.Array:
    """As `sample`, to be compiled."""
    return self._model.sample(
      params,
      batch,
      key,
      robot=self.robot,
      num_sampling_steps=self._sampling_steps,
      guidance_scale=self._guidance_scale,
    )

  def _infer(self, histories, seed: int) -> np.ndarray:
    actions = np.asarray(self.sample(self.batch(histories), jax.random.key(seed)))[: len(histories)]
    return value_transforms.invert(self._facts.transforms["action"], actions).astype(np.float32)

  def _row(self, history: Sequence[Observation]) -> dict[str, np.ndarray]:
    """One example without targets, as in training."""
    history = self._rows.pad_history(history)
    slots = [
      np.stack([observed.image(seen, camera, self._geometry) for seen in history])
      if camera
      else None
      for camera in self._facts.cameras
    ]
    state = observed.state(history[-1], self.state_dim) if self.state_dim else None
    return {
      **self._rows.images(slots),
      **self._rows.non_image_inputs(self.robot, state, self._text(history[-1])),
    }

  def _text(self, seen: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [L, E] and mask [L] of the instruction."""
    tokens, mask = self._encode([observed.text(seen, self._facts.instructions)])
    return tokens[0], mask[0]


def _choose_robot(robot: str, known: tuple[str, ...], name: str) -> str:
  """The robot that is asked for; "" takes the only one.

  Raises:
    errors.UserError: several robots and none was asked for, or an unknown robot.
  """
  if not robot and len(known) != 1:
    raise errors.UserError(
      f"checkpoint {name} knows several robots: choose one of {', '.join(known)}"
    )
  robot = robot or known[0]
  if robot not in known:
    raise errors.UserError(
      f"checkpoint {name} knows no robot {robot!r}: {errors.nearest(robot, known)}"
    )
  return robot


def _check_classified(model: Any, robot: str, facts: policy_spec.RobotSpec, name: str) -> None:
  """Raises errors.UserError if an action that the model classifies has no two known values."""
  classified = getattr(model.action_head, "gripper", {}).get(robot, ())
  if untrained := set(classified) - set(facts.two_valued):
    names = ", ".join(facts.action_names[dim] for dim in sorted(untrained))
    raise errors.UserError(
      f"checkpoint {name}: the two values of {names} are not known and were not trained (it is "
      "of an older version): train the policy again"
    )
