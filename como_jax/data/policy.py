"""Batches for policies: chunks of robot actions and of latent motions, from robots and videos mixed, in one layout.

The same composition as `pipeline`: sample number g is a pure function of (data sets, seed, g).

Legend: B batch, T history, C camera slots, H W image, S state, A action, K chunk of actions, M chunk of latent motions,
Z numbers of one latent motion, L language tokens, E their width; m frames of a policy step, n of a latent motion.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import grain
import numpy as np

from como_jax import errors
from como_jax.data import normalisation, pipeline, policy_examples, transforms, video
from como_jax.data.policy_index import PolicySet
from como_jax.data.sources import shards
from como_jax.data.statistics import Accumulator, Statistics


@dataclasses.dataclass
class _LoadTraining:
  """(data set, example number), generator -> sample."""

  loader: policy_examples.Loader
  change: tuple[Callable, ...]
  damage: pipeline.Damage = dataclasses.field(default_factory=pipeline.Damage)

  def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    def use(clip, motion, example):
      return self.loader.sample(place[0], clip, motion, example, size=transforms.resized_to(self.change))

    sample, images = pipeline.read(self.loader.sets[place[0]], place[1], self.damage, use)
    return self.loader.finish(sample, images, self.change, rng)


def build(
  sets: Sequence[PolicySet],
  *,
  normaliser: normalisation.Normaliser,
  language: policy_examples.Language,
  robots: policy_examples.Robots,
  cameras: int,
  history: int,
  step_seconds: float,
  chunk: int,
  reduce: str,
  latent_chunk: int,
  latent_size: int,
  batch_size: int,
  image_size: int,
  augment: Sequence[Callable] = (),
  split: str = "train",
  validation_fraction: float = 0.1,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 4,
) -> pipeline.Batches:
  """Endless shuffled training batches of robots and videos mixed.

  Args:
    sets: the mixture.
    normaliser: of actions, states and latent motions, see `statistics`.
    language: instruction -> (tokens [L, E], mask [L]), for every instruction of the data; "" may be absent (no token).
    robots: name -> (A, S). Their numbers are their places in sorted order; the widest decides the padding.
    cameras, history: C and T; the history's frames are one policy step apart, and before a clip's first frame repeat it.
    step_seconds: m = max(1, round(fps * step_seconds)) frames a policy step; 0 = 1 frame.
    chunk, reduce: K, and how the m actions of a step become one: "mean", "first" or "last".
    latent_chunk, latent_size: M and Z.
    augment: transforms (see `transforms.build`), drawn for each camera, the same for its whole history. No mirroring.
    The others are those of `pipeline.build`.

  Returns:
    Batches of "images" uint8 [B, T, C, H, W, 3], "images_mask" bool [B, C]; "state" float32 [B, S], "state_mask" bool
    [B]; "robot" int32 [B]; "language" float32 [B, L, E], "language_mask" bool [B, L]; "actions" float32 [B, K, A],
    "actions_mask" bool [B, K, A]; "latents" float32 [B, M, Z] (element j begins at frame t + j * n), "latents_mask" bool
    [B, M]. Normalised; where a mask is False the value is 0. Chunks end with their clip.
  """
  if any(isinstance(transform, transforms.HorizontalFlip) for transform in augment):
    raise errors.UserError("augmentation 'flip' mirrors pictures but not actions and motions: switch it off for policies")
  pipeline.local_batch(batch_size, process_index, process_count)
  layout = policy_examples.Layout(normaliser, dict(robots), cameras, history, chunk, reduce, latent_chunk, latent_size, image_size)
  loader, _ = policy_examples.prepare(
    sets, layout, language=language, split=split, validation_fraction=validation_fraction, step_seconds=step_seconds)
  for opened in loader.sets:
    if not len(opened.windows):
      raise errors.UserError(f"{opened.label} ({split}): no episode in this split")
  return pipeline.endless(
    [len(opened.windows) for opened in loader.sets],
    [one.weight for one in sets],
    _LoadTraining(loader, (*augment, transforms.Resize(image_size))),
    batch_size=batch_size,
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start_step,
    workers=workers,
    threads=threads,
    prefetch=prefetch,
  )


@dataclasses.dataclass
class _LoadEvaluation:
  """Row number (beyond the last: padding) -> sample with ids."""

  loader: policy_examples.Loader
  places: np.ndarray  # [n, 2] data set, example
  episode_ids: list[np.ndarray]  # by data set: id of each record's episode
  starts: list[np.ndarray]
  change: tuple[Callable, ...]

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    valid = i < len(self.places)
    which, number = (int(v) for v in self.places[i if valid else 0])
    opened = self.loader.sets[which]
    try:
      clip, motion, example = opened.load(number)
      sample, images = self.loader.sample(which, clip, motion, example, size=transforms.resized_to(self.change))
    except video.Unreadable as error:
      raise errors.UserError(f"{opened.label}: evaluation needs every example, and one cannot be read: {error}") from error
    ids = {
      "valid": np.bool_(valid),
      "dataset": np.int32(which),
      "episode": np.int32(self.episode_ids[which][example.row]),
      "time": np.int32(self.starts[which][example.row] + example.t),
    }
    return self.loader.finish(sample, images, self.change, None) | ids


class Evaluation:
  """A fixed list of examples. `batches()` walks over it.

  Attributes:
    size: number of examples. steps: batches of a walk.
    datasets, episodes: names behind the integer ids, the same in every process.
  """

  def __init__(self, load: _LoadEvaluation, *, datasets: list[str], episodes: list[str], batch_size: int, process_index: int,
               process_count: int, workers: int, threads: int):
    self._load, self._batch, self._process = load, batch_size, process_index
    self._local = pipeline.local_batch(batch_size, process_index, process_count)
    self._workers, self._threads = workers, threads
    self.datasets, self.episodes = datasets, episodes
    self.size, self.steps = len(load.places), -(-len(load.places) // batch_size)

  def batches(self) -> pipeline.Batches:
    """Batches as of `build`, in order, and "valid" bool [B] (False on the last batch's padding), "dataset", "episode",
    "time" (frame number in the episode) int32 [B]."""

    def make(step: int) -> grain.MapDataset:
      rows = grain.MapDataset.range((self.steps - step) * self._local)
      part = pipeline.Part(range(self.steps * self._batch), step * self._batch, self._batch, self._local, self._process)
      return rows.map(part).map(self._load).batch(self._local)

    return pipeline.Batches(make, step=0, workers=self._workers, threads=self._threads, prefetch=2)


def evaluation(
  sets: Sequence[PolicySet],
  *,
  normaliser: normalisation.Normaliser,
  language: policy_examples.Language,
  robots: policy_examples.Robots,
  cameras: int,
  history: int,
  step_seconds: float,
  chunk: int,
  reduce: str,
  latent_chunk: int,
  latent_size: int,
  batch_size: int,
  image_size: int,
  split: str = "validation",
  validation_fraction: float = 0.1,
  max_examples: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 4,
) -> Evaluation:
  """Held-out examples in a fixed order. Arguments as of `build`.

  Args:
    max_examples: cap over all data sets: an equal share for each, spread evenly over its examples; None = every one.

  Raises:
    errors.UserError: as for `build`; no data set has an example in the split.
  """
  layout = policy_examples.Layout(normaliser, dict(robots), cameras, history, chunk, reduce, latent_chunk, latent_size, image_size)
  loader, tables = policy_examples.prepare(
    sets, layout, language=language, split=split, validation_fraction=validation_fraction, step_seconds=step_seconds)
  counts = [len(opened.windows) for opened in loader.sets]
  if not sum(counts):
    raise errors.UserError(f"no data set has an example in the split {split!r} "
                           "(validation needs at least 2 episodes of a task; or set validation_fraction=0)")
  places = []
  for which, take in enumerate(_shares(counts, max_examples)):
    numbers = ((np.arange(take) + 0.5) * counts[which] / max(take, 1)).astype(np.int64)
    places.append(np.stack([np.full(take, which), numbers], 1))
  names: dict[tuple[int, str], int] = {}
  ids = [np.array([names.setdefault((which, str(name)), len(names)) for name in table.episode], np.int32)
         for which, table in enumerate(tables)]
  load = _LoadEvaluation(loader, np.concatenate(places), ids, [table.start for table in tables], (transforms.Resize(image_size),))
  return Evaluation(
    load, datasets=[opened.label for opened in loader.sets], episodes=[name for _, name in names], batch_size=batch_size,
    process_index=process_index, process_count=process_count, workers=workers, threads=threads)


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
) -> normalisation.Normaliser:
  """The normalisation of a mixture: of the actions as reduced to policy steps and of the states of each robot, over the
  selected training episodes of its entries, every frame of an entry once; of latent motion from the labels' manifests.

  No frame is decoded. A damaged record is left out with a warning.

  Raises:
    errors.UserError: as `build`; labels of several models or offsets; a robot with several sizes; an unknown mode.
  """
  if reduce not in policy_examples.REDUCTIONS:
    raise errors.UserError(f"unknown reduction of actions {reduce!r}: {errors.nearest(reduce, policy_examples.REDUCTIONS)}")
  found, _ = policy_examples.open_sets(sets, split="train", validation_fraction=validation_fraction, step_seconds=step_seconds)
  sums: dict[str, dict[str, Accumulator]] = {}
  sizes: dict[str, tuple[str, list]] = {}
  for one, opened in zip(sets, found, strict=True):
    if opened.robot:
      manifest = shards.read_manifest(one.path)
      size = [manifest[key]["size"] for key in normalisation.KEYS]
      before, same = sizes.setdefault(opened.robot, (opened.label, size))
      if size != same or not isinstance(size[0], int):
        raise errors.UserError(f"{opened.label}: robot {opened.robot!r} has action and state of sizes {size}, in {before} {same}; "
                               "expected one size, so give it another robot name")
      _accumulate(opened, sums.setdefault(opened.robot, {key: Accumulator() for key in normalisation.KEYS}), reduce)
  robots: dict[str, dict[str, Statistics]] = {}
  for robot, parts in sums.items():
    robots[robot] = {key: value for key, part in parts.items() if (value := part.finish()) is not None}
    if "action" not in robots[robot]:
      raise errors.UserError(f"robot {robot!r}: none of its records can be read")
  moving = {one.labels: opened.motions.statistics for one, opened in zip(sets, found, strict=True) if one.labels}
  latent = normalisation.merge(list(moving.values())) if moving else None
  return normalisation.Normaliser(mode, robots, latent)


def _accumulate(opened: policy_examples.Opened, into: dict[str, Accumulator], reduce: str) -> None:
  """Adds the frames of a data set's examples."""
  windows = opened.windows
  count = np.diff(windows.end, prepend=0)
  groups = np.unique(windows.row, return_index=True)[1]  # the cameras of a clip share its actions
  for group in groups[np.lexsort((opened.record[windows.row[groups]], opened.shard[windows.row[groups]]))]:
    row, first = windows.row[group], windows.first[group]
    try:
      arrays = opened.reader.clip(opened.shard[row], opened.record[row]).arrays
    except video.Unreadable as error:
      warnings.warn(f"{opened.label}: a damaged record is left out of the statistics: {error}", stacklevel=3)
      continue
    frames = np.arange(first, first + count[group])
    try:
      if "action" in arrays:
        into["action"].add(policy_examples.reduced(arrays["action"], frames, int(windows.step[group]), reduce))
      if "state" in arrays:
        into["state"].add(arrays["state"][frames])
    except errors.UserError as error:
      raise errors.UserError(f"{opened.label}: record {opened.record[row]} of shard {opened.shard[row]}: {error}") from error


def describe(sets: Sequence[PolicySet], *, validation_fraction: float = 0.1, cameras: int | None = None) -> list[str]:
  """One line for each entry, for logs: examples, episodes used of all, tasks, what is learnt, cameras.

  Args:
    cameras: number of slots, None = as many as an entry has cameras.
  """
  lines = []
  found, tables = policy_examples.open_sets(sets, split="train", validation_fraction=validation_fraction, cameras=cameras)
  for one, opened, table in zip(sets, found, tables, strict=True):
    rows = np.unique(opened.windows.row)
    learnt = [f"actions of {opened.robot}"] * bool(opened.robot) + [f"motion labels {one.labels}"] * bool(one.labels)
    lines.append(
      f"{opened.label}: {len(opened.windows)} examples (weight {one.weight:g}), {len(set(table.episode[rows]))} of "
      f"{len(set(table.episode))} episodes, {len(set(table.task[rows]) - {''})} tasks; {', '.join(learnt)}; cameras "
      f"{', '.join(name or '-' for name in opened.slots)}" + (" (each)" if one.views == "each" else ""))
  return lines
