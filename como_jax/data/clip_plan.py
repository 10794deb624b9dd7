"""Divides an episode into segments and clips, from what was measured in its frames.

Legend: T frames of the episode.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.data import episode as episodes
from como_jax.data import frame_filters, frame_measures, video


@dataclasses.dataclass(frozen=True)
class Span:
  """Frames first to last (exclusive) of an episode that become one clip."""

  first: int
  last: int
  shot: int
  task: str


@dataclasses.dataclass
class Plan:
  """How an episode is divided.

  Attributes:
    source: numbers of the source's frames that are counted, in order: all T frames, or those that
      do not repeat the frame before. The numbers in spans are indices into this array.
    seconds: times of the counted frames.
    segments: clips of each run without a cut or a gap, in order.
    measures: by camera; {} when nothing was measured.
    counts: number of frames by "kept" and the reasons for leaving them out.
    notes: remarks.
  """

  source: np.ndarray
  seconds: np.ndarray
  segments: list[list[Span]]
  measures: dict[str, frame_measures.FrameMeasures]
  counts: dict[str, int]
  notes: list[str]

  def facts(self, span: Span) -> dict:
    """Measured columns of a clip's row; NaN when nothing was measured.

    Motion: mean over the frames, the largest of all cameras. Global motion: mean speed of the whole
    picture, the smallest of all cameras. Shares of frames that are still, repeated in all cameras.
    """
    part, views = self.source[span.first : span.last], list(self.measures.values())
    if not views:
      return {
        "motion": np.nan,
        "global_motion": np.nan,
        "still": np.nan,
        "repeated": np.nan,
        "duplicate": False,
      }
    return {
      "motion": float(max(view.motion[part].mean() for view in views)),
      "global_motion": float(min(frame_filters.camera_speed(view)[part].mean() for view in views)),
      "still": float(np.all([view.still[part] for view in views], 0).mean()),
      "repeated": float(np.all([view.repeated[part] for view in views], 0).mean()),
      "duplicate": False,
    }

  def frame_facts(self, span: Span) -> dict[str, np.ndarray]:
    """Values measured for each frame of a clip: name -> [T of the clip, ...]."""
    frames = self.source[span.first : span.last]
    return {
      f"{name}/{camera}": getattr(measures, name)[frames]
      for camera, measures in self.measures.items()
      for name in ("motion", "global_motion", "picture_hash", "still", "repeated")
    }


def make(
  raw: episodes.RawEpisode,
  seconds: np.ndarray,
  measurers: Mapping[str, frame_measures.FrameMeasurer],
  *,
  filters: frame_filters.FilterOptions,
  clip_frames: int,
) -> Plan:
  """Divides an episode into segments and clips.

  Args:
    raw: the episode.
    seconds: times of its frames, [T].
    measurers: by camera, which have measured all frames; {} = nothing was measured.
    filters: which frames to leave out.
    clip_frames: largest number of frames in a clip.

  Raises:
    video.UnreadableError: no frame is left, or an instruction is missing.
  """
  count = len(seconds)
  tasks = [raw.task] * count if isinstance(raw.task, str) else list(raw.task)
  if len(tasks) < count:
    raise video.UnreadableError(f"{count} frames but {len(tasks)} instructions")
  known = np.zeros(count, bool)
  known[[t for t in raw.cuts if 0 < t < count]] = True
  measures = {name: measurer.finish() for name, measurer in measurers.items()}
  measures = {
    name: dataclasses.replace(camera, cut=known | (camera.cut & (not raw.continuous)))
    for name, camera in measures.items()
  }
  keep, repeated, counts, notes, cut = (
    np.ones(count, bool),
    np.zeros(count, bool),
    {"kept": count},
    [],
    known,
  )
  if measures:
    result = frame_filters.filter_frames(list(measures.values()), filters)
    keep, counts, cut = (
      result.keep,
      result.counts,
      np.any([camera.cut for camera in measures.values()], axis=0),
    )
    repeated = result.reason == frame_filters.Reason.REPEATED
    new_cuts = int(cut.sum() - known.sum())
    if new_cuts:
      notes.append(f"{new_cuts} cuts between shots: no pair of frames crosses one")
    if not keep.any():
      reasons = ", ".join(
        f"{number} {reason}" for reason, number in counts.items() if reason != "kept"
      )
      raise video.UnreadableError(f"the filters leave no frame ({reasons})")
  # A repeated frame is not counted, so that the frames around it are consecutive.
  source = np.flatnonzero(~repeated)
  segments = cut_clips(
    keep[source], np.cumsum(cut)[source], [tasks[t] for t in source], clip_frames
  )
  return Plan(source, seconds[source], segments, measures, counts, notes)


def cut_clips(
  keep: np.ndarray, shot: np.ndarray, tasks: Sequence[str], max_frames: int
) -> list[list[Span]]:
  """Divides the frames of an episode into clips, by segment.

  Args:
    keep: frames to store, bool [T].
    shot: number of the shot, int [T].
    tasks: instruction of each frame.
    max_frames: largest number of frames in a clip.
  """
  segments: list[list[Span]] = []
  start = None
  for t in range(len(keep) + 1):
    inside = t < len(keep) and keep[t]
    if start is not None:
      border = not inside or shot[t] != shot[start]
      if border or tasks[t] != tasks[start] or t - start == max_frames:
        segments[-1].append(Span(start, t, int(shot[start]), tasks[start]))
        start = None
        if inside and not border:
          start = t
    if inside and start is None:
      segments.append([])
      start = t
  return segments
