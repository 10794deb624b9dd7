"""From the observations of waiting episodes to the actions that they execute, by a policy.

Legend: n actions that are executed, A numbers of an action.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from como_jax import chunks, errors
from como_jax.observations import IMAGE, STATE, TASK, Observation
from como_jax.sim import base, vector


class Policy(Protocol):
  """What a rollout uses of a policy, for example of `serve.policy.Policy`."""

  @property
  def robot(self) -> str:
    """Name of the robot that it controls."""
    ...

  @property
  def action_dim(self) -> int:
    """A."""
    ...

  @property
  def action_horizon(self) -> int:
    """Number of actions of a chunk."""
    ...

  @property
  def history(self) -> int:
    """Maximum number of observations of a request."""
    ...

  @property
  def step_seconds(self) -> float:
    """Time between two actions of a chunk."""
    ...

  @property
  def cameras(self) -> Sequence[str]:
    """Names of its camera slots."""
    ...

  def infer(
    self, histories: Sequence[Sequence[Observation]], *, seed: int = 0
  ) -> Sequence[np.ndarray] | np.ndarray:
    """Chunks of actions, one for each history of observations (oldest first)."""
    ...


class Planner:
  """Asks the policy for all waiting episodes at once."""

  def __init__(
    self,
    policy: Policy,
    cameras: Sequence[str],
    spec: base.Spec,
    *,
    execute: int,
    ensemble: float,
    seed: int,
  ):
    """Checks that the policy fits the simulator.

    Args:
      policy: the policy.
      cameras: cameras of the simulator, one for each slot of the policy.
      spec: of the simulator.
      execute: actions of a chunk that are executed before the next request; 0 = all.
      ensemble: decay of the average over overlapping chunks; 0 = the newest chunk alone.
      seed: of the policy's noise.

    Raises:
      errors.UserError: the policy's actions are not the simulator's, a chunk has fewer actions than
        `execute`, or the average has no overlapping chunks.
    """
    if policy.action_dim != len(spec.action_names):
      raise errors.UserError(
        f"the policy gives {policy.action_dim} action numbers for robot {policy.robot!r}, "
        f"{spec.name} takes {len(spec.action_names)}: {', '.join(spec.action_names)}"
      )
    if execute > policy.action_horizon:
      raise errors.UserError(
        f"config.execute = {execute}: the policy's chunks have {policy.action_horizon} elements"
      )
    if ensemble and not 0 < execute < policy.action_horizon:
      raise errors.UserError(
        "config.ensemble needs overlapping chunks: set config.execute to "
        f"1..{policy.action_horizon - 1}, for example 1"
      )
    self._policy, self._seed, self._ensemble = policy, seed, ensemble
    self._execute = execute or policy.action_horizon
    self._names = [
      (IMAGE + slot, IMAGE + camera) for slot, camera in zip(policy.cameras, cameras, strict=True)
    ]
    self._averages: dict[int, chunks.TemporalEnsemble] = {}

  def __call__(self, waiting: Sequence[vector.ActionRequest]) -> list[np.ndarray]:
    """Actions [n, A] for each waiting episode."""
    histories = [
      [self._slots(observation) for observation in request.history] for request in waiting
    ]
    # The noise belongs to these requests: it does not depend on what was played before, only on
    # what shares the batch.
    key = np.random.SeedSequence(
      [
        self._seed,
        *(number for request in waiting for number in (request.job.number, request.plan)),
      ]
    )
    actions = self._policy.infer(histories, seed=int(key.generate_state(1)[0] >> 1))
    return [
      self._executed(request, np.asarray(chunk))
      for request, chunk in zip(waiting, actions, strict=True)
    ]

  def _slots(self, observation: base.Observation) -> dict[str, Any]:
    """An observation of the simulator, with the policy's names of the cameras."""
    return {
      STATE: observation[STATE],
      TASK: observation[TASK],
      **{slot: observation[camera] for slot, camera in self._names},
    }

  def _executed(self, request: vector.ActionRequest, chunk: np.ndarray) -> np.ndarray:
    """The actions of a chunk that are executed, averaged over overlapping chunks."""
    if not self._ensemble:
      return chunk[: self._execute]
    if request.plan == 0:  # a new episode, or one that is played again
      self._averages[request.job.number] = chunks.TemporalEnsemble(
        self._ensemble, execute=self._execute
      )
    return self._averages[request.job.number](chunk)
