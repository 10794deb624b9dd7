"""See the package."""

import numpy as np

class Policy:
  """An expert of one task."""

  def get_action(self, obs: np.ndarray) -> np.ndarray: ...

ENV_POLICY_MAP: dict[str, type[Policy]]
