"""Measures of frames of small generated scenes: a textured canvas seen through a moving window."""

import io
import os

import av
import numpy as np
import pytest
from PIL import Image

from como_jax.data import frame_measures
from tests.data.filmed import HEIGHT, STILL, WIDTH, canvas, view

FPS = 25.0


def shot(seed, path, frames):
  picture = canvas(seed)
  return [view(picture, *path(t)) for t in range(frames)]


def stands(t):
  return STILL


def pans(t):
  return 130 + 2.5 * t, 120.0


def measure(frames, *, fps=FPS, **options):
  measurer = frame_measures.FrameMeasurer(**options)
  for t, image in enumerate(frames):
    measurer.add(3.0 + t / fps, image)
  return measurer.finish()


def cuts(frames, **options):
  return np.flatnonzero(measure(frames, **options).cut).tolist()


def noisy(frames, level, seed=0):
  rng = np.random.default_rng(seed)
  return [
    np.clip(image + rng.normal(0, level, image.shape), 0, 255).astype(np.uint8) for image in frames
  ]


def with_sprite(frames, speed, size=24):
  """A square that moves to the right by `speed` pixels a frame, and back."""
  out = []
  for t, image in enumerate(frames):
    image = image.copy()
    x = 20 + int(abs((speed * t + 60) % 120 - 60))
    image[30 : 30 + size, x : x + size] = (250, 240, 30)
    image[34 : 30 + size - 4, x + 4 : x + size - 4] = (10, 20, 200)
    out.append(image)
  return out


def test_hard_cuts_are_found_where_they_are():
  def shakes(t):
    return (160 + 3 * np.sin(2 * t), 120 + 2 * np.cos(3 * t))

  paths = (stands, pans, shakes, lambda t: (160, 120, 0.02 * t, 0.01 * t))
  lengths = [9 + (5 * number) % 7 for number in range(14)]
  frames = [
    image
    for number, length in enumerate(lengths)
    for image in shot(number, paths[number % 4], length)
  ]
  assert cuts(frames) == np.cumsum(lengths)[:-1].tolist()
  assert cuts(noisy(frames, 6)) == np.cumsum(lengths)[:-1].tolist()


def test_a_cut_within_fast_motion_and_one_among_doubled_frames():
  fast = [image for seed in (1, 2) for image in shot(seed, lambda t: (100 + 12 * t, 120), 10)]
  assert cuts(fast) == [10]
  doubled = [image for image in fast for _ in range(2)]
  assert cuts(doubled) == [20]


def flashing(frames, first, number, strength):
  out = list(frames)
  for t in range(first, first + number):
    out[t] = np.clip(out[t].astype(float) * (1 + strength) + 100 * strength, 0, 255).astype(
      np.uint8
    )
  return out


def whip(t):
  """Stands, turns by 0.8 widths within 5 frames, stands."""
  return 100 + 102 * np.clip((t - 10) / 5, 0, 1), 120


NO_CUT = {
  "whip pan": lambda: shot(3, whip, 25),
  "fast pan, frames twice": lambda: [
    image for image in shot(4, lambda t: (100 + 14 * t, 120), 10) for _ in range(2)
  ],
  "zoom and rotation": lambda: shot(5, lambda t: (160, 120, 0.05 * t, 0.04 * t), 20),
  "one bright frame": lambda: flashing(shot(6, stands, 20), 8, 1, 0.7),
  "one white frame": lambda: flashing(shot(6, pans, 20), 8, 1, 9),
  "three white frames": lambda: flashing(shot(7, pans, 20), 9, 3, 9),
  "a black frame": lambda: [image * (t != 9) for t, image in enumerate(shot(8, stands, 20))],
  "noise": lambda: noisy(shot(9, stands, 20), 12),
  "a dark scene with noise": lambda: noisy([image // 8 for image in shot(10, pans, 20)], 2),
  "a large thing passes by": lambda: with_sprite(shot(11, stands, 30), 9, size=60),
  "fade in and out": lambda: [
    (image * np.clip(min(t, 39 - t) / 12, 0, 1)).astype(np.uint8)
    for t, image in enumerate(shot(12, stands, 40))
  ],
  "one color": lambda: [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 20,
}


@pytest.mark.parametrize("name", NO_CUT)
def test_no_cut(name):
  assert cuts(NO_CUT[name]()) == []


def test_an_insert_of_another_scene_is_two_cuts_although_the_first_one_comes_back():
  frames = shot(3, stands, 20)
  # darker: no flash
  frames[10:12] = [(0.5 * image).astype(np.uint8) for image in shot(4, stands, 2)]
  assert cuts(frames) == [10, 12]


def page(seed):
  """[96, 128, 3]: a slide between a header and a footer that all have, with lines of words of its
  own.
  """
  rng = np.random.default_rng(seed)
  out = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
  out[:14], out[-8:], out[3:11, 112:124] = (40, 70, 150), (40, 70, 150), (220, 180, 40)
  for y in range(rng.integers(20, 28), 80, rng.integers(9, 14)):
    x, end = 10, rng.integers(50, 122)
    while x < end:
      width = rng.integers(3, 12)
      out[y : y + 4, x : x + width] = 30
      x += width + 3
  return out


def test_slides_of_one_template_are_told_apart():
  frames = [page(number) for number in range(6) for _ in range(10)]
  assert cuts(frames) == cuts(noisy(frames, 2)) == [10, 20, 30, 40, 50]


def test_pictures_that_count_in_blocks_of_black_and_white_have_no_cuts():
  def number(t):
    bits = np.array([t >> k & 1 for k in range(15, -1, -1)], np.uint8).reshape(2, 8) * 255
    return np.repeat(np.kron(bits, np.ones((HEIGHT // 2, WIDTH // 8), np.uint8))[..., None], 3, 2)

  assert cuts([number(t) for t in range(120)]) == cuts([number(40 * t) for t in range(60)]) == []
  # 1023 -> 1024, nearly all of the picture
  assert cuts([number(1000 + t) for t in range(60)]) == [24]


def test_gradual_changes_are_one_cut_in_the_middle():
  first, second = shot(3, stands, 1)[0].astype(float), shot(4, stands, 1)[0].astype(float)
  dissolve = (
    [first] * 30 + [first + (second - first) * t / 21 for t in range(1, 21)] + [second] * 30
  )
  (found,) = cuts([image.astype(np.uint8) for image in dissolve])
  assert abs(found - 40) <= 3
  down, up = np.linspace(1, 0, 12), np.linspace(0, 1, 12)
  fade = (
    [first] * 10
    + [first * k for k in down]
    + [0 * first] * 4
    + [second * k for k in up]
    + [second] * 10
  )
  (found,) = cuts([image.astype(np.uint8) for image in fade])
  assert abs(found - 24) <= 3
  same = (
    [first] * 10
    + [first * k for k in down]
    + [0 * first] * 4
    + [first * k for k in up]
    + [first] * 10
  )
  assert cuts([image.astype(np.uint8) for image in same]) == []


def test_bundled_robot_videos_have_no_cuts_within_episodes():
  folder = os.path.join(
    os.path.dirname(frame_measures.__file__), "..", "assets", "metaworld_mini", "videos"
  )
  path = os.path.join(folder, "observation.images.corner", "chunk-000", "file-000.mp4")
  with av.open(path) as container:
    frames = [
      frame.to_ndarray(format="rgb24")
      for _, frame in zip(range(150), container.decode(video=0), strict=False)
    ]
  assert cuts(frames, fps=40) == [28, 56, 102, 148]  # where the file's episodes end


def test_motion_of_the_camera_in_widths_a_second():
  def path(t):
    return (150 + 1.5 * t, 125 - 0.8 * t, 0.006 * t, -0.004 * t)

  measures = measure(shot(3, path, 20))
  zoom, turn = 0.006 * FPS, -0.004 * FPS
  scale = np.exp(0.006 * np.arange(20))[1:]  # a canvas pixel is so many pixels of the view
  np.testing.assert_allclose(
    measures.global_motion[1:, 2:], np.tile([zoom, turn], (19, 1)), atol=0.04
  )
  angle = -0.004 * np.arange(20)[1:]
  x, y = -1.5 * scale * FPS / WIDTH, 0.8 * scale * FPS / WIDTH
  expected = np.stack(
    [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], 1
  )
  np.testing.assert_allclose(measures.global_motion[1:, :2], expected, atol=0.04)
  assert not measures.global_motion[0].any() and not measures.motion[0]


def test_bars_do_not_hold_the_camera_still():
  inner = shot(3, pans, 30)
  plain = measure(inner)
  framed = measure([np.pad(image, ((0, 0), (32, 32), (0, 0))) for image in inner])
  assert framed.bars == (0, 0, 32, 32)
  expected = plain.global_motion[10:, 0] * WIDTH / (WIDTH + 64)
  np.testing.assert_allclose(framed.global_motion[10:, 0], expected, atol=0.03)


def test_exposure_is_no_motion():
  frames = [
    np.clip(image * (0.7 + 0.02 * t), 0, 255).astype(np.uint8)
    for t, image in enumerate(shot(3, stands, 20))
  ]
  measures = measure(frames)
  assert np.abs(measures.global_motion).max() < 0.02 and measures.motion.max() < 1


def test_residual_motion_is_what_moves_besides_the_camera():
  still, slow, fast = (
    measure(with_sprite(shot(3, stands, 40), speed)).motion for speed in (0, 0.5, 1.5)
  )
  assert still.max() < 0.05
  assert 0.5 < slow[1:].mean() < 0.7 * fast[1:].mean()
  camera = measure(shot(3, pans, 30)).motion
  both = measure(with_sprite(shot(3, pans, 30), 1.5)).motion
  assert camera[1:].mean() < 0.5 * both[1:].mean()


def test_residual_motion_counts_up_and_down_as_well():
  level = with_sprite(shot(3, lambda t: STILL, 30), 1.5)
  # widths are shorter by 3/4
  upright = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in level]
  one, other = measure(level).motion[1:].mean(), measure(upright).motion[1:].mean()
  assert 0.7 * WIDTH / HEIGHT * one < other < 1.4 * WIDTH / HEIGHT * one


def test_global_motion_ignores_a_thing_that_moves_before_a_standing_background():
  measures = measure(with_sprite(shot(3, stands, 30), 2, size=40))
  assert np.abs(measures.global_motion).max() < 0.03


def test_motion_is_zero_across_a_cut():
  measures = measure(shot(1, pans, 8) + shot(2, pans, 8))
  assert measures.cut[8] and measures.motion[8] == 0 and not measures.global_motion[8].any()
  assert measures.motion[9] > 0 and measures.shot.tolist() == [0] * 8 + [1] * 8


def test_still_stretches_last_long_enough_and_slow_motion_is_none():
  moving = shot(3, pans, 20)
  frames = moving + [moving[-1]] * 30 + shot(3, lambda t: pans(t + 20), 20)
  measures = measure(noisy(frames, 2))
  assert (
    measures.still[19:50].all() and not measures.still[:18].any() and not measures.still[52:].any()
  )
  assert not measure(frames, still_seconds=1.5).still.any()
  assert measures.repeated[20:50].all()
  slow = shot(3, lambda t: (140 + 0.1 * t, 120), 60)
  assert not measure(slow).still.any()


def test_a_small_thing_that_moves_is_not_still():
  assert not measure(with_sprite(shot(3, stands, 40), 0.4, size=10)).still.any()


def test_doubled_frames_are_repeated_and_nothing_else():
  frames = [image for image in shot(3, pans, 20) for _ in range(2)]
  encoded = [
    np.asarray(Image.open(_jpeg(image, 70 + 10 * (t % 3)))) for t, image in enumerate(frames)
  ]
  for measures in (measure(frames), measure(encoded)):
    np.testing.assert_array_equal(measures.repeated, np.arange(40) % 2 == 1)
    assert not measures.still.any()


def _jpeg(image, quality):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, "JPEG", quality=quality)
  return buffer


def test_bars_to_the_pixel():
  frames = shot(3, pans, 24)

  def framed(top, bottom, left, right, color=0, images=frames):
    return [
      np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=color)
      for image in images
    ]

  assert measure(framed(14, 14, 0, 0)).bars == (14, 14, 0, 0)
  assert measure(framed(0, 9, 0, 0)).bars == (0, 9, 0, 0)
  assert measure(framed(0, 0, 30, 31, color=250)).bars == (0, 0, 30, 31)
  assert measure(framed(0, 0, 30, 0, color=250)).bars == (0, 0, 0, 0)  # a white wall at one side
  assert measure(noisy(framed(14, 14, 0, 0), 3)).bars == (14, 14, 0, 0)
  with_logo = framed(14, 14, 0, 0)
  for image in with_logo:
    image[3:11, 10:30] = 220
  assert measure(with_logo).bars == (14, 14, 0, 0)
  assert measure(frames).bars == (0, 0, 0, 0)
  assert measure(framed(14, 14, 0, 0)[:4]).bars == (0, 0, 0, 0)  # too few frames to tell
  night = [np.concatenate([image[:30] * 0, image[30:] // 3]) for image in frames[:20]] + frames[20:]
  assert measure(night).bars == (0, 0, 0, 0)  # dark above, but not always


def test_what_stands_before_a_moving_picture_is_an_overlay():
  frames = [image.copy() for image in shot(3, lambda t: (120 + 6 * t, 120), 24)]
  assert measure(frames).overlay < 0.01
  for image in frames:
    image[8:28, 90:120] = (255, 255, 0)
  assert abs(measure(frames).overlay - 20 * 30 / (HEIGHT * WIDTH)) < 0.01
  assert measure(shot(3, stands, 24)).overlay == 0


def test_hashes_of_a_picture_encoded_again_are_near_and_of_others_far():
  frames = [view(canvas(seed), *STILL) for seed in range(30)]
  again = [
    np.asarray(Image.open(_jpeg(image, 30)).resize((64, 64), Image.Resampling.BILINEAR))
    for image in frames
  ]
  one, other = measure(frames).picture_hash, measure(again).picture_hash
  assert one.dtype == np.uint64
  assert frame_measures.hash_distance(one, other).max() <= frame_measures.HASH_DISTANCE
  far = frame_measures.hash_distance(one[:, None], other[None])[~np.eye(30, dtype=bool)]
  assert far.min() > 2 * frame_measures.HASH_DISTANCE


def test_a_picture_of_one_color_has_an_empty_hash_whatever_the_noise():
  flat = noisy([np.full((HEIGHT, WIDTH, 3), 100, np.uint8)] * 10, 2)
  assert not measure(flat).picture_hash.any()


def test_size_of_the_picture_hardly_matters():
  frames = shot(1, pans, 10) + shot(2, pans, 10)
  for size in ((64, 64), (224, 224), (48, 200)):
    scaled = [
      np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in frames
    ]
    measures = measure(scaled)
    assert np.flatnonzero(measures.cut).tolist() == [10]
    np.testing.assert_allclose(measures.global_motion[12:, 0], -2.5 * FPS / WIDTH, atol=0.08)


def test_one_frame_and_none():
  for count in (0, 1):
    measures = measure(shot(1, stands, count))
    assert (
      len(measures) == count
      and measures.global_motion.shape == (count, 4)
      and measures.bars == (0, 0, 0, 0)
    )
    assert not measures.cut.any() and not measures.still.any() and not measures.repeated.any()


def test_wrong_frames_are_refused():
  measurer = frame_measures.FrameMeasurer()
  measurer.add(1.0, np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match="frame 1 at 1.0 s does not come after"):
    measurer.add(1.0, np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match="frame 1 has 9x8 pixels, those before 8x8"):
    measurer.add(2.0, np.zeros((9, 8, 3), np.uint8))
