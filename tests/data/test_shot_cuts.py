"""Cuts from signals made by hand."""

import numpy as np

from como_jax.data import shot_cuts

COUNT = 40


def signals(
  agreement=None,
  change=None,
  *,
  repeated=(),
  contrast=None,
  level=None,
  colors=None,
  scene=None,
  fps=25.0,
):
  """A textured picture whose contrast and level may change; `scene` numbers of other pictures."""
  pictures = np.random.default_rng(0).normal(0, 1, (5, 16, 16))
  scene = np.zeros(COUNT, int) if scene is None else np.asarray(scene, int)
  contrast = np.full(COUNT, 40.0) if contrast is None else np.asarray(contrast, float)
  level = np.full(COUNT, 120.0) if level is None else np.asarray(level, float)
  flags = np.zeros(COUNT, bool)
  flags[list(repeated)] = True
  return shot_cuts.Signals(
    times=np.arange(COUNT) / fps,
    agreement=np.ones(COUNT) if agreement is None else np.asarray(agreement, float),
    change=np.full(COUNT, 8.0) if change is None else np.asarray(change, float),
    colors=np.zeros(COUNT) if colors is None else np.asarray(colors, float),
    repeated=flags,
    small=level[:, None, None] + contrast[:, None, None] * pictures[scene],
    texture=np.zeros((COUNT, 16, 16)),
  )


def found(*args, **settings):
  return np.flatnonzero(shot_cuts.find(signals(*args, **settings))).tolist()


def at(places, value, otherwise):
  out = np.full(COUNT, otherwise, float)
  out[list(places)] = value
  return out


HALVES = (np.arange(COUNT) >= 20).astype(int)


def test_pictures_that_stop_to_agree_are_a_cut():
  assert found(at([20], 0.2, 1.0), at([20], 40, 8), scene=HALVES) == [20]
  assert found(at([20], 0.2, 1.0), at([20], 2, 1)) == []  # hardly anything changes


def test_a_stretch_that_agrees_badly_is_fast_motion():
  assert found(at(range(15, 26), 0.3, 1.0), at(range(15, 26), 40, 8)) == []


def test_repeated_frames_between_do_not_make_motion_look_like_cuts():
  new = range(10, 30, 2)
  repeated = [t for t in range(10, 30) if t not in new]
  assert found(at(new, 0.3, 1.0), at(new, 40, 0.1), repeated=repeated) == []


def test_new_colors_in_fast_motion_are_a_cut():
  shaking = np.full(COUNT, 0.45)
  assert found(shaking, np.full(COUNT, 40.0), colors=at([20], 0.8, 0.1), scene=HALVES) == [20]
  assert found(shaking, np.full(COUNT, 40.0), colors=np.full(COUNT, 0.8)) == []


def test_the_next_slide_may_agree_with_the_one_before():
  still = [t for t in range(COUNT) if t != 20]
  assert found(at([20], 0.6, 1.0), at([20], 12, 0.1), repeated=still, scene=HALVES) == [20]
  assert found(at([20], 0.6, 1.0), at([20], 12, 3), scene=HALVES) == []


def test_slides_that_look_alike_are_two_and_a_jerk_within_a_shot_is_none():
  still = [t for t in range(COUNT) if t != 20]
  # the tiny pictures are equal
  assert found(at([20], 0.6, 1.0), at([20], 12, 0.1), repeated=still) == [20]
  assert found(at([20], 0.2, 1.0), at([20], 40, 8)) == []  # here too, and things move around it


def test_plain_pictures_that_change_all_the_time_do_not_agree():
  plain, flicker = np.full(COUNT, np.nan), np.tile([12.0, 25.0, 12.0, 38.0], COUNT // 4)
  assert found(plain, flicker, scene=np.arange(COUNT) % 3) == []
  assert found(plain, at([20], 38, 0.5), scene=HALVES) == [20]
  assert found(plain, at([20], 12, 0.5), scene=HALVES) == []


def test_a_picture_that_flickers_has_no_cut_where_more_of_it_changes():
  change = at([20], 60, 25)
  assert found(at([20], 0.1, 0.6), change, scene=HALVES) == []
  assert found(at([20], 0.1, 0.8), change, scene=HALVES) == [20]


def test_one_color_that_flickers_up_is_no_fade():
  contrast, low = at([20, 21], 0, 40), np.zeros(COUNT)
  assert found(low, np.full(COUNT, 40.0), contrast=contrast, scene=HALVES) == []
  # hardly anything was to be seen
  assert found(low, np.full(COUNT, 3.0), contrast=contrast, scene=HALVES) == [21]


def test_out_of_one_color_only_a_picture_that_is_there_at_once_is_a_cut():
  slow = np.clip((np.arange(COUNT) - 10) * 4.5, 0, 60)
  assert found(at([11], 0.0, 1.0), at([11], 5, 1), contrast=slow) == []
  sudden = np.where(np.arange(COUNT) < 20, 0.0, 40.0)
  assert found(at([20], 0.0, 1.0), at([20], 40, 1), contrast=sudden) == [20]
  assert found(at([20], 0.0, 1.0), at([20], 40, 1), contrast=sudden[::-1]) == [20]


def test_a_fade_to_a_color_and_back_is_a_cut_if_the_picture_is_another_one():
  away = np.clip(np.abs(np.arange(COUNT) - 19.5) * 5 - 10, 0, 40)
  assert found(contrast=away, scene=HALVES) == [20]
  assert found(contrast=away) == []


def test_a_sign_on_one_color_is_still_one_color():
  one = signals(contrast=np.zeros(COUNT))
  one.small[:, 14:, 2:12] = 200.0
  assert one.contrast.max() < 1e-3


def test_a_flash_is_no_cut_and_a_longer_insert_is_two():
  def flash(frames):
    lit = range(15, 15 + frames)
    edges = [15, 15 + frames]
    return found(
      at(edges, 0.1, 1.0), at(edges, 90, 8), level=at(lit, 230, 120), scene=at(lit, 1, 0)
    )

  assert flash(1) == flash(3) == []
  assert flash(4) == [15, 19]


def test_likeness_allows_for_a_small_shift():
  rng = np.random.default_rng(0)
  picture = rng.normal(100, 30, (20, 20))
  assert shot_cuts.likeness(picture[:16, :16], picture[2:18, 1:17]) > 0.99
  assert shot_cuts.likeness(picture[:16, :16], rng.normal(100, 30, (16, 16))) < 0.5
  assert shot_cuts.likeness(picture[:16, :16], np.full((16, 16), 90.0)) == -1


def test_too_few_frames():
  for count in (0, 1):
    empty = signals()
    fields = {name: getattr(empty, name)[:count] for name in empty.__dataclass_fields__}
    assert shot_cuts.find(shot_cuts.Signals(**fields)).tolist() == [False] * count
