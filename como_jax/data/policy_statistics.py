"""Statistics of a policy's training examples: actions, states and latent motion.

Legend: T frames of a clip.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from como_jax import errors
from como_jax.data import kept_statistics, normalization, policy_examples, policy_layout, video
from como_jax.data.policy_sets import OpenedSet, SplitSet
from como_jax.data.statistics import Accumulator, Statistics
from como_jax.data.times import FrameTimes

_LATENT_SAMPLE = 200_000  # rows that the quantiles of latent motion are computed from


def check_sizes(sets: Sequence[OpenedSet]) -> None:
  """Refuses a robot with several sizes of actions or states.

  Raises:
    errors.UserError: naming the two data sets.
  """
  first: dict[str, tuple[str, list]] = {}
  for opened in sets:
    robot = opened.entry.robot
    if not robot:
      continue
    size = [opened.manifest[key]["size"] for key in normalization.KEYS]
    label, expected = first.setdefault(robot, (opened.label, size))
    if size != expected or not isinstance(size[0], int):
      raise errors.UserError(
        f"{opened.label}: robot {robot!r} has action and state of sizes {size}, in "
        f"{label} {expected}; expected one size, so give it another robot name"
      )


def statistics(
  sets: Sequence[SplitSet], *, reduce: str, step_seconds: float, kept: bool = False
) -> normalization.MixtureStatistics:
  """Statistics of actions as reduced to policy steps, of states, and of latent motion.

  Every frame of an entry counts once. No frame is decoded. A damaged record is left out with a
  warning.

  Args:
    sets: training examples.
    reduce: how the actions of a step become one: "mean", "first" or "last".
    step_seconds: of an element of a chunk; 0 = one frame.
    kept: use what ingest and labeling kept of whole data sets, where it says enough, see
      `kept_statistics`.

  Raises:
    errors.UserError: an unknown reduction, or a robot without a readable record.
  """
  policy_layout.check_reduction(reduce)
  known = kept_statistics.of_robots(sets, step_seconds) if kept else {}
  latent = kept_statistics.of_latents(sets) if kept else None
  sums: dict[str, dict[str, Accumulator]] = {}
  for opened in sets:
    if opened.robot and opened.robot not in known:
      parts = sums.setdefault(opened.robot, {key: Accumulator() for key in normalization.KEYS})
      _accumulate(opened, parts, reduce, step_seconds)
  robots: dict[str, dict[str, Statistics]] = dict(known)
  for robot, parts in sums.items():
    robots[robot] = {
      key: value for key, part in parts.items() if (value := part.finish()) is not None
    }
    if "action" not in robots[robot]:
      raise errors.UserError(f"robot {robot!r}: none of its records can be read")
  return normalization.MixtureStatistics(
    robots, _latent_statistics(sets) if latent is None else latent
  )


def _latent_statistics(sets: Sequence[SplitSet]) -> Statistics | None:
  """Of the valid latent motions of the examples' frames.

  A frame of a label set that several entries use counts once.

  The z of a clip are read where the sample for the quantiles takes some of them (in a large data
  set from few clips), where not all of its frames count, and where the file lacks their moments.
  """
  used = [opened.entry.labels for opened in sets if opened.motions]
  shared = {path for path in used if used.count(path) > 1}
  count = sum(int(take.sum()) for *_, take in _labeled_frames(sets, shared, warn=False))
  total = Accumulator(_LATENT_SAMPLE, expected=count)
  for opened, location, camera, take in _labeled_frames(sets, shared, warn=True):
    motions = opened.motions
    assert motions is not None  # as its frames are labeled
    try:
      moments = motions.moments(*location, camera)
      count = int(take.sum())
      if not count:
        continue
      whole = count == int(motions.valid(*location, camera).sum())
      if moments is None or not whole or not total.add_known(count, moments):
        total.add(motions.z(*location, camera)[take])
    except video.UnreadableError as error:
      _warn_left_out(opened, error)
  return total.finish()


def _warn_left_out(opened: SplitSet, error: video.UnreadableError) -> None:
  warnings.warn(
    f"{opened.label}: labels that cannot be read are left out of the statistics: {error}",
    stacklevel=4,
  )


def _labeled_frames(
  sets: Sequence[SplitSet], shared: Collection[str], *, warn: bool
) -> Iterator[tuple[SplitSet, tuple[int, int], str, np.ndarray]]:
  """(data set, (shard, clip), camera, bool [T]: the frames that count) of the examples' clips.

  No frame counts twice.

  Args:
    sets: training examples.
    shared: label sets of more than one entry.
    warn: whether to warn of clips that are left out.
  """
  counted: dict[tuple, np.ndarray] = {}
  for opened in sets:
    if opened.motions is None:
      continue
    cameras = list(dict.fromkeys(name for name in opened.slots if name in opened.labeled))
    for row, first, last in _clips(opened) if cameras else ():
      location = opened.windows.segments.clip_location(row)
      for camera in cameras:
        try:
          take = opened.motions.valid(*location, camera).copy()
        except video.UnreadableError as error:
          if warn:
            _warn_left_out(opened, error)
          continue
        take[: max(0, first)] = take[last:] = False
        if opened.entry.labels in shared:
          done = counted.setdefault(
            (opened.entry.labels, location, camera), np.zeros(len(take), bool)
          )
          take &= ~done
          done |= take
        yield opened, location, camera, take


def _clips(opened: SplitSet) -> Iterator[tuple[int, int, int]]:
  """(row of the table, first frame, last frame (excluded)) of the clips that hold examples.

  The frames are counted from the clip's first one; `first` may be negative.
  """
  segments = opened.windows.segments
  for segment, first, last in zip(
    *(column.tolist() for column in opened.windows.frame_ranges()), strict=True
  ):
    rows = range(segments.locate(segment, first)[0], segments.locate(segment, last - 1)[0] + 1)
    for row in rows:
      start = segments.first_frame(segment, row)
      yield row, first - start, last - start


def _accumulate(
  opened: SplitSet, sums: dict[str, Accumulator], reduce: str, step_seconds: float
) -> None:
  """Adds the frames of a data set's examples."""
  windows = opened.windows
  for segment, first, last in zip(
    *(column.tolist() for column in windows.frame_ranges()), strict=True
  ):
    table, row = windows.segments.table, windows.segments.locate(segment, first)[0]
    where = f"{opened.label}: episode {table.episodes[table.episode[row]]!r}"
    try:
      times = opened.reader.times(segment)
      frames = np.arange(first, last)
      stops = (
        np.minimum(frames + 1, times.count)
        if step_seconds == 0
        else _step_ends(times, frames, step_seconds)
      )
      action = opened.reader.read_array(segment, "action", first, int(stops.max()))
      state = opened.reader.read_array(segment, "state", first, last)
    except video.UnreadableError as error:
      warnings.warn(
        f"{where} is left out of the statistics, its numbers are damaged: {error}", stacklevel=3
      )
      continue
    try:
      if action is not None:
        sums["action"].add(
          policy_examples.reduce_actions(action, frames - first, stops - first, reduce)
        )
      if state is not None:
        sums["state"].add(state)
    except errors.UserError as error:
      raise errors.UserError(f"{where}: {error}") from error


def _step_ends(times: FrameTimes, frames: np.ndarray, step_seconds: float) -> np.ndarray:
  """The frames that a policy step ends before, as `policy_index.chunk_edges` has it."""
  later, _ = times.partners(frames, step_seconds)
  beyond = (
    times.seconds_at(frames) + step_seconds > times.seconds_at(times.count - 1) + times.interval / 2
  )
  return np.maximum(np.where(beyond, times.count, later), frames + 1)
