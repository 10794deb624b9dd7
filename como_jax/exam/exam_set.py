"""The files of an exam set: `exam.npz`, and latents made by motion models or other programs.

Legend: V views, P = 2V pairs, A target dimensions, Z latent width.

A chain is three pictures with two independent moves. A view is a chain seen by one camera in one
scene. Pair 2v is pictures 0 -> 1 of view v, pair 2v + 1 is pictures 1 -> 2.
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
BUNDLED = pathlib.Path(__file__).parent.parent / "assets" / "exam"  # the sets in this package
# Parts of a set. FIT: probes are fitted on it. TEST: unseen cameras and scenes. SAME_CAMERA: unseen
# scenes, cameras of FIT.
FIT, TEST, SAME_CAMERA = 0, 1, 2
LABELS = ("scene", "camera", "objects", "palette")  # classes of a view, independent of the moves
_VIEWS = ("chain", *LABELS, "part")


@dataclasses.dataclass(frozen=True)
class ExamSet:
  """An exam: the views, the moves to be predicted, and the errors of stored controls.

  Attributes:
    views: name -> int [V]: "chain", "camera", "scene", "objects", "palette", "part".
    camera_speed: speed of the camera during each pair of a view [V, 2]; 0 = it does not move.
    target: moves [P, A] in the camera frame of the first picture.
    target_robot: moves [P, B] in the robot's frame.
    names, names_robot: names of the dimensions of `target` and of `target_robot`.
    errors: control -> squared errors [pairs of part TEST, A], in the units of `target`.
    errors_robot: control -> squared errors [pairs of part SAME_CAMERA, B].
    numbers: name -> properties of the view as numbers [V, k] (colors, light, pose of the camera).
    limit: the smallest error that is possible from one picture, known from the distribution of the
      moves; None: not known.
    pictures: what moves in the three pictures of each view of part TEST [views, 3, C], as
      components of their tokens (evaluate/exam_components.py: `moving`); None: not stored.
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
    """The number of pairs P."""
    return len(self.target)

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of `views`, repeated for each pair [P]."""
    return np.repeat(self.views[name], 2)

  def rows(self, part: int) -> np.ndarray:
    """Indices of the pairs of a part."""
    return np.flatnonzero(self.of_pairs("part") == part)

  @property
  def variance(self) -> np.ndarray:
    """Mean square of the target over the moves of part TEST [A].

    It is not centered, because moves are drawn with mean zero. In units of it, predicting zero has
    an error of exactly 1 on these moves, whatever moves were drawn.
    """
    return (self.target[self.rows(TEST)] ** 2).mean(axis=0)

  @property
  def variance_robot(self) -> np.ndarray:
    """Mean square of `target_robot` over the moves of part SAME_CAMERA [B]."""
    return (self.target_robot[self.rows(SAME_CAMERA)] ** 2).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Latents:
  """Latents of the pairs, and of other pictures if the model can make them.

  Attributes:
    z: [P, Z], of the pairs.
    z_ac: [V, Z], of pictures 0 -> 2.
    z_ba: [P, Z], of the reversed pairs.
    z_aa: [V, Z], of picture 0 and itself.
    z_shifted: [V, Z], of pictures 0 -> 1, both shifted by the same few pixels.
  """

  z: np.ndarray
  z_ac: np.ndarray | None = None
  z_ba: np.ndarray | None = None
  z_aa: np.ndarray | None = None
  z_shifted: np.ndarray | None = None


def find(location: str, tier: str) -> pathlib.Path:
  """The folder of a tier.

  Args:
    location: "bundled" for the set in this package, or the folder of a set of configs/exam_set.py.
    tier: name of the tier.

  Raises:
    errors.UserError: no such folder.
  """
  folder = (BUNDLED if location == "bundled" else pathlib.Path(location)) / tier
  if not (folder / TABLE).is_file():
    raise errors.UserError(
      f"config.exam.set={location!r}: {folder / TABLE} is missing; make a set with "
      "configs/exam_set.py, or give 'bundled'"
    )
  return folder


def save(folder: pathlib.Path, table: Mapping[str, np.ndarray]) -> None:
  """Writes exam.npz: values in float32, errors and properties of views in float16."""
  partial = folder / f"{TABLE}.partial.npz"
  # `Any`, since numpy.savez_compressed also has a keyword that is no array.
  arrays: dict[str, Any] = {name: _stored(name, values) for name, values in table.items()}
  np.savez_compressed(partial, **arrays)
  partial.replace(folder / TABLE)


def _stored(name: str, values: np.ndarray) -> np.ndarray:
  """An array of exam.npz in the type in which it is stored."""
  if name.startswith(("errors", "rows", "numbers")):
    # Errors far above 1 are all equally bad, so they are limited to the range of float16.
    return np.minimum(values, np.finfo(np.float16).max).astype(np.float16)
  return values.astype(np.float32) if values.dtype == np.float64 else values


def load(path: Any) -> ExamSet:
  """Reads the exam of a folder (its exam.npz) or of a file.

  Raises:
    errors.UserError: no such file, or an array that is missing, has another shape or holds values
      that are not finite.

  >>> exam = load(BUNDLED / "pushed")
  >>> exam.pairs, exam.names  # a latent for it is z [1900, Z], scored by `run.evaluate(exam, z)`
  (1900, ('right', 'away'))
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
  views, pairs = _read_views(path, table)
  count = len(views["chain"])
  names, names_robot = (tuple(str(n) for n in table[name]) for name in ("names", "names_robot"))
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


def save_latents(path: pathlib.Path, latents: Latents) -> None:
  """Writes latents as `load_latents` reads them."""
  arrays = {name: values for name, values in vars(latents).items() if values is not None}
  np.savez(path, **arrays)


def load_latents(path: Any, exam: ExamSet) -> Latents:
  """Reads latents from a file: `z` of the pairs, and the other arrays of `Latents` if present.

  Arrays with other names are ignored.

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
  """Checks latents and converts them to float64.

  Args:
    arrays: name of a field of `Latents` -> array; "z" is required.
    exam: the set.
    path: name of the latents in error messages.

  Raises:
    errors.UserError: an array of another shape, or rows that are not finite.
  """
  width = np.shape(arrays["z"])[-1] if np.ndim(arrays["z"]) == 2 else None
  rows = {"z": exam.pairs, "z_ba": exam.pairs}  # the other arrays have one row per view
  return Latents(
    **{
      name: _finite(path, name, values, (rows.get(name, exam.pairs // 2), width))
      for name, values in arrays.items()
    }
  )


def controls(stored: Mapping[str, np.ndarray], kind: str) -> list[str]:
  """Names of the stored controls of a kind: KIND itself or "KIND_...".

  An oracle that knows the true pose ("oracle_second_linear") is not included.

  Args:
    stored: control -> errors.
    kind: "first", "second" or "both".
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


def _read_views(
  path: pathlib.Path, table: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[int, int]]:
  """Reads and checks the views: (`ExamSet.views`, number of pairs of each part)."""
  views = {name: _integers(path, table, name) for name in _VIEWS}
  unknown = set(np.unique(views["part"]).tolist()) - {FIT, TEST, SAME_CAMERA}
  if unknown:
    raise errors.UserError(
      f"{path}: part: expected 0 (fit), 1 (test) and 2 (same cameras), found {sorted(unknown)}"
    )
  for name, values in views.items():
    _shape(path, name, values, views["chain"].shape)
  pairs = {part: 2 * int((views["part"] == part).sum()) for part in (FIT, TEST, SAME_CAMERA)}
  if not (pairs[FIT] and pairs[TEST]):
    raise errors.UserError(
      f"{path}: part: expected views of 0 (fit) and 1 (test), found {pairs[FIT]} and "
      f"{pairs[TEST]} pairs"
    )
  return views, pairs


def _integers(path: pathlib.Path, table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  values = table[name]
  if values.ndim != 1 or values.dtype.kind not in "iu":
    raise errors.UserError(
      f"{path}: {name}: expected whole numbers [V], found {values.dtype} {list(values.shape)}"
    )
  return values.astype(np.int64)


def _shape(path: Any, name: str, values: np.ndarray, shape: tuple[int | None, ...]) -> None:
  fits = len(shape) == values.ndim and all(
    size in (None, actual) for size, actual in zip(shape, values.shape, strict=False)
  )
  if not fits or not values.shape[-1]:
    expected = ", ".join("numbers" if n is None else str(n) for n in shape)
    raise errors.UserError(f"{path}: {name}: expected [{expected}], found {list(values.shape)}")


def _finite(path: Any, name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
  """Checks that values are numbers, finite and of the shape; returns them in float64."""
  values = np.asarray(values)
  if values.dtype.kind not in "fiub":
    raise errors.UserError(f"{path}: {name}: expected numbers, found {values.dtype}")
  _shape(path, name, values, shape)
  bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
  if bad.any():
    first = int(np.flatnonzero(bad)[0])
    raise errors.UserError(
      f"{path}: {name}: {int(bad.sum())} of {len(values)} rows hold values that are not finite "
      f"(the first: row {first})"
    )
  return values.astype(np.float64)
