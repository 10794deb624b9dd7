"""A trained policy ready to act: observations in, chunks of actions in the robot's own units out.

Rollouts and the server use this one class, so that both see exactly the transforms the policy was trained with: they are
rebuilt from the checkpoint (`normalisation`, `policy` and `model` of its config), never from a training config file.

Legend: n requests, T history, C camera slots, H W image, S state, A action, K chunk, L language tokens, E their width.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from como_jax import errors, language, models, trees
from como_jax.data import normalisation, video
from como_jax.train import checkpoint

Observation = Mapping[str, Any]  # the names of sim/base.py: STATE, IMAGE + camera, TASK
STATE, IMAGE, TASK = "observation.state", "observation.images.", "task"
KIND = "policy"


class Policy:
  """One robot's policy. `infer` may be called from any one thread at a time.

  Attributes:
    robot: whose actions it gives. state_dim, action_dim: S and A. action_names: as in the data.
    chunk: K. history: T. image_size: H = W the model sees. cameras: names of the C slots.
    step_seconds: time between two elements of a chunk, and between two frames of the history.
    metadata: the above as JSON values, for clients.
  """

  def __init__(self, params: Mapping[str, Any], config: Mapping[str, Any], *, robot: str = "", steps: int | None = None,
               guidance: float | None = None, batch_size: int = 1, name: str = "policy", encode: Callable | None = None):
    """Args:
      params: of the model.
      config: of the checkpoint.
      robot: "" takes the only one there is.
      steps: of the sampler; None as configured.
      guidance: weight of the instruction (1 = none); None as configured.
      batch_size: the most requests answered by one call of the model; smaller numbers are padded to a power of two.
      name: named in messages.
      encode: replaces the checkpoint's own text encoder (tests).

    Raises:
      errors.UserError: another kind of model, or an unknown robot.
    """
    check(config, name)
    settings = config["policy"]
    self._model = models.build(dict(config["model"]))
    shapes = jax.eval_shape(self._model.init, jax.random.key(0))
    self._params = jax.device_put(trees.merge(shapes, params, what=f"checkpoint {name}"))
    self._normaliser = normalisation.Normaliser.from_json(config["normalisation"])
    known = tuple(self._model.robots)
    if not robot and len(known) != 1:
      raise errors.UserError(f"checkpoint {name} knows several robots: choose one of {', '.join(known)}")
    self.robot = robot or known[0]
    if self.robot not in known:
      raise errors.UserError(f"checkpoint {name} knows no robot {self.robot!r}: {errors.nearest(self.robot, known)}")
    sizes = config["model"]["robots"][self.robot]
    self.state_dim, self.action_dim = int(sizes["state"]), int(sizes["action"])
    facts = config["robots"][self.robot]
    self.action_names = tuple(facts["action_names"]) or tuple(f"action {i}" for i in range(self.action_dim))
    self.chunk, self.history, self.image_size = self._model.chunk, int(config["model"]["history"]), self._model.image_size
    self.cameras, self.step_seconds = tuple(settings["cameras"]), float(facts["step_seconds"])
    self._encode = encode or language.build(config["language"])
    self._width, self._tokens = int(config["model"]["language"]["width"]), int(config["model"]["language"]["tokens"])
    self._texts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    self._batch_size, self._name = batch_size, name
    self._state_width = max(int(one["state"]) for one in config["model"]["robots"].values())
    guidance = float(settings.get("guidance", 1.0)) if guidance is None else float(guidance)

    def sample(params, batch, key):
      return self._model.sample(params, batch, key, robot=self.robot, steps=steps, guidance=guidance)
    self._sample = jax.jit(sample)
    self.metadata = {
        "robot": self.robot, "cameras": list(self.cameras), "image_size": self.image_size, "history": self.history,
        "chunk": self.chunk, "action_dim": self.action_dim, "action_names": list(self.action_names), "state_dim": self.state_dim,
        "step_seconds": self.step_seconds, "steps": steps, "guidance": guidance, "checkpoint": pathlib.Path(name).name}

  @classmethod
  def load(cls, path: str, **settings: Any) -> "Policy":
    """From a run directory or weights folder; settings as for the constructor.

    Raises:
      errors.UserError: no path, nothing there, or another kind of model.
    """
    if not path:
      raise errors.UserError("config.checkpoint is empty: give the run directory or weights folder of a policy")
    params, config = checkpoint.load(pathlib.Path(path))
    return cls(params, config, name=str(path), **settings)

  def infer(self, histories: Sequence[Sequence[Observation]], *, seed: int = 0) -> np.ndarray:
    """Chunks of actions for n robots.

    Args:
      histories: for each robot its last observations, oldest first, 1 to T of them (the oldest stands in for those
        before it); frames uint8 [H, W, 3] of any size.
      seed: of the sampler's noise; the same seed, histories and batch give the same actions.

    Returns:
      float32 [n, K, A], in the units of the data the policy was trained on.

    Raises:
      errors.UserError: an observation lacks something, or has it in another shape; the message names it.
    """
    parts = [self._infer(histories[i:i + self._batch_size], seed + i) for i in range(0, len(histories), self._batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, self.chunk, self.action_dim), np.float32)

  def warm_up(self) -> None:
    """Compiles every batch size that `infer` can meet."""
    blank = {STATE: np.zeros(self.state_dim, np.float32), TASK: ""}
    blank |= {IMAGE + camera: np.zeros((self.image_size, self.image_size, 3), np.uint8) for camera in self.cameras}
    for size in self._sizes():
      self.infer([[blank]] * size)

  def _sizes(self) -> list[int]:
    sizes = [2**i for i in range(self._batch_size.bit_length()) if 2**i <= self._batch_size]
    return sizes if sizes[-1] == self._batch_size else [*sizes, self._batch_size]

  def _infer(self, histories, seed: int) -> np.ndarray:
    count = len(histories)
    padded = next(size for size in self._sizes() if size >= count)
    rows = [self._row(history) for history in histories]
    rows += [rows[0]] * (padded - count)
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    actions = np.asarray(self._sample(self._params, batch, jax.random.key(seed)))[:count]
    return self._normaliser.inverse_actions(self.robot, actions).astype(np.float32)

  def _row(self, history: Sequence[Observation]) -> dict[str, np.ndarray]:
    """One example without targets, as in training (data/policy.py)."""
    if not 1 <= len(history) <= self.history:
      raise errors.UserError(f"a history of {len(history)} observations, expected 1 to {self.history}")
    history = [history[0]] * (self.history - len(history)) + list(history)
    images = np.stack([np.stack([self._image(seen, camera) for camera in self.cameras]) for seen in history])
    state = np.zeros(self._state_width, np.float32)
    if self.state_dim:
      state[:self.state_dim] = self._normaliser.state(self.robot, self._state(history[-1]))
    tokens, mask = self._text(history[-1])
    return {"images": images, "images_mask": np.ones(len(self.cameras), bool), "state": state,
            "state_mask": np.bool_(self.state_dim > 0), "robot": np.int32(self._model.robots.index(self.robot)),
            "language": tokens, "language_mask": mask}

  def _image(self, seen: Observation, camera: str) -> np.ndarray:
    if IMAGE + camera not in seen:
      given = [name.removeprefix(IMAGE) for name in seen if name.startswith(IMAGE)]
      raise errors.UserError(f"the observation has no camera {camera!r}: {errors.nearest(camera, given)}")
    image = np.asarray(seen[IMAGE + camera])
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
      raise errors.UserError(f"camera {camera!r} gives {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
    return video.resize(image, self.image_size, self.image_size)

  def _state(self, seen: Observation) -> np.ndarray:
    if STATE not in seen:
      raise errors.UserError(f"the observation has no {STATE!r} [{self.state_dim}]; it has: {', '.join(map(str, seen))}")
    state = np.asarray(seen[STATE])
    if state.shape != (self.state_dim,) or state.dtype.kind not in "fiu" or not np.isfinite(state).all():
      raise errors.UserError(f"{STATE} is {state.dtype} {list(state.shape)}, expected {self.state_dim} finite numbers")
    return state.astype(np.float32)

  def _text(self, seen: Observation) -> tuple[np.ndarray, np.ndarray]:
    text = seen.get(TASK, "")
    if not isinstance(text, str):
      raise errors.UserError(f"{TASK!r} is a {type(text).__name__}, expected a text")
    if text not in self._texts:
      if len(self._texts) >= 1024:  # a server meets any number of instructions
        self._texts.pop(next(iter(self._texts)))
      tokens, mask = self._encode([text])
      self._texts[text] = np.asarray(tokens[0], np.float32), np.asarray(mask[0], bool)
    return self._texts[text]


def check(config: Mapping[str, Any], name: str) -> None:
  """Raises errors.UserError unless a checkpoint's config is a policy's."""
  kind = config.get("model", {}).get("kind") or config.get("kind", "unknown")
  if kind != KIND or "normalisation" not in config:
    raise errors.UserError(f"checkpoint {name} holds a model of kind {kind!r}, a policy is expected")
