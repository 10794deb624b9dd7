"""The settings of an ingest: those a caller gives, and the full set that the shards depend on."""

import dataclasses
from typing import Any

from como_jax import errors
from como_jax.data import frame_filters, shard_file, sources

QUALITY = {"jpeg": 95, "h264": 18}  # JPEG quality; H.264 constant rate factor


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that the bytes of a shard depend on, see `ingest.run`."""

  image_size: int
  resize: str
  codec: str
  quality: int
  clip_frames: int
  cameras: tuple[str, ...]
  episodes_per_shard: int
  options: dict[str, Any]  # of the source
  measure: str = "auto"
  filters: dict[str, Any] = dataclasses.field(default_factory=dict)
  unit_frames: int = 0

  def stored(self) -> dict[str, Any]:
    """The settings as a folder of shards keeps them: `unit_frames` only where it is set."""
    values = dataclasses.asdict(self)
    if not self.unit_frames:
      del values["unit_frames"]
    return values

  def check(self) -> "Settings":
    """Returns the settings; raises `errors.UserError` for a value that is not valid."""
    for name, valid in (
      ("resize", ("squash", "crop", "pad")),
      ("codec", shard_file.CODECS),
      ("measure", ("auto", "on", "off")),
    ):
      if getattr(self, name) not in valid:
        raise errors.UserError(
          f"ingest {name} {getattr(self, name)!r}: {errors.nearest(getattr(self, name), valid)}"
        )
    limits = {
      "image_size": (0, 8192),
      "clip_frames": (1, 100_000),
      "episodes_per_shard": (1, 1_000_000),
      "unit_frames": (0, 1_000_000_000),
      "quality": (1, 100) if self.codec == "jpeg" else (0, 51),
    }
    for name, (low, high) in limits.items():
      if not low <= getattr(self, name) <= high:
        raise errors.UserError(f"ingest {name} is {getattr(self, name)}, expected {low} to {high}")
    frame_filters.check(self.filters)
    return self


@dataclasses.dataclass(frozen=True)
class StorageOptions:
  """How frames are stored in shards, and which of them.

  Attributes:
    image_size: side in pixels of the stored square frames; 0 keeps the source's size.
    resize: "squash", "crop" or "pad", see `video.Geometry`.
    codec: "jpeg" (each frame is coded alone: the fastest random access) or "h264" (ten frames are
      coded together: about ten times smaller, slower random access).
    quality: JPEG quality 1 to 100 (default 95), or for h264 the constant rate factor 0 to 51, lower
      is better (default 18).
    clip_frames: largest number of frames in a clip. Windows may span clips.
    cameras: names of the cameras to keep; empty = all.
    episodes_per_shard: number of episodes of the source in a shard file.
    measure: whether to measure cuts, motion, camera motion, still frames and repeated frames:
      "auto" (yes for videos, no for robot recordings), "on", "off".
    filters: fields of `frame_filters.FilterOptions`, which frames to leave out; None = none.
    unit_frames: about how many frames a shard may hold. A longer video file becomes several
      episodes (`sources.parts`); 0 = no bound, every file is an episode.
  """

  image_size: int = 0
  resize: str = "squash"
  codec: str = "jpeg"
  quality: int | None = None
  clip_frames: int = 128
  cameras: tuple[str, ...] = ()
  episodes_per_shard: int = 64
  measure: str = "auto"
  filters: dict[str, Any] | None = None
  unit_frames: int = 0

  def settings(self, source: sources.Source, options: sources.SourceOptions) -> Settings:
    """The full set of settings for a source.

    Args:
      source: the source.
      options: how it is read.

    Raises:
      errors.UserError: the source has no such camera, or a value is not valid.
    """
    for name in self.cameras:
      if name not in source.cameras:
        raise errors.UserError(
          f"camera {name!r} is not in the data set: {errors.nearest(name, source.cameras)}"
        )
    return Settings(
      self.image_size,
      self.resize,
      self.codec,
      QUALITY.get(self.codec, 0) if self.quality is None else self.quality,
      self.clip_frames,
      tuple(self.cameras) or tuple(source.cameras),
      self.episodes_per_shard,
      options.stored(),
      self.measure,
      dict(self.filters or {}),
      self.unit_frames,
    ).check()

  def given(self) -> dict[str, Any]:
    """The fields that name a converted copy of the data, beside its image size.

    They are resize, further fields that are not the defaults and, when there are filters, what
    belongs to them. So the name of a copy stays when a field is added.
    """
    defaults = StorageOptions()
    together = ("measure", "filters") if self.filters is not None else ()
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name != "image_size"
      and (
        field.name in ("resize", *together)
        or getattr(self, field.name) != getattr(defaults, field.name)
      )
    }
