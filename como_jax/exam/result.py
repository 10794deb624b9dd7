"""Result of the exam for one latent.

Legend: M pairs of the test, A target dimensions, Z latent width.
"""

import dataclasses

import numpy as np

from como_jax.exam import leakage
from como_jax.exam.motion_score import Moves, Score
from como_jax.exam.relations import Relation
from como_jax.exam.resampling import Estimate
from como_jax.exam.shares import Crossed, Shares
from como_jax.exam.spread import Spread
from como_jax.exam.verdict import FUTURE


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of the exam for one latent.

  Parts that the set or the latents do not allow are None or empty.

  Attributes:
    verdict: one of `verdict.MOTION`, `APPEARANCE`, `NOTHING`, `WITHHELD`.
    sentence: the verdict as a sentence with its numbers.
    score: S in unseen cameras and scenes, for moves in the camera's frame.
    score_robot: S in unseen scenes and the cameras of the fit part, for moves in the robot's frame.
    controls: name -> e of each stored control on the pairs of the test.
    cameras, scenes: S in each camera and in each scene. If some cameras do not move, `cameras` has
      only these: controls are chosen over all pairs, and a control may not know how a camera moves.
    identities: label -> how well it is predicted, on held-out chains of the fit part.
    numbers: name -> how well the view's numbers are predicted in unseen cameras and scenes.
    future: how well z predicts the pictures of the test's pairs, on held-out chains of the test.
    shares: shares of the variance of z over complete twins.
    crossed: e of moves of one camera, predicted by the probe of another camera.
    dose: speed of the camera -> e, in the moving cameras of the test.
    additivity, reversal, shifted, static: relations of whitened z (`Relation`,
      `relations.static`).
    errors, errors_robot: errors of the test's pairs [M, A] in units of the variance, for paired
      differences between latents.
    moves: the test's pairs: their chains and squared targets.
    names, names_robot: names of the target dimensions.
    width: Z.
    text: describes the probe of the moves.
    seconds: duration of the exam.
  """

  verdict: str
  sentence: str
  score: Score
  score_robot: Score | None
  controls: dict[str, float]
  cameras: Spread
  scenes: Spread
  identities: dict[str, leakage.Identity]
  numbers: dict[str, leakage.R2]
  future: leakage.PictureLeakage | None
  shares: Shares | None
  crossed: Crossed
  dose: dict[float, Estimate]
  additivity: Relation | None
  reversal: Relation | None
  shifted: Relation | None
  static: float | None
  errors: np.ndarray
  errors_robot: np.ndarray | None
  moves: Moves
  names: tuple[str, ...]
  names_robot: tuple[str, ...]
  width: int
  text: str
  seconds: float

  @property
  def flagged(self) -> tuple[str, ...]:
    """Labels of appearance that are readable, and `FUTURE` if the second picture is."""
    classes = tuple(name for name, label in self.identities.items() if label.flagged)
    return classes + ((FUTURE,) if self.future and self.future.flagged else ())

  def row(self) -> dict[str, float]:
    """The results as numbers by name, for a table of many latents; nan = withheld."""
    row = {
      "width": float(self.width),
      "seconds": self.seconds,
      "flagged": float(bool(self.flagged)),
    }
    estimates = {
      "s": self.score.s,
      "e_z": self.score.z,
      "e_single": self.score.single,
      "e_both": self.score.both,
    }
    if self.score_robot is not None:
      estimates |= {"s_robot": self.score_robot.s, "e_z_robot": self.score_robot.z}
      row |= {
        f"error_robot/{n}": v
        for n, v in zip(self.names_robot, self.score_robot.by_dimension.tolist(), strict=False)
      }
    estimates |= {f"excess/{name}": estimate.excess for name, estimate in self.identities.items()}
    estimates |= {f"read/{name}": r2.total for name, r2 in self.numbers.items()}
    if self.future:
      first, second = self.future.first.total, self.future.second.total
      estimates |= {"future/first": first, "future/second": second, "future/gap": self.future.gap}
    estimates |= {
      f"share/{name}": estimate
      for name, estimate in (self.shares.shares if self.shares else {}).items()
    }
    estimates |= {f"e_at_speed/{level:g}": estimate for level, estimate in self.dose.items()}
    for name in ("additivity", "reversal", "shifted"):
      if (relation := getattr(self, name)) is not None:
        estimates |= {name: relation.error, f"{name}_cosine": relation.cosine}
    for name, estimate in estimates.items():
      row |= {
        name: estimate.value,
        f"{name}_error": estimate.error,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
      }
    row |= {
      f"error/{n}": v for n, v in zip(self.names, self.score.by_dimension.tolist(), strict=False)
    }
    row |= {f"e_control/{name}": value for name, value in self.controls.items()}
    row |= {"e_own_camera": self.crossed.own, "e_other_camera": self.crossed.other}
    row |= {"s_range_cameras": self.cameras.range, "s_range_scenes": self.scenes.range}
    return row | ({} if self.static is None else {"static": self.static})
