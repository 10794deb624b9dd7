"""Batches for policies: chunks of robot actions and of latent motions, in one layout.

Robots and videos are mixed.

The same composition as `pipeline`: sample number g is a pure function of (data sets, seed, g).

Legend: B batch, T history, C camera slots, H W image, S state, A action, K chunk of actions, M
chunk of latent motions, Z numbers of one latent motion, L language tokens, E their width.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from como_jax import errors
from como_jax.data import block_order, policy_examples, stream, transforms, video
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions


@dataclasses.dataclass
class _LoadTraining:
  """(data set, example number), generator -> sample."""

  loader: policy_examples.ExampleLoader
  change: tuple[Callable, ...]
  monitor: stream.CorruptionMonitor = dataclasses.field(default_factory=stream.CorruptionMonitor)

  def __call__(self, element: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    def load(example):
      return self.loader.sample(element[0], example, size=transforms.resized_to(self.change))

    sample, images = stream.read(self.loader.sets[element[0]], element[1], self.monitor, load)
    return self.loader.finish(sample, images, self.change, rng)


def check_augmentation(augment: Sequence[Callable]) -> None:
  """Refuses what would change pictures but not the actions that belong to them.

  Raises:
    errors.UserError: it mirrors.
  """
  if any(isinstance(transform, transforms.HorizontalFlip) for transform in augment):
    raise errors.UserError(
      "augmentation 'flip' mirrors pictures but not actions and motions: switch it off for policies"
    )


def batches(
  loader: policy_examples.ExampleLoader,
  batching: Batching,
  read_options: ReadOptions = ReadOptions(),
  augment: Sequence[Callable] = (),
) -> stream.Batches:
  """Endless shuffled training batches of robots and videos mixed.

  Args:
    loader: of the examples to draw from.
    batching: batch size, order and part of this process.
    read_options: processes and threads that load.
    augment: transforms (see `transforms.build`), drawn for each camera, the same for its whole
      history. No mirroring.

  Returns:
    Batches of "images" uint8 [B, T, C, H, W, 3], "images_mask" bool [B, C]; "state" float32 [B, S],
    "state_mask" bool [B]; "robot" int32 [B]; "language" float32 [B, L, E], "language_mask" bool [B,
    L]; "actions" float32 [B, K, A], "actions_mask" bool [B, K, A]; "latents" float32 [B, M, Z]
    (element j begins j offsets after the example's frame), "latents_mask" bool [B, M]. Normalized;
    where a mask is False the value is 0. Chunks end with their segment.

  Raises:
    errors.UserError: a data set has no example.
  """
  for opened in loader.sets:
    if not len(opened.windows):
      raise errors.UserError(f"{opened.label} (train): no episode in this split")
  load = _LoadTraining(loader, (*augment, transforms.Resize(loader.layout.image_size)))
  ends = [block_order.shard_ends(opened.windows) for opened in loader.sets]
  weights = [opened.entry.weight for opened in loader.sets]
  return stream.infinite_batches(ends, weights, load, batching, read_options)


@dataclasses.dataclass
class _LoadEvaluation:
  """Row number (beyond the last: padding) -> sample with ids."""

  loader: policy_examples.ExampleLoader
  locations: np.ndarray  # [n, 2] data set, example
  episode_ids: list[np.ndarray]  # by data set: id of each record's episode
  change: tuple[Callable, ...]

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    valid = i < len(self.locations)
    dataset, index = (int(v) for v in self.locations[i if valid else 0])
    opened = self.loader.sets[dataset]
    example, damaged = opened.locate(index), False
    try:
      sample, images = (
        self.loader.sample(dataset, example, size=transforms.resized_to(self.change))
        if valid
        else self.loader.empty(dataset, example)
      )
    except video.UnreadableError as error:
      warnings.warn(
        f"{opened.label}: an example cannot be read and is left out of the evaluation: {error}",
        stacklevel=2,
      )
      sample, images = self.loader.empty(dataset, example)
      valid, damaged = False, True
    ids = {
      "valid": np.bool_(valid),
      "damaged": np.bool_(damaged),
      "dataset": np.int32(dataset),
      "episode": np.int32(self.episode_ids[dataset][opened.row(example)]),
      "time": np.int32(opened.windows.segments.start[example.segment] + example.t),
    }
    return self.loader.finish(sample, images, self.change, None) | ids


class EvaluationExamples:
  """A fixed list of examples. `batches()` iterates over it.

  Attributes:
    size: number of examples. num_batches: batches that hold them.
    datasets, episodes: names behind the integer ids, the same in every process.
  """

  def __init__(
    self,
    load: _LoadEvaluation,
    names: Mapping[str, list[str]],
    batching: Batching,
    read_options: ReadOptions,
  ):
    """Iterates over the locations of `load`; `names` are of "datasets" and "episodes"."""
    self._load, self._batching, self._read_options = load, batching, read_options
    self.datasets, self.episodes = names["datasets"], names["episodes"]
    self.size = len(load.locations)
    self.num_batches = -(-self.size // batching.batch_size)

  def batches(self) -> stream.Batches:
    """All examples in order.

    Returns:
      Batches as of `batches` with "valid" bool [B] (False on the last batch's padding, and where an
      example cannot be read: "damaged" bool [B]), and "dataset", "episode", "time" (frame number in
      the episode) int32 [B].
    """
    return stream.sequential_batches(
      self._load, self.num_batches, self._batching, self._read_options
    )


def evaluation_examples(
  loader: policy_examples.ExampleLoader,
  split: str,
  batching: Batching,
  read_options: ReadOptions = ReadOptions(),
  *,
  max_examples: int | None = None,
) -> EvaluationExamples:
  """Examples in a fixed order; the weights of the mixture play no part.

  Args:
    loader: of the examples.
    split: its name, for messages.
    batching: batch size and part of this process; the order is fixed.
    read_options: processes and threads that load.
    max_examples: cap over all data sets: an equal share for each, spread evenly over its examples;
      None = every one.

  Raises:
    errors.UserError: no data set has an example.
  """
  counts = [len(opened.windows) for opened in loader.sets]
  if not sum(counts):
    raise errors.UserError(
      f"no data set has an example in the split {split!r} "
      "(validation needs at least 2 episodes of a task; or set validation_fraction=0)"
    )
  locations = []
  for dataset, take in enumerate(_equal_shares(counts, max_examples)):
    examples = ((np.arange(take) + 0.5) * counts[dataset] / max(take, 1)).astype(np.int64)
    locations.append(np.stack([np.full(take, dataset), examples], 1))
  tables = [opened.table for opened in loader.sets]
  episodes = [name for table in tables for name in table.episodes]
  first = np.cumsum([0, *(len(table.episodes) for table in tables)])
  ids = [(first[dataset] + table.episode).astype(np.int32) for dataset, table in enumerate(tables)]
  resize = (transforms.Resize(loader.layout.image_size),)
  load = _LoadEvaluation(loader, np.concatenate(locations), ids, resize)
  names = {"datasets": [opened.label for opened in loader.sets], "episodes": episodes}
  return EvaluationExamples(load, names, batching, read_options)


def _equal_shares(counts: Sequence[int], total: int | None) -> list[int]:
  """How many of each to take: equal shares, what a small one leaves over goes to the others."""
  shares, left = list(counts), sum(counts) if total is None else min(total, sum(counts))
  for done, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
    shares[i] = min(counts[i], left // (len(counts) - done))
    left -= shares[i]
  return shares
