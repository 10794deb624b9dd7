"""Reads an exam set (`exam.npz`) and foreign latents.

Legend: V views, P = 2V pairs, A numbers asked for, Z latent width.

A view is a chain (three pictures, two independent moves) seen by one camera in one scene; pair 2v
is pictures 0 -> 1 of view v, pair 2v + 1 is pictures 1 -> 2.
"""

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors

TABLE = "exam.npz"
BUNDLED = pathlib.Path(__file__).parent.parent / "assets" / "exam"  # folder of the tiers that ship
# parts: to fit on; unseen cameras and scenes; unseen scenes, cameras of FIT
FIT, TEST, SAME_CAMERA = 0, 1, 2
LABELS = ("scene", "camera", "objects", "palette")  # classes of a view that motion does not tell
_VIEWS = ("chain", *LABELS, "part")


@dataclasses.dataclass(frozen=True)
class ExamSet:
  """An exam.

  Attributes:
    views: name -> int [V]: "chain", "camera", "scene", "objects", "palette", "part".
    camera_speed: [V, 2] of the camera during each pair, 0 = it stands still.
    target, target_robot: moves [P, A] in the first picture's camera, [P, B] in the robot's frame.
    names, names_robot: of their numbers.
    errors: control -> squared errors [pairs of part TEST, A], in the target's own units.
    errors_robot: control -> squared errors [pairs of part SAME_CAMERA, B].
    numbers: name -> numbers of the view [V, k] (colors, light, pose of the camera).
    limit: the smallest error that any reader of one picture can have, known from how the moves were
      drawn; None: not known.
    pictures: what moves in the three pictures of each view of part TEST [views, 3, C], as
      components of their tokens (tasks/exam_set.py: `picture_components`); None in sets without.
  """

  views: Mapping[str, np.ndarray]
  camera_speed: np.ndarray
  target: np.ndarray
  target_robot: np.ndarray
  names: tuple[str, ...]
  names_robot: tuple[str, ...]
  errors: Mapping[str, np.ndarray]
  errors_robot: Mapping[str, np.ndarray]
  numbers: Mapping[str, np.ndarray]
  limit: float | None = None
  pictures: np.ndarray | None = None

  @property
  def pairs(self) -> int:
    return len(self.target)

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of `views`, for each pair [P]."""
    return np.repeat(self.views[name], 2)

  def rows(self, part: int) -> np.ndarray:
    """Positions of a part's pairs."""
    return np.flatnonzero(self.of_pairs("part") == part)

  @property
  def variance(self) -> np.ndarray:
    """Of the target over the test's moves [A]: the mean of squares, since moves are drawn with mean
    zero. So knowing nothing has an error of 1 on these very moves, not up to the chance of their
    draw.
    """
    return (self.target[self.rows(TEST)] ** 2).mean(axis=0)

  @property
  def variance_robot(self) -> np.ndarray:
    """As `variance`, of `target_robot` [B]."""
    return (self.target_robot[self.rows(SAME_CAMERA)] ** 2).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Latents:
  """Latents of the pairs `z` [P, Z], and where the model can make them: `z_ac` [V, Z] of pictures 0
  -> 2, `z_ba` [P, Z] of the pairs reversed, `z_aa` [V, Z] of picture 0 and itself, `z_shifted` [V,
  Z] of pictures 0 -> 1, both moved by the same few pixels.
  """

  z: np.ndarray
  z_ac: np.ndarray | None = None
  z_ba: np.ndarray | None = None
  z_aa: np.ndarray | None = None
  z_shifted: np.ndarray | None = None


def load(path: Any) -> ExamSet:
  """The exam in a folder (its exam.npz) or in a file.

  Raises:
    errors.UserError: no such file, an array that is missing, of another shape, or holds values that
      are not finite.
  """
  path = pathlib.Path(path)
  path = path / TABLE if path.is_dir() else path
  table = _read(path)
  missing = [
    n
    for n in (*_VIEWS, "camera_speed", "target", "target_robot", "names", "names_robot")
    if n not in table
  ]
  if missing:
    raise errors.UserError(
      f"{path}: array {missing[0]!r} is missing: {errors.nearest(missing[0], table)}"
    )
  views = {name: _whole(path, table, name) for name in _VIEWS}
  count = len(views["chain"])
  unknown = set(np.unique(views["part"]).tolist()) - {FIT, TEST, SAME_CAMERA}
  if unknown:
    raise errors.UserError(
      f"{path}: part: expected 0 (fit), 1 (test) and 2 (same cameras), found {sorted(unknown)}"
    )
  names, names_robot = (tuple(str(n) for n in table[name]) for name in ("names", "names_robot"))
  for name, values in views.items():
    _shape(path, name, values, (count,))
  pairs = {part: 2 * int((views["part"] == part).sum()) for part in (FIT, TEST, SAME_CAMERA)}
  if not (pairs[FIT] and pairs[TEST]):
    raise errors.UserError(
      f"{path}: part: expected views of 0 (fit) and 1 (test), found {pairs[FIT]} and "
      f"{pairs[TEST]} pairs"
    )
  stored = {
    prefix: {n.partition("/")[2]: n for n in table if n.startswith(prefix + "/")}
    for prefix in ("errors", "errors_robot", "numbers")
  }
  return ExamSet(
    views=views,
    camera_speed=_finite(path, "camera_speed", table["camera_speed"], (count, 2)),
    target=_finite(path, "target", table["target"], (2 * count, len(names))),
    target_robot=_finite(
      path, "target_robot", table["target_robot"], (2 * count, len(names_robot))
    ),
    names=names,
    names_robot=names_robot,
    errors={
      n: _finite(path, key, table[key], (pairs[TEST], len(names)))
      for n, key in stored["errors"].items()
    },
    errors_robot={
      n: _finite(path, key, table[key], (pairs[SAME_CAMERA], len(names_robot)))
      for n, key in stored["errors_robot"].items()
    },
    numbers={
      n: _finite(path, key, table[key], (count, None)) for n, key in stored["numbers"].items()
    },
    limit=float(_finite(path, "limit", table["limit"], (len(names),)).mean())
    if "limit" in table
    else None,
    pictures=_finite(path, "pictures", table["pictures"], (pairs[TEST] // 2, 3, None))
    if "pictures" in table
    else None,
  )


def load_latents(path: Any, exam: ExamSet) -> Latents:
  """Foreign latents of an exam's pairs: `z`, and the others of `Latents` where they are there;
  other arrays are ignored.

  Raises:
    errors.UserError: no such file, no `z`, an array of another shape, or rows that are not finite.
  """
  path = pathlib.Path(path)
  table = _read(path)
  if "z" not in table:
    raise errors.UserError(f"{path}: array 'z' is missing: {errors.nearest('z', table)}")
  names = (field.name for field in dataclasses.fields(Latents))
  return latents({name: table[name] for name in names if name in table}, exam, path=path)


def latents(arrays: Mapping[str, Any], exam: ExamSet, *, path: Any = "latents") -> Latents:
  """Checked latents of arrays by the names of `Latents`; `path` names them in errors, which are
  those of `load_latents`.
  """
  width = np.shape(arrays["z"])[-1] if np.ndim(arrays["z"]) == 2 else None
  rows = {"z": exam.pairs, "z_ba": exam.pairs}  # the others: of views
  return Latents(
    **{
      name: _finite(path, name, values, (rows.get(name, exam.pairs // 2), width))
      for name, values in arrays.items()
    }
  )


def controls(stored: Mapping[str, np.ndarray], kind: str) -> list[str]:
  """Names of the controls of a kind, "first", "second" or "both": the kind itself or "KIND_...".

  An oracle that knows the true pose ("oracle_second_linear") is none of them.
  """
  return [name for name in stored if name == kind or name.startswith(kind + "_")]


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except FileNotFoundError:
    raise errors.UserError(f"{path}: no such file") from None
  except (zipfile.BadZipFile, zlib.error, ValueError, AttributeError, EOFError, TypeError) as error:
    raise errors.UserError(
      f"{path}: expected arrays written by numpy.savez ({type(error).__name__}: {error})"
    ) from None
  except OSError as error:
    raise errors.UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _whole(path: pathlib.Path, table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  values = table[name]
  if values.ndim != 1 or values.dtype.kind not in "iu":
    raise errors.UserError(
      f"{path}: {name}: expected whole numbers [V], found {values.dtype} {list(values.shape)}"
    )
  return values.astype(np.int64)


def _shape(path: Any, name: str, values: np.ndarray, shape: tuple[int | None, ...]) -> None:
  fits = len(shape) == values.ndim and all(
    want in (None, have) for want, have in zip(shape, values.shape, strict=False)
  )
  if not fits or not values.shape[-1]:
    wanted = ", ".join("numbers" if n is None else str(n) for n in shape)
    raise errors.UserError(f"{path}: {name}: expected [{wanted}], found {list(values.shape)}")


def _finite(path: Any, name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
  """Checked, in float64."""
  values = np.asarray(values)
  if values.dtype.kind not in "fiub":
    raise errors.UserError(f"{path}: {name}: expected numbers, found {values.dtype}")
  _shape(path, name, values, shape)
  wrong = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
  if wrong.any():
    first = int(np.flatnonzero(wrong)[0])
    raise errors.UserError(
      f"{path}: {name}: {int(wrong.sum())} of {len(values)} rows hold values that are not finite "
      f"(the first: row {first})"
    )
  return values.astype(np.float64)
