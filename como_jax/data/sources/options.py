"""How a source is read where the files leave it open: `config.source` of ingest,
`config.data.source` where training is given raw data.
"""

import dataclasses

from como_jax import errors

_CHOICES = {
  "timestamps": ("table", "frame_index"),
  "rate_conflict": ("refuse", "table", "video"),
  "invalid_rows": ("skip_episode", "cut_episode"),
  "hdr": ("tonemap", "keep"),
}


@dataclasses.dataclass(frozen=True)
class SourceOptions:
  """Options of all source formats; each format reads those that concern it.

  Attributes:
    action_key, state_key: LeRobot features of actions and states, "" = the usual names.
    camera_keys: LeRobot features, or short names of cameras, to read in this order; () = all video
      and image features.
    timestamps: times of a LeRobot table's rows: its column "timestamp" ("table"), or frame_index /
      fps ("frame_index").
    rate_conflict: where a LeRobot table and its video disagree about the rate, or about where an
      episode begins in a shared file: "refuse" the episode, or believe the "table" (the picture
      nearest to the row's time) or the "video" (row k shows picture k, at that picture's time).
    invalid_rows: a LeRobot episode whose action or state is not finite in a row: "skip_episode", or
      "cut_episode" before that row.
    depth_range: (nearest, farthest) stored value of images of more than 8 bits that becomes 0 and
      255; () = such cameras are left out and listed.
    group: which video files are views of one recording and stay on one side of a split: "auto",
      "none", "folder" (files of one folder), "name" (files of one name in several folders), or a
      regular expression whose first group names the recording.
    hdr: pictures with an HDR transfer function (PQ, HLG): "tonemap" to SDR or "keep" as they are,
      with a note that names it.
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

  def __post_init__(self):
    for name, valid in _CHOICES.items():
      if getattr(self, name) not in valid:
        raise errors.UserError(
          f"source option {name}={getattr(self, name)!r}: "
          f"{errors.nearest(getattr(self, name), valid)}"
        )
    if self.depth_range and not (
      len(self.depth_range) == 2 and self.depth_range[0] < self.depth_range[1]
    ):
      raise errors.UserError(
        f"source option depth_range={self.depth_range!r}, expected (nearest, farthest) with "
        "nearest < farthest, or ()"
      )
