"""Batches for policies: chunks of robot actions and of latent motions, from robots and videos
mixed, in one layout.

The same composition as `pipeline`: sample number g is a pure function of (data sets, seed, g).

Legend: B batch, T history, C camera slots, H W image, S state, A action, K chunk of actions, M
chunk of latent motions, Z numbers of one latent motion, L language tokens, E their width.
"""

import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from como_jax import errors
from como_jax.data import (
  normalization,
  policy_examples,
  policy_layout,
  shards,
  stream,
  transforms,
  video,
)
from como_jax.data.batching import Batching, Split
from como_jax.data.policy_index import PolicySet
from como_jax.data.read_options import ReadOptions
from como_jax.data.statistics import Accumulator, Statistics
from como_jax.data.times import FrameTimes


@dataclasses.dataclass
class _LoadTraining:
  """(data set, example number), generator -> sample."""

  loader: policy_examples.Loader
  change: tuple[Callable, ...]
  damage: stream.CorruptionMonitor = dataclasses.field(default_factory=stream.CorruptionMonitor)

  def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    def use(example):
      return self.loader.sample(place[0], example, size=transforms.resized_to(self.change))

    sample, images = stream.read(self.loader.sets[place[0]], place[1], self.damage, use)
    return self.loader.finish(sample, images, self.change, rng)


def build(
  sets: Sequence[PolicySet],
  layout: policy_layout.Layout,
  batching: Batching,
  split: Split = Split(),
  reading: ReadOptions = ReadOptions(),
  augment: Sequence[Callable] = (),
) -> stream.Batches:
  """Endless shuffled training batches of robots and videos mixed.

  Args:
    sets: the mixture.
    layout: what an example holds.
    batching: batch size, order and part of this process.
    split: episodes to draw from.
    reading: processes and threads that load.
    augment: transforms (see `transforms.build`), drawn for each camera, the same for its whole
      history. No mirroring.

  Returns:
    Batches of "images" uint8 [B, T, C, H, W, 3], "images_mask" bool [B, C]; "state" float32 [B, S],
    "state_mask" bool [B]; "robot" int32 [B]; "language" float32 [B, L, E], "language_mask" bool [B,
    L]; "actions" float32 [B, K, A], "actions_mask" bool [B, K, A]; "latents" float32 [B, M, Z]
    (element j begins j offsets after the example's frame), "latents_mask" bool [B, M]. Normalized;
    where a mask is False the value is 0. Chunks end with their segment.
  """
  if any(isinstance(transform, transforms.HorizontalFlip) for transform in augment):
    raise errors.UserError(
      "augmentation 'flip' mirrors pictures but not actions and motions: switch it off for policies"
    )
  _ = batching.local_rows  # checked before the data sets are opened
  loader, _ = policy_examples.prepare(sets, layout, split)
  for opened in loader.sets:
    if not len(opened.windows):
      raise errors.UserError(f"{opened.label} ({split.name}): no episode in this split")
  load = _LoadTraining(loader, (*augment, transforms.Resize(layout.image_size)))
  sizes = [len(opened.windows) for opened in loader.sets]
  return stream.infinite_batches(sizes, [one.weight for one in sets], load, batching, reading)


@dataclasses.dataclass
class _LoadEvaluation:
  """Row number (beyond the last: padding) -> sample with ids."""

  loader: policy_examples.Loader
  places: np.ndarray  # [n, 2] data set, example
  episode_ids: list[np.ndarray]  # by data set: id of each record's episode
  change: tuple[Callable, ...]

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    valid = i < len(self.places)
    which, number = (int(v) for v in self.places[i if valid else 0])
    opened = self.loader.sets[which]
    example, damaged = opened.load(number), False
    try:
      sample, images = (
        self.loader.sample(which, example, size=transforms.resized_to(self.change))
        if valid
        else self.loader.empty(which, example)
      )
    except video.Unreadable as error:
      warnings.warn(
        f"{opened.label}: an example cannot be read and is left out of the evaluation: {error}",
        stacklevel=2,
      )
      sample, images = self.loader.empty(which, example)
      valid, damaged = False, True
    ids = {
      "valid": np.bool_(valid),
      "damaged": np.bool_(damaged),
      "dataset": np.int32(which),
      "episode": np.int32(self.episode_ids[which][opened.row(example)]),
      "time": np.int32(opened.windows.segments.start[example.segment] + example.t),
    }
    return self.loader.finish(sample, images, self.change, None) | ids


class Evaluation:
  """A fixed list of examples. `batches()` walks over it.

  Attributes:
    size: number of examples. steps: batches of a walk.
    datasets, episodes: names behind the integer ids, the same in every process.
  """

  def __init__(
    self,
    load: _LoadEvaluation,
    names: Mapping[str, list[str]],
    batching: Batching,
    reading: ReadOptions,
  ):
    """Walks over the places of `load`; `names` are of "datasets" and "episodes"."""
    self._load, self._batching, self._reading = load, batching, reading
    self.datasets, self.episodes = names["datasets"], names["episodes"]
    self.size = len(load.places)
    self.steps = -(-self.size // batching.batch_size)

  def batches(self) -> stream.Batches:
    """Batches as of `build`, in order, and "valid" bool [B] (False on the last batch's padding, and
    where an example cannot be read: "damaged" bool [B]), "dataset", "episode", "time" (frame number
    in the episode) int32 [B].
    """
    return stream.walk(self._load, self.steps, self._batching, self._reading)


def evaluation(
  sets: Sequence[PolicySet],
  layout: policy_layout.Layout,
  batching: Batching,
  split: Split = Split("validation"),
  reading: ReadOptions = ReadOptions(),
  *,
  max_examples: int | None = None,
) -> Evaluation:
  """Held-out examples in a fixed order.

  Args:
    sets: the mixture; weights play no part.
    layout: what an example holds.
    batching: batch size and part of this process; the order is fixed.
    split: episodes to walk through.
    reading: processes and threads that load.
    max_examples: cap over all data sets: an equal share for each, spread evenly over its examples;
      None = every one.

  Raises:
    errors.UserError: as for `build`; no data set has an example in the split.
  """
  loader, tables = policy_examples.prepare(sets, layout, split)
  counts = [len(opened.windows) for opened in loader.sets]
  if not sum(counts):
    raise errors.UserError(
      f"no data set has an example in the split {split.name!r} "
      "(validation needs at least 2 episodes of a task; or set validation_fraction=0)"
    )
  places = []
  for which, take in enumerate(_shares(counts, max_examples)):
    numbers = ((np.arange(take) + 0.5) * counts[which] / max(take, 1)).astype(np.int64)
    places.append(np.stack([np.full(take, which), numbers], 1))
  episodes = [name for table in tables for name in table.episodes]
  first = np.cumsum([0, *(len(table.episodes) for table in tables)])
  ids = [(first[which] + table.episode).astype(np.int32) for which, table in enumerate(tables)]
  load = _LoadEvaluation(
    loader, np.concatenate(places), ids, (transforms.Resize(layout.image_size),)
  )
  names = {"datasets": [opened.label for opened in loader.sets], "episodes": episodes}
  return Evaluation(load, names, batching, reading)


def _shares(counts: Sequence[int], most: int | None) -> list[int]:
  """How many of each to take: equal shares, what a small one leaves over goes to the others."""
  shares, left = list(counts), sum(counts) if most is None else min(most, sum(counts))
  for done, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
    shares[i] = min(counts[i], left // (len(counts) - done))
    left -= shares[i]
  return shares


def statistics(
  sets: Sequence[PolicySet],
  *,
  mode: str = "standard",
  step_seconds: float = 0.0,
  reduce: str = "mean",
  validation_fraction: float = 0.1,
) -> normalization.Normalizer:
  """The normalization of a mixture: of the actions as reduced to policy steps and of the states of
  each robot, over the selected training episodes of its entries, every frame of an entry once; of
  latent motion of the valid labels of those frames.

  No frame is decoded. A damaged record is left out with a warning.

  Raises:
    errors.UserError: as `build`; labels of several models or offsets; a robot with several sizes;
      an unknown mode.
  """
  if reduce not in policy_layout.REDUCTIONS:
    raise errors.UserError(
      f"unknown reduction of actions {reduce!r}: {errors.nearest(reduce, policy_layout.REDUCTIONS)}"
    )
  found, _ = policy_examples.open_sets(
    sets, split="train", validation_fraction=validation_fraction, step_seconds=step_seconds
  )
  sums: dict[str, dict[str, Accumulator]] = {}
  sizes: dict[str, tuple[str, list]] = {}
  for one, opened in zip(sets, found, strict=True):
    if opened.robot:
      manifest = shards.read_manifest(one.path)
      size = [manifest[key]["size"] for key in normalization.KEYS]
      before, same = sizes.setdefault(opened.robot, (opened.label, size))
      if size != same or not isinstance(size[0], int):
        raise errors.UserError(
          f"{opened.label}: robot {opened.robot!r} has action and state of sizes {size}, in "
          f"{before} {same}; expected one size, so give it another robot name"
        )
      _accumulate(
        opened,
        sums.setdefault(opened.robot, {key: Accumulator() for key in normalization.KEYS}),
        reduce,
        step_seconds,
      )
  robots: dict[str, dict[str, Statistics]] = {}
  for robot, parts in sums.items():
    robots[robot] = {
      key: value for key, part in parts.items() if (value := part.finish()) is not None
    }
    if "action" not in robots[robot]:
      raise errors.UserError(f"robot {robot!r}: none of its records can be read")
  return normalization.Normalizer(mode, robots, _latent_statistics(sets, found))


def _latent_statistics(
  sets: Sequence[PolicySet], found: Sequence[policy_examples.Opened], keep: int = 200_000
) -> Statistics | None:
  """Of the valid latent motions of the examples' frames; those of a label set that several entries
  use count once a frame.

  The z of a clip are read where the sample for the quantiles takes some of them (in a large data
  set from few clips), where not all of its frames count, and where the file lacks their moments.
  """
  used = [one.labels for one in sets if one.labels]
  several = {path for path in used if used.count(path) > 1}
  total = Accumulator(
    keep, expected=sum(int(take.sum()) for *_, take in _labeled(sets, found, several, tell=False))
  )
  for opened, place, camera, take in _labeled(sets, found, several, tell=True):
    try:
      known = opened.motions.moments(*place, camera)
      count = int(take.sum())
      whole = known is not None and count == int(opened.motions.valid(*place, camera).sum())
      if count and not (whole and total.add_known(count, known)):
        total.add(opened.motions.z(*place, camera)[take])
    except video.Unreadable as error:
      _warn_left_out(opened, error)
  return total.finish()


def _warn_left_out(opened: policy_examples.Opened, error: video.Unreadable) -> None:
  warnings.warn(
    f"{opened.label}: labels that cannot be read are left out of the statistics: {error}",
    stacklevel=4,
  )


def _labeled(
  sets: Sequence[PolicySet],
  found: Sequence[policy_examples.Opened],
  several: Collection[str],
  *,
  tell: bool,
) -> Iterator[tuple[policy_examples.Opened, tuple[int, int], str, np.ndarray]]:
  """(data set, (shard, clip), camera, bool [T]: the frames that count) of the examples' clips; no
  frame counts twice.

  Args:
    several: label sets of more than one entry.
    tell: whether to warn of clips that are left out.
  """
  counted: dict[tuple, np.ndarray] = {}
  for one, opened in zip(sets, found, strict=True):
    chosen = [name for name in opened.slots if name in opened.labeled] if one.labels else []
    segments = opened.windows.segments
    for segment, first, last in (
      zip(*(column.tolist() for column in opened.windows.runs()), strict=True) if chosen else ()
    ):
      for row in range(
        segments.locate(segment, first)[0], segments.locate(segment, last - 1)[0] + 1
      ):
        begin, place = segments.begin(segment, row), segments.place(row)
        for camera in dict.fromkeys(chosen):
          try:
            valid = opened.motions.valid(*place, camera)
          except video.Unreadable as error:
            if tell:
              _warn_left_out(opened, error)
            continue
          take = valid.copy()
          take[: max(0, first - begin)] = take[last - begin :] = False
          if one.labels in several:
            done = counted.setdefault((one.labels, place, camera), np.zeros(len(valid), bool))
            take &= ~done
            done |= take
          yield opened, place, camera, take


def _accumulate(
  opened: policy_examples.Opened, into: dict[str, Accumulator], reduce: str, step_seconds: float
) -> None:
  """Adds the frames of a data set's examples."""
  windows = opened.windows
  for segment, first, last in zip(*(column.tolist() for column in windows.runs()), strict=True):
    table, row = windows.segments.table, windows.segments.locate(segment, first)[0]
    where = f"{opened.label}: episode {table.episodes[table.episode[row]]!r}"
    try:
      times = opened.reader.times(segment)
      frames = np.arange(first, last)
      stops = (
        np.minimum(frames + 1, times.count)
        if step_seconds == 0
        else _step_ends(times, frames, step_seconds)
      )
      action = opened.reader.numbers(segment, "action", first, int(stops.max()))
      state = opened.reader.numbers(segment, "state", first, last)
    except video.Unreadable as error:
      warnings.warn(
        f"{where} is left out of the statistics, its numbers are damaged: {error}", stacklevel=3
      )
      continue
    try:
      if action is not None:
        into["action"].add(policy_examples.reduced(action, frames - first, stops - first, reduce))
      if state is not None:
        into["state"].add(state)
    except errors.UserError as error:
      raise errors.UserError(f"{where}: {error}") from error


def _step_ends(times: FrameTimes, frames: np.ndarray, step_seconds: float) -> np.ndarray:
  """The frames that a policy step ends before, as `policy_index.chunk_edges` has it."""
  later, _ = times.partners(frames, step_seconds)
  beyond = times.at(frames) + step_seconds > times.at(times.count - 1) + times.interval / 2
  return np.maximum(np.where(beyond, times.count, later), frames + 1)


def describe(
  sets: Sequence[PolicySet], *, validation_fraction: float = 0.1, cameras: int | None = None
) -> list[str]:
  """One line for each entry, for logs: examples, episodes used of all, tasks, what is learned,
  cameras.

  Args:
    cameras: number of slots, None = as many as an entry has cameras.
  """
  lines = []
  found, tables = policy_examples.open_sets(
    sets, split="train", validation_fraction=validation_fraction, cameras=cameras
  )
  for one, opened, table in zip(sets, found, tables, strict=True):
    rows = opened.windows.rows()
    learned = [f"actions of {opened.robot}"] * bool(opened.robot) + [
      f"motion labels {one.labels}"
    ] * bool(one.labels)
    lines.append(
      f"{opened.label}: {len(opened.windows)} examples (weight {one.weight:g}), "
      f"{len(np.unique(table.episode[rows]))} of {len(np.unique(table.episode))} episodes, "
      f"{len({table.tasks[i] for i in np.unique(table.task[rows])} - {''})} tasks; "
      f"{', '.join(learned)}; cameras {', '.join(name or '-' for name in opened.slots)}"
      + (" (each)" if one.views == "each" else "")
    )
  return lines
