"""The part of a video file that belongs to one episode of a LeRobot data set."""

import dataclasses

import numpy as np

from como_jax.data import video


@dataclasses.dataclass(frozen=True)
class Stretch:
  """The part of a video file with the pictures of one camera for one episode.

  Attributes:
    where: camera and file, for messages.
    path: of the video file.
    start: seconds in the file at which the episode begins (its time 0).
    end: seconds in the file at which the episode ends, None = the end of the file.
    followed: whether another episode begins in the file at `end`.
    file_rows: number of rows of all episodes of the file, 0 = unknown.
    file_end: latest end of all episodes of the file in seconds, 0 = unknown.
    file_before: number of rows of the episodes before this one in the file. None when the begins
      and ends of the episodes do not match their numbers of rows.
    info: facts about the file.
  """

  where: str
  path: str
  start: float
  end: float | None
  followed: bool
  file_rows: int
  file_end: float
  file_before: int | None
  info: video.Info

  @property
  def file_pictures(self) -> int:
    """Number of pictures in the file, 0 = unknown."""
    return self.info.frames or round(self.info.duration * self.info.fps)

  @property
  def seconds(self) -> float:
    """Length of the episode in the file, 0 = unknown."""
    return max(0.0, self._end(pauses=True) - self.start)

  @property
  def pictures(self) -> int:
    """Number of pictures of the episode in the file, at the file's frame rate."""
    return round(max(0.0, self._end(pauses=False) - self.start) * self.info.fps)

  @property
  def misplaced(self) -> bool:
    """Whether `start` is at another picture than `file_before`, if the file has one per row."""
    return (
      self.file_before is not None
      and self.file_pictures == self.file_rows
      and self.first_picture != self.file_before
    )

  @property
  def first_picture(self) -> int:
    """Number in the file of the picture nearest to the beginning of the episode."""
    position = self.start * self.info.fps
    if self.even and abs(position - round(position)) <= 0.4:
      return round(position)
    pictures = video.timeline(self.path)
    return int(nearest(pictures, self.start)) if len(pictures) > 1 else round(position)

  @property
  def even(self) -> bool:
    """Whether the duration of the file fits a constant rate, so that no picture is late."""
    return abs(self.info.duration * self.info.fps - self.file_pictures) < 0.4

  def _end(self, *, pauses: bool) -> float:
    """Seconds in the file of the episode's end; without `pauses`, as if no picture were late."""
    counted = self.file_pictures / self.info.fps
    if self.end is not None or not pauses or self.info.duration < counted + 1.5 / self.info.fps:
      return counted if self.end is None else self.end
    times = video.timeline(self.path)
    return max(counted, float(times[-1]) + 1 / self.info.fps) if len(times) else counted


def nearest(pictures: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
  """Numbers of the pictures (two or more) nearest to some times; on a tie, the earlier one."""
  after = np.clip(np.searchsorted(pictures, seconds), 1, len(pictures) - 1)
  return after - (seconds - pictures[after - 1] <= pictures[after] - seconds)
