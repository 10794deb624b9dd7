"""The data of motion models and encoders: a config's section `data`, opened once."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from como_jax import data, errors
from como_jax.assembly import data_folders
from como_jax.data import (
  evaluation,
  motion_mixture,
  pipeline,
  read_options,
  stream,
  times,
  transforms,
)
from como_jax.data.batching import Batching
from como_jax.settings import entries as mixtures
from como_jax.train import reading


def data_sets(config) -> list[data.DataSet]:
  """The data sets of a config: its mixture, or its single path.

  Raw sources are converted into the cache first.

  Raises:
    errors.UserError: a path that does not exist or cannot be read, an unknown key of a mixture
      entry.
  """
  section = config.data
  alone = dict(path=section.path, cameras=tuple(section.cameras))
  entries = mixtures.check(
    tuple(section.mixture) or (alone,), "config.data.mixture", task=config.get("task", "motion")
  )
  # all of them, before the first one is converted
  given = [data_folders.resolve(entry["path"]) for entry in entries]
  sets = []
  for entry, path in zip(entries, given, strict=True):
    entry = {
      "offset_seconds": section.offset_seconds,
      "name": os.path.basename(os.path.normpath(path)),
      "cameras": (),
      **entry,
    }
    folder = data_folders.to_shards(
      path, section, image_size=section.image_size, cache_dir=data_folders.cache_dir(section)
    )
    sets.append(data.DataSet(**{**entry, "path": folder}))
  return sets


def augmentation(section) -> tuple:
  """The transforms that are switched on."""
  chosen = {}
  for name, settings in section.augment.items():
    settings = dict(settings)
    if settings.pop("on"):
      chosen[name] = settings
  return transforms.build(chosen)


class MotionData:
  """The data of a motion or encoder config, opened once.

  Attributes:
    mixture: the data sets.
    augment: transforms that are switched on.
  """

  def __init__(self, config):
    """Opens the data sets; raw sources are converted into the cache first.

    Args:
      config: of a task with a section `data`.

    Raises:
      errors.UserError: a path that does not exist or cannot be read, or an unknown key of a mixture
        entry.
    """
    self._section = config.data
    self.mixture = motion_mixture.MotionMixture(
      data_sets(config), validation_fraction=config.data.validation_fraction
    )
    self.augment = augmentation(config.data) if "augment" in config.data else ()

  def check(self, *, image_size: int, frames: int, jitter: bool) -> None:
    """Looks for the training windows before anything is written, and says what there is.

    Args:
      image_size: of the model, px.
      frames: K of a window.
      jitter: whether a loss needs frames beside a pair's second one.

    Raises:
      errors.UserError: no window fits, or data and model want frames of different sizes.
    """
    if self._section.image_size != image_size:
      raise errors.UserError(
        f"config.data.image_size={self._section.image_size} is not "
        f"config.model.image_size={image_size}"
      )
    self.mixture.windows("train", frames=frames)
    for facts in self.mixture.describe(frames=frames):
      for line in _remarks(facts, image_size=image_size, frames=frames, jitter=jitter):
        print(f"data: {facts['name']}: {line}")

  def choose_read_options(
    self, batch: Mapping[str, jax.ShapeDtypeStruct]
  ) -> read_options.ReadOptions:
    """How training batches of these shapes (of this process) are read."""
    return reading.choose(self._section, self.mixture.paths, batch)

  def batches(
    self, batching: Batching, options: read_options.ReadOptions, *, kind: str, jitter: bool
  ) -> stream.Batches:
    """Endless augmented training batches, see `MotionMixture.batches`."""
    section = self._section
    layout = pipeline.Layout(section.image_size, kind, section.frames, jitter, self.augment)
    return self.mixture.batches(layout, batching, options)

  def windows(
    self, split: str, *, frames: int, batch_size: int, max_windows: int | None
  ) -> evaluation.Evaluation:
    """Fixed windows of K frames with their actions, in order."""
    section = self._section
    return self.mixture.evaluation(
      pipeline.Layout(section.image_size, frames=frames),
      Batching(batch_size),
      reading.in_order(section),
      split=split,
      max_windows=max_windows,
    )

  def sample_frames(self, split: str, *, count: int) -> np.ndarray:
    """Single frames spread evenly over a split: uint8 [n, H, W, 3]."""
    return self.windows(split, frames=1, batch_size=1, max_windows=count).pictures(count)["frames"][
      :, 0
    ]


def _remarks(
  facts: Mapping[str, Any], *, image_size: int, frames: int, jitter: bool
) -> Iterator[str]:
  """What a data set holds, and what of it does not go with the model."""
  strides = ", ".join(map(str, facts["stride_frames"]))
  apart = f", {facts['offset_seconds']:g} s ({strides} frames) apart" if frames > 1 else ""
  left_out = f", {facts['windows_left_out']} left out" if facts["windows_left_out"] else ""
  rates = ", ".join(f"{rate:g}" for rate in facts["fps"][:6]) + (
    ", ..." if len(facts["fps"]) > 6 else ""
  )
  yield (
    f"{facts['episodes']} episodes, {facts['frames']} frames at {rates} "
    f"a second, cameras {', '.join(facts['cameras'])}; {facts['windows']['train']} training and "
    f"{facts['windows']['validation']} validation windows of {frames} frames{apart}{left_out}"
  )
  fastest = max(facts["fps"], default=0.0)
  if jitter and fastest * facts["offset_seconds"] * times.FRACTION < 1:
    yield (
      f"no frame lies within a fifth of {facts['offset_seconds']:g} s "
      "around a pair's second one, so the contrastive term's positive pair is the pair itself; "
      f"raise config.data.offset_seconds to {1 / (times.FRACTION * fastest):.3g} or more"
    )
  if image_size > facts["image_size"] > 0:
    yield (
      f"its shards hold frames of {facts['image_size']} px, enlarged for "
      f"a model of {image_size} px: ingest the source with "
      f"--config.shards.image_size={image_size}"
    )
