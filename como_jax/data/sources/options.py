"""Options for reading a source where its files are ambiguous.

They are `config.source` of ingest, and `config.data.source` when training reads raw data.
"""

import dataclasses
import math
from typing import Any

from como_jax import errors

_CHOICES = {
  "timestamps": ("table", "frame_index"),
  "rate_conflict": ("refuse", "table", "video"),
  "invalid_rows": ("skip_episode", "cut_episode"),
  "hdr": ("tonemap", "keep"),
}


@dataclasses.dataclass(frozen=True)
class SourceOptions:
  """Options of all source formats. Each format reads the options that apply to it.

  Attributes:
    action_key: LeRobot feature of actions, "" = the usual name.
    state_key: LeRobot feature of states, "" = the usual name.
    camera_keys: LeRobot features, or short names of cameras, to read in this order; () = all video
      and image features.
    timestamps: times of the rows of a LeRobot table: "table" = its column "timestamp",
      "frame_index" = frame_index / fps.
    rate_conflict: what to do when a LeRobot table and its video disagree about the frame rate, or
      about where an episode begins in a shared file. "refuse" = skip the episode. "table" = use
      the picture nearest to the row's time. "video" = row k shows picture k, at the time of that
      picture.
    invalid_rows: what to do with a LeRobot episode when its action or state is not finite in a
      row: "skip_episode", or "cut_episode" before that row.
    depth_range: (nearest, farthest), the stored values of images with more than 8 bits that become
      0 and 255; () = cameras with such images are left out and listed.
    group: which video files are views of one recording and stay on one side of a split: "auto",
      "none", "folder" (files of one folder), "name" (files of one name in several folders), or a
      regular expression whose first group names the recording.
    frame_rate: frames per second of recordings whose files hold no times (tensorflow-datasets);
      0 = refuse them.
    hdr: what to do with pictures with an HDR transfer function (PQ, HLG): "tonemap" = convert them
      to SDR, "keep" = leave them as they are, with a note that names the function.
  """

  action_key: str = ""
  state_key: str = ""
  camera_keys: tuple[str, ...] = ()
  timestamps: str = "table"
  rate_conflict: str = "refuse"
  invalid_rows: str = "skip_episode"
  depth_range: tuple[float, ...] = ()
  group: str = "auto"
  hdr: str = "tonemap"
  frame_rate: float = 0.0

  def __post_init__(self):
    for name, valid in _CHOICES.items():
      if getattr(self, name) not in valid:
        raise errors.UserError(
          f"source option {name}={getattr(self, name)!r}: "
          f"{errors.nearest(getattr(self, name), valid)}"
        )
    if not 0 <= self.frame_rate < math.inf:
      raise errors.UserError(
        f"source option frame_rate={self.frame_rate!r}, expected frames per second, or 0"
      )
    if self.depth_range and not (
      len(self.depth_range) == 2 and self.depth_range[0] < self.depth_range[1]
    ):
      raise errors.UserError(
        f"source option depth_range={self.depth_range!r}, expected (nearest, farthest) with "
        "nearest < farthest, or ()"
      )

  def stored(self) -> dict[str, Any]:
    """The options as the shards record them, without newer options that are not used.

    So shards and converted copies that were made before an option existed keep their settings.
    """
    values = dataclasses.asdict(self)
    return {key: value for key, value in values.items() if key != "frame_rate" or value}
