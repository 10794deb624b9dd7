"""The data of motion models and encoders: a config's section `data`, opened once."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from como_jax import data, errors
from como_jax.assembly import data_folders
from como_jax.data import evaluation, motion_mixture, pipeline, stream, times, transforms
from como_jax.data.batching import Batching, ProcessSlice
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
    folder = data_folders.to_shards(path, section)
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
  """The data sets of a config, opened once.

  Attributes:
    mixture: the data sets.
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

  def windows(
    self, split: str, *, frames: int, batch_size: int, max_windows: int | None
  ) -> evaluation.EvaluationWindows:
    """Fixed windows of K frames with their actions, in order."""
    section = self._section
    return self.mixture.evaluation_windows(
      pipeline.Layout(section.image_size, frames=frames),
      Batching(batch_size),
      reading.in_order(section),
      split=split,
      max_windows=max_windows,
    )


class TrainingData(MotionData):
  """What a motion model or an encoder is trained on.

  Attributes:
    batch_spec: shapes of a whole training batch.
    read_options: how this process reads its part of one.
  """

  def __init__(self, config, model: Any, *, jitter: bool = False):
    """Opens the data sets and looks for the training windows, before anything is written.

    Args:
      config: of the training; its model is of a kind of `pipeline.Layout`.
      model: that it builds.
      jitter: whether a loss needs frames beside a pair's second one.

    Raises:
      errors.UserError: as `MotionData`; no window fits, data and model want frames of different
        sizes, or a number of readers below -1.
    """
    super().__init__(config)
    section, size = config.data, config.model.image_size
    if section.image_size != size:
      raise errors.UserError(
        f"config.data.image_size={section.image_size} is not config.model.image_size={size}"
      )
    self._layout = pipeline.Layout(
      size, config.model.kind, section.frames, jitter, augmentation(section)
    )
    self.mixture.windows("train", frames=self._layout.window_frames)
    self._batching = reading.batching(config)
    self.batch_spec = self._spec(model, self._batching.batch_size)
    self.read_options = reading.choose(
      section, self.mixture.paths, self._spec(model, reading.local_rows(self._batching.batch_size))
    )
    self._evaluation = config.get("evaluation")  # an encoder's config has none

  def _spec(self, model: Any, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch."""
    if self._layout.kind == "mae":
      return model.inputs_spec(rows)
    return model.inputs_spec(rows, self._layout.frames, jittered=self._layout.jitter)

  def remarks(self) -> list[str]:
    """What the data sets hold, and what of them does not go with the model, a line each."""
    return [
      f"data: {facts['name']}: {line}"
      for facts in self.mixture.describe(frames=self._layout.window_frames)
      for line in _remarks(facts, self._layout)
    ]

  def batches(self, step: int) -> stream.Batches:
    """This process's part of the augmented training batches, endless, from a step on."""
    batching = dataclasses.replace(self._batching, start_step=step)
    return self.mixture.batches(self._layout, batching, self.read_options)

  def first_batches(self) -> stream.Batches:
    """The first training batches, whole in every process, and without jittered frames."""
    return self.mixture.batches(
      dataclasses.replace(self._layout, jitter=False),
      dataclasses.replace(self._batching, process=ProcessSlice()),
      dataclasses.replace(self.read_options, workers=0),
    )

  def held_out(self) -> evaluation.EvaluationWindows | None:
    """The held-out triples of frames of config.evaluation; None where nothing is held out."""
    if not self.mixture.validation_fraction > 0:
      return None
    return self.windows(
      "validation",
      frames=3,
      batch_size=self._evaluation.batch_size,
      max_windows=self._evaluation.windows,
    )

  def sample_frames(self, count: int) -> np.ndarray:
    """Single frames spread evenly over what is held out: uint8 [n, H, W, 3].

    Where nothing is held out, they are spread over the training data.
    """
    split = "validation" if self.mixture.validation_fraction > 0 else "train"
    windows = self.windows(split, frames=1, batch_size=1, max_windows=count)
    return windows.pictures(count)["frames"][:, 0]


def _remarks(facts: Mapping[str, Any], layout: pipeline.Layout) -> Iterator[str]:
  """What a data set holds, and what of it does not go with the model."""
  frames, image_size = layout.window_frames, layout.image_size
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
  if layout.jitter and fastest * facts["offset_seconds"] * times.FRACTION < 1:
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
