"""Sequential windows with their actions and ids: for metrics, labels and pictures.

The same composition without chance.

Legend: B batch, K frames of a window, H W image, A action, S state.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from como_jax.data import pipeline, shards, stream, transforms, video
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.data.read_options import ReadOptions

KINDS = ("episodes", "groups", "tasks", "cameras")


@dataclasses.dataclass
class _LoadWindow:
  """Row number (beyond the last: padding) -> sample with ids."""

  sets: list[pipeline.OpenedWindows]
  locations: np.ndarray  # [n, 2] data set, window
  # episodes, groups, tasks (of each clip) and cameras -> by data set
  ids: dict[str, list[np.ndarray]]
  sizes: dict[str, int]  # widest action and state
  frames: int
  resize: transforms.Resize

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    valid = i < len(self.locations)
    dataset, number = (int(v) for v in self.locations[i if valid else 0])
    opened, size = self.sets[dataset], self.resize.size
    sizes = {
      "action": (self.frames - 1, self.sizes["action"]),
      "state_delta": (self.frames - 1, self.sizes["state"]),
      "state_mean": (self.frames - 1, self.sizes["state"]),
      "state": (self.frames, self.sizes["state"]),
    }
    values = {name: np.zeros(size, np.float32) for name, size in sizes.items() if size[1]}
    own = {"action": 0, "state": 0}
    has, images = (
      {"action": False, "state": False},
      np.zeros((self.frames, size, size, 3), np.uint8),
    )
    numbers, seconds, damaged = (
      np.zeros(self.frames, np.int64),
      np.zeros(self.frames - 1, np.float32),
      False,
    )
    if valid:
      try:
        location = opened.locate(number)
        numbers, seconds = location.frames, location.seconds
        images = opened.reader.images(
          location.segment, location.camera, numbers, to=transforms.resized_to((self.resize,))
        )
        has, own = self._fill_values(opened.reader, location, values)
      except video.UnreadableError as error:
        warnings.warn(
          f"{opened.label}: a window cannot be read and is left out of the evaluation: {error}",
          stacklevel=2,
        )
        valid, damaged, images = False, True, np.zeros((self.frames, size, size, 3), np.uint8)
    sample: dict[str, Any] = {
      "frames": images,
      **values,
      "seconds": seconds,
      "has_action": np.bool_(has["action"]),
      "has_state": np.bool_(has["state"]),
      "action_size": np.int32(own["action"]),
      "state_size": np.int32(own["state"]),
      "valid": np.bool_(valid),
      "damaged": np.bool_(damaged),
      "stride": np.int32(numbers[1] - numbers[0] if self.frames > 1 else 1),
    }
    return self.resize(sample | self._ids(dataset, number))

  def _ids(self, dataset: int, number: int) -> dict[str, Any]:
    """Where a window of a data set comes from."""
    windows = self.sets[dataset].windows
    window = windows[number]
    row, _ = windows.segments.locate(window.segment, window.t)
    return {
      "dataset": np.int32(dataset),
      "episode": np.int32(self.ids["episodes"][dataset][row]),
      "group": np.int32(self.ids["groups"][dataset][row]),
      "task": np.int32(self.ids["tasks"][dataset][row]),
      "camera": np.int32(self.ids["cameras"][dataset][window.camera]),
      "time": np.int32(windows.segments.start[window.segment] + window.t),
    }

  def _fill_values(
    self, reader, location: pipeline.WindowLocation, values: dict[str, np.ndarray]
  ) -> tuple[dict[str, bool], dict[str, int]]:
    """Fills in the actions and states of a window.

    Args:
      reader: of the segments.
      location: of the window.
      values: arrays to fill: action and state as means over each pair's frames, state, and its
        change.

    Returns:
      (whether there are an action and a state, how many numbers they have without the padding).
    """
    first, last = int(location.frames[0]), int(location.frames[-1])
    action = (
      reader.read_array(location.segment, "action", first, last)
      if "action" in values and last > first
      else None
    )
    pairs = list(
      enumerate(zip(location.frames[:-1] - first, location.frames[1:] - first, strict=True))
    )
    own = {"action": 0, "state": 0}
    if action is not None:
      own["action"] = action.shape[1]
      for k, (a, b) in pairs:
        values["action"][k, : own["action"]] = action[a:b].mean(0)
    state = (
      reader.read_array(location.segment, "state", first, last + 1) if "state" in values else None
    )
    if state is not None:
      own["state"] = state.shape[1]
      for k, (a, b) in pairs:
        values["state_mean"][k, : own["state"]] = state[a:b].mean(0)
      state = state[location.frames - first]
      values["state"][:, : own["state"]] = state
      values["state_delta"][:, : own["state"]] = state[1:] - state[:-1]
    table, row = reader.segments.table, reader.segments.locate(location.segment, location.t)[0]
    return {"action": bool(table.has_action[row]), "state": bool(table.has_state[row])}, own


class EvaluationWindows:
  """A fixed list of windows. `batches()` iterates over it; `pictures(n)` gives a few.

  Attributes:
    episodes, tasks, cameras, datasets: names behind the integer ids, the same in every process.
    size: number of windows. num_batches: batches that hold them.
    action_size, state_size: the widest of the data sets, 0 when none has any.
  """

  def __init__(
    self,
    load: _LoadWindow,
    names: dict[str, list[str]],
    batching: Batching,
    read_options: ReadOptions,
  ):
    self._load, self._batching, self._read_options = load, batching, read_options
    self.episodes, self.tasks, self.cameras, self.datasets = (
      names[key] for key in ("episodes", "tasks", "cameras", "datasets")
    )
    self._names = names
    self.size, self.num_batches = (
      len(load.locations),
      -(-len(load.locations) // batching.batch_size),
    )
    self.action_size, self.state_size = load.sizes["action"], load.sizes["state"]

  def part(self, process: ProcessSlice) -> "EvaluationWindows":
    """The same windows, of whose batches one process reads its part.

    Args:
      process: the part. The batch size is rounded up to a multiple of the number of processes.
    """
    size = -(-self._batching.batch_size // process.count) * process.count
    batching = dataclasses.replace(self._batching, batch_size=size, process=process)
    return EvaluationWindows(self._load, self._names, batching, self._read_options)

  def batches(self) -> stream.Batches:
    """All windows in order, or this process's part of each batch (`part`).

    The last batch is padded, with `valid` False on the padding.

    Batches: "frames" uint8 [B, K, H, W, 3]; "seconds" float32 [B, K-1], the true time between
    neighbors; ids int32 [B] "dataset", "episode", "group", "task", "camera", "time" (frame number
    in the episode of the first frame), "stride" (frames); bool [B] "valid", "damaged" (cannot be
    read, and so not valid), "has_action", "has_state"; and where some data set has them, float32
    "action" [B, K-1, A] and "state_mean" [B, K-1, S] (means over each pair's frames, without its
    last), "state" [B, K, S], "state_delta" [B, K-1, S], zero-padded to the widest data set; int32
    [B] "action_size", "state_size": without padding.
    """
    return stream.sequential_batches(
      self._load, self.num_batches, self._batching, self._read_options
    )

  def pictures(self, count: int) -> dict:
    """A few windows, spread evenly.

    Args:
      count: n, how many at most.

    Returns:
      {"frames": uint8 [n, K, H, W, 3], "task", "camera", "episode", "dataset": lists of str,
      "time", "stride": int [n]}.
    """
    rows = _even_indices(self.size, count)
    samples = [self._load(int(row)) for row in rows]
    names = {
      "task": self.tasks,
      "camera": self.cameras,
      "episode": self.episodes,
      "dataset": self.datasets,
    }
    return {
      "frames": np.stack([sample["frames"] for sample in samples]),
      **{key: [known[int(sample[key])] for sample in samples] for key, known in names.items()},
      **{key: np.array([int(sample[key]) for sample in samples]) for key in ("time", "stride")},
    }


def _even_indices(size: int, count: int | None) -> np.ndarray:
  """`count` of `size` indices, evenly spread (the middle of each share).

  All of them where there are fewer.
  """
  if count is None or count >= size:
    return np.arange(size)
  return ((np.arange(count) + 0.5) * size / count).astype(np.int64)


class _Names:
  """Ids in order of first appearance, and the names behind them."""

  def __init__(self):
    self.names: list[str] = []
    self._ids: dict[Any, int] = {}

  def ids(self, keys: Iterable[tuple[Any, str]]) -> np.ndarray:
    """The ids of (key, name), int32; equal keys share one."""
    result = []
    for key, name in keys:
      if key not in self._ids:
        self._ids[key] = len(self.names)
        self.names.append(name)
      result.append(self._ids[key])
    return np.array(result, np.int32)


def evaluation_windows(
  sets: Sequence[pipeline.OpenedWindows],
  layout: pipeline.Layout,
  batching: Batching,
  read_options: ReadOptions = ReadOptions(),
  *,
  max_windows: int | None = None,
) -> EvaluationWindows:
  """Windows in a fixed order; the weights of the data sets play no part.

  Args:
    sets: all their windows are used.
    layout: size and number of frames K; K = 3 gives (t - n, t, t + n).
    batching: batch size and part of this process; the order is fixed.
    read_options: processes and threads that load.
    max_windows: cap over all data sets, spread evenly; None = every window.
  """
  columns: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
  names = {kind: _Names() for kind in KINDS}
  sizes = {"action": 0, "state": 0}
  for dataset, opened in enumerate(sets):
    # Episode names are unique within a data set only; equal tasks and cameras of two data sets
    # share an id.
    table = opened.table
    keys, key_of_row = np.unique(table.split_key, return_inverse=True)
    episodes = names["episodes"].ids(((dataset, name), name) for name in table.episodes)
    columns["episodes"].append(episodes[table.episode])
    groups = names["groups"].ids(((dataset, key), str(key)) for key in keys)
    columns["groups"].append(groups[key_of_row])
    tasks = names["tasks"].ids((name, name) for name in table.tasks)
    columns["tasks"].append(tasks[table.task])
    columns["cameras"].append(names["cameras"].ids((name, name) for name in opened.cameras))
    widths = _sizes(opened.dataset.path)
    sizes = {key: max(value, widths[key]) for key, value in sizes.items()}
  counts = [len(opened.windows) for opened in sets]
  chosen = _even_indices(sum(counts), max_windows)
  dataset = np.searchsorted(np.cumsum(counts), chosen, side="right")
  locations = np.stack([dataset, chosen - np.concatenate([[0], np.cumsum(counts)])[dataset]], 1)
  load = _LoadWindow(
    list(sets), locations, columns, sizes, layout.frames, transforms.Resize(layout.image_size)
  )
  labels = {kind: found.names for kind, found in names.items()}
  return EvaluationWindows(
    load, {**labels, "datasets": [opened.label for opened in sets]}, batching, read_options
  )


def _sizes(path: str) -> dict[str, int]:
  """The widest action and state of a data set."""
  manifest = shards.read_manifest(path)
  result = {}
  for key in ("action", "state"):
    size = manifest[key]["size"]
    result[key] = max(size) if isinstance(size, list) else int(size or 0)
  return result
