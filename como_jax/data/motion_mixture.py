"""The data of motion models and encoders: opened once, and everything that is asked of them."""

from collections.abc import Sequence
from typing import Any

from como_jax import errors
from como_jax.data import DataSet, evaluation, index, pipeline, shards, stream
from como_jax.data.batching import Batching, Split
from como_jax.data.read_options import ReadOptions


class MotionMixture:
  """Data sets that windows of frames are drawn from.

  Every table is read once, and the windows of a split are enumerated once.

  Attributes:
    datasets: the mixture.
    validation_fraction: share of the episodes set aside.
  """

  def __init__(self, datasets: Sequence[DataSet], *, validation_fraction: float = 0.1):
    """Opens the data sets.

    Args:
      datasets: the mixture.
      validation_fraction: share of the episodes set aside.

    Raises:
      errors.UserError: no data set, a weight that is not positive, or a folder that does not exist
        or is damaged.
    """
    if not datasets:
      raise errors.UserError("no data set is given")
    for dataset in datasets:
      if not dataset.weight > 0:
        raise errors.UserError(
          f"data set {dataset.label}: weight is {dataset.weight}, expected more than 0"
        )
    self.datasets, self.validation_fraction = list(datasets), validation_fraction
    self._tables = [shards.read_table(dataset.path) for dataset in self.datasets]
    self._windows: dict[tuple[str, int], list[pipeline.OpenedWindows]] = {}

  @property
  def paths(self) -> list[str]:
    """The folders of shards."""
    return [dataset.path for dataset in self.datasets]

  def windows(self, split: str, *, frames: int) -> list[pipeline.OpenedWindows]:
    """The windows of a split ("train", "validation" or "all") of each data set.

    Args:
      split: its name.
      frames: K.

    Raises:
      errors.UserError: no episode in the split, or no window that fits.
    """
    if (split, frames) not in self._windows:
      part = Split(split, self.validation_fraction)
      self._windows[split, frames] = [
        pipeline.open_windows(dataset, table, frames=frames, split=part)
        for dataset, table in zip(self.datasets, self._tables, strict=True)
      ]
    return self._windows[split, frames]

  def batches(
    self,
    layout: pipeline.Layout,
    batching: Batching,
    read_options: ReadOptions = ReadOptions(),
    *,
    split: str = "train",
  ) -> stream.Batches:
    """Endless shuffled batches, see `pipeline.batches`."""
    layout.check()
    _ = batching.local_rows  # checked before the windows are enumerated
    return pipeline.batches(
      self.windows(split, frames=layout.window_frames), layout, batching, read_options
    )

  def evaluation_windows(
    self,
    layout: pipeline.Layout,
    batching: Batching,
    read_options: ReadOptions = ReadOptions(),
    *,
    split: str = "validation",
    max_windows: int | None = None,
  ) -> evaluation.EvaluationWindows:
    """Windows in a fixed order, see `evaluation.evaluation_windows`."""
    sets = self.windows(split, frames=layout.frames)
    return evaluation.evaluation_windows(
      sets, layout, batching, read_options, max_windows=max_windows
    )

  def describe(self, *, frames: int = 2) -> list[dict[str, Any]]:
    """Each data set in plain JSON values, see `describe`."""
    return [
      describe(dataset, table, frames=frames, validation_fraction=self.validation_fraction)
      for dataset, table in zip(self.datasets, self._tables, strict=True)
    ]


def describe(
  dataset: DataSet, table: shards.Table, *, frames: int, validation_fraction: float
) -> dict[str, Any]:
  """Describes a data set in plain JSON values, for logs and reports.

  Args:
    dataset: the data set.
    table: of its clips.
    frames: number of frames of a window.
    validation_fraction: share of the episodes that are for validation.

  Returns:
    name, source, image_size, codec, cameras, tasks (number), fps (sorted list, derived from the
    times), seconds, episodes, clips, frames, quarantined, windows {"train", "validation"} of
    `frames` frames, offset_seconds, stride_frames (sorted list), segments_without_window,
    windows_left_out, action and state {"size", "names", "statistics"}, fingerprint.
  """
  manifest = shards.read_manifest(dataset.path)
  validation = index.split(table, validation_fraction)
  counts, windows = {}, {}
  for split_name, clip_mask in (("train", ~validation), ("validation", validation)):
    if clip_mask.any():
      windows[split_name] = index.windows(
        table,
        frames=frames,
        offset_seconds=dataset.offset_seconds,
        clip_mask=clip_mask,
        cameras=tuple(dataset.cameras),
        name=dataset.label,
        warn=False,
      )
    counts[split_name] = len(windows[split_name]) if split_name in windows else 0
  return {
    "name": dataset.label,
    "source": manifest["source"]["description"],
    "image_size": manifest["image_size"],
    "codec": manifest["codec"],
    "cameras": list(dataset.cameras) or list(table.cameras),
    "tasks": len(set(table.tasks) - {""}),
    "fps": sorted({round(float(rate), 3) for rate in table.rates if rate}),
    "seconds": table.seconds,
    **manifest["counts"],
    "windows": counts,
    "offset_seconds": dataset.offset_seconds,
    "stride_frames": index.offset_in_frames(table, dataset.offset_seconds),
    "segments_without_window": sum(part.num_segments_without_window for part in windows.values()),
    "windows_left_out": sum(part.left_out for part in windows.values()),
    "action": manifest["action"],
    "state": manifest["state"],
    "fingerprint": manifest["source"]["fingerprint"],
  }
