"""The data that a trained motion model labels, opened once."""

import jax
import numpy as np

from como_jax.assembly import data_folders, offsets
from como_jax.data import sequences, shards
from como_jax.inference.label_options import Options
from como_jax.inference.motion_checkpoint import MotionCheckpoint
from como_jax.train import reading


class LabelingData:
  """The data to label.

  Attributes:
    source: their path as given, or that of the model's training.
    folder: of their shards.
    manifest: description of the shards.
    table: of the clips.
    offset: between the frames of a pair.
    read_options: how frames are read.
  """

  def __init__(self, options: Options, trained: MotionCheckpoint):
    """Opens the data; raw data are turned into shards first, read as in training.

    Args:
      options: of labeling.
      trained: the motion model.

    Raises:
      errors.UserError: a data set that does not exist, or the data or the offset are not given and
        the training does not say them.
    """
    path, self.offset = offsets.choose_data(
      options.data.path,
      trained.trained_on,
      offset_seconds=options.offset_seconds,
      checkpoint=trained.path,
    )
    self.source = data_folders.resolve(path)
    size, trained_on = trained.model.image_size, trained.trained_on
    section = {
      **trained_on,
      "image_size": size,
      "resize": options.data.resize or trained_on.get("resize", "squash"),
      "cache": options.data.cache,
    }
    self.folder = data_folders.to_shards(self.source, section)
    self.manifest = shards.read_manifest(self.folder)
    self.table = shards.read_table(self.folder)
    clip = jax.ShapeDtypeStruct((int(self.table.length.max()), size, size, 3), np.uint8)
    self.read_options = reading.choose(options.data, [self.folder], {"frames": clip})
    self._cameras = options.data.cameras

  def plan(self) -> sequences.Plan:
    """The pairs of all segments of the cameras to label.

    Raises:
      errors.UserError: a camera that does not exist, or no pair of frames, see `sequences.plan`.
    """
    return sequences.plan(
      self.table, offset_seconds=self.offset.seconds, cameras=self._cameras, name=self.source
    )
