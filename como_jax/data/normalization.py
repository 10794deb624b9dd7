"""Statistics of a policy's data, and the named transforms that follow from them.

The transforms map actions and states of each robot, and latent motion, to normalized numbers and
back. They are stored in `policy.json`; the statistics are not needed again.

Legend: D size of a vector.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from como_jax import errors
from como_jax.data.statistics import Statistics
from como_jax.data.value_transforms import ValueTransform

KEYS = ("action", "state")
Transforms = tuple[ValueTransform, ...]


@dataclasses.dataclass(frozen=True)
class Normalization:
  """Transforms from the units of the data to normalized numbers, in order.

  Attributes:
    robots: name -> "action" and "state" -> transforms; "state" is absent where a robot has none.
    latent: of the latent motion; None without labels.
  """

  robots: Mapping[str, Mapping[str, Transforms]]
  latent: Transforms | None = None


@dataclasses.dataclass(frozen=True)
class MixtureStatistics:
  """Statistics of the training examples of a mixture.

  Attributes:
    robots: name -> "action" and "state" -> statistics; "state" is absent where a robot has none.
    latent: of the latent motion; None without labels.
  """

  robots: Mapping[str, Mapping[str, Statistics]]
  latent: Statistics | None = None

  def normalization(self, mode: str) -> Normalization:
    """The transforms of these statistics.

    Args:
      mode: "standard" (mean 0, standard deviation 1) or "quantile" (1 % and 99 % quantiles to -1
        and 1).

    Raises:
      errors.UserError: an unknown mode.
    """
    # A state is only seen, an action is served: it must be one of its two values.
    robots = {
      robot: {key: values.transforms(mode, snap=key == "action") for key, values in parts.items()}
      for robot, parts in self.robots.items()
    }
    return Normalization(robots, self.latent and self.latent.transforms(mode))


def from_json(values: Mapping[str, Any]) -> tuple[str, MixtureStatistics]:
  """(mode, statistics) of the section `normalization` that older versions stored in a config.

  Raises:
    errors.UserError: it is something else.
  """
  try:
    robots = {
      str(name): {key: Statistics.from_json(parts[key]) for key in KEYS if key in parts}
      for name, parts in values["robots"].items()
    }
    lacking = [name for name, parts in robots.items() if "action" not in parts]
    if lacking:
      raise KeyError(f"robots.{lacking[0]}.action")
    latent = values["latent"]
    return str(values["mode"]), MixtureStatistics(
      robots, None if latent is None else Statistics.from_json(latent)
    )
  except errors.UserError:
    raise
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise errors.UserError(
      f"not the normalization of a policy, expected mode, robots and latent ({error!r})"
    ) from error
