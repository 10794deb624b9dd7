"""What a server and a rollout need of a policy.

Legend: n requests, T history, K chunk, A action dims, S state dims.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from como_jax.observations import Observation


class Policy(Protocol):
  """A policy that can be served; `serve.policy.Policy` is the one with a trained model."""

  @property
  def cameras(self) -> Sequence[str]:
    """Names of the cameras that the policy uses."""
    ...

  @property
  def history(self) -> int:
    """T, the number of observations that the policy uses."""
    ...

  @property
  def action_horizon(self) -> int:
    """K, the number of actions that one observation gives."""
    ...

  @property
  def state_dim(self) -> int:
    """S; 0 = the policy uses no state."""
    ...

  @property
  def action_dim(self) -> int:
    """A, the dimensions of an action."""
    ...

  @property
  def metadata(self) -> Mapping[str, Any]:
    """Facts for clients, as JSON values."""
    ...

  def warm_up(self) -> None:
    """Compiles what `infer` needs, so that no request waits for it."""
    ...

  def infer(self, histories: Sequence[Sequence[Observation]], *, seed: int = 0) -> np.ndarray:
    """Chunks of actions for n robots.

    Args:
      histories: for each robot its last observations, oldest first, 1 to T of them.
      seed: of the random numbers.

    Returns:
      float32 [n, K, A].

    Raises:
      errors.UserError: an observation that the policy refuses.
    """
    ...
