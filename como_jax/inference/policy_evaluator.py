"""Offline error of a policy on held-out examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from como_jax.data import value_transforms
from como_jax.serve import policy_checkpoint
from como_jax.train import rng

TARGETS = ("actions", "actions_mask", "latents", "latents_mask")


class PolicyEvaluator:
  """Squared error of one sampled chunk per held-out example, in units of the variance.

  The variance is that of `policy.normalization` "standard", so 0 is perfect. A policy that ignores
  the observation gets 1 when it regresses (it predicts the mean action), and 2 when it samples
  (DiT, diffusion or mixture heads): a random draw from the right distribution adds its own
  variance. Dimensions that never move are left out. Dimensions that take two values (grippers) are
  counted separately, by how often the right one of the two is predicted.

  The parameters are rounded as for acting, so the policy is measured as it will be served.
  """

  def __init__(
    self,
    model: Any,
    actions: Mapping[str, Sequence[value_transforms.ValueTransform]],
    *,
    guidance_scale: float = 1.0,
    dtype: str = "float32",
  ):
    """Prepares to score a model.

    Args:
      model: a policy.
      actions: robot -> the transforms of its actions, in order.
      guidance_scale: weight of the instruction; 1 = none.
      dtype: that the model multiplies in.
    """
    self._model, self._dtype = model, dtype
    self._grippers = {robot: value_transforms.two_valued(of) for robot, of in actions.items()}
    self._constants = {robot: value_transforms.constants(of) for robot, of in actions.items()}
    self._guidance_scale = guidance_scale
    self._actions = jax.jit(self._sample, static_argnames="robot")
    self._latents = jax.jit(lambda params, batch, key: model.sample_latents(params, batch, key))

  def _sample(self, params, batch, key, robot):
    return self._model.sample(params, batch, key, robot=robot, guidance_scale=self._guidance_scale)

  def __call__(self, params, held_out) -> dict[str, float]:
    """Measures parameters on held-out examples.

    Args:
      params: parameters of the model.
      held_out: the examples (`data.policy_pipeline.EvaluationExamples`).

    Returns:
      Those of the following for which there are examples: "action_mse", "action_mse_first" (first
      element of the chunk only), "gripper_accuracy", "gripper_majority" (the accuracy of always
      predicting the more frequent value), "latent_mse".
    """
    params, sums = policy_checkpoint.cast_kernels(params, self._dtype), {}
    shares: dict[tuple[str, int], np.ndarray] = {}

    def add(name, error, mask):
      if mask.any():
        sums[name] = sums.get(name, np.zeros(2)) + [float((error * mask).sum()), float(mask.sum())]

    with held_out.batches() as batches:
      for step in range(held_out.num_batches):
        batch = next(batches)
        valid, key = batch["valid"], rng.key(0, "score", step)
        seen = {
          name: batch[name]
          for name in self._model.inputs_spec(1)
          if name in batch and name not in TARGETS
        }
        for number, robot in enumerate(self._model.robots):
          mask = batch["actions_mask"] & (valid & (batch["robot"] == number))[:, None, None]
          if mask.any():
            sampled = np.asarray(self._actions(params, seen, key, robot=robot))
            width = sampled.shape[-1]
            mask, target = mask[..., :width], batch["actions"][..., :width]
            error, grippers = np.square(sampled - target), list(self._grippers[robot])
            moves = ~np.isin(np.arange(width), [*grippers, *self._constants[robot]])
            add("action_mse", error, mask & moves)
            add("action_mse_first", error[:, 0], mask[:, 0] & moves)
            add(
              "gripper_accuracy",
              ((sampled > 0) == (target > 0))[..., grippers],
              mask[..., grippers],
            )
            for dim in grippers:
              high = (target[..., dim] > 0)[mask[..., dim]]
              shares[robot, dim] = shares.get((robot, dim), np.zeros(2)) + [
                high.sum(),
                (~high).sum(),
              ]
        mask = batch["latents_mask"] & valid[:, None]
        if mask.any():
          error = np.square(np.asarray(self._latents(params, seen, key)) - batch["latents"]).mean(
            -1
          )
          add("latent_mse", error, mask)
    scores = {name: float(total / count) for name, (total, count) in sums.items()}
    if shares:
      counts = np.stack(list(shares.values()))
      scores["gripper_majority"] = float(counts.max(1).sum() / counts.sum())
    return scores
