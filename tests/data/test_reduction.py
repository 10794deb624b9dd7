"""JPEGs decoded smaller before they are resized: where, how well, and alike on every way from a
shard to a model.
"""

import io

import numpy as np
import pytest
from PIL import Image

from como_jax import data
from como_jax.data import frame_codec, pipeline, sequences, shards, sources, transforms, video
from tests.data import flat, makers, policy_walks


def textured(seed, height=32, width=32):
  """Edges and soft patches, as a camera sees them."""
  rng = np.random.default_rng(seed)
  parts = [
    video.resize(rng.integers(0, 256, (n, n, 3), np.uint8), height, width).astype(float)
    for n in (3, 6, 12)
  ]
  return np.clip(parts[0] * 0.5 + parts[1] * 0.3 + parts[2] * 0.2, 0, 255).astype(np.uint8)


class Textured(makers.Synthetic):
  """Episodes of textured frames."""

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    cameras = {
      "camera": lambda geometry: (
        (t / 10, geometry.apply(textured(100 * i + t))) for t in range(self._lengths[i])
      )
    }
    return pipeline.dataclasses.replace(raw, cameras=cameras)


@pytest.mark.parametrize(
  "stored, target, expected",
  [
    ((448, 448), (224, 224), 2),
    ((256, 256), (64, 64), 4),
    ((224, 224), (28, 28), 8),
    ((384, 384), (64, 64), 2),
    ((240, 320), (60, 160), 2),
    ((224, 224), (64, 64), 1),
    ((224, 224), (224, 224), 1),
    ((336, 336), (224, 224), 1),
    ((64, 64), (224, 224), 1),
    ((256, 320), (64, 64), 1),
    ((448, 336), (224, 224), 1),
    ((64, 64), (0, 0), 1),
  ],
)
def test_only_whole_pixels_are_averaged_and_nothing_gets_smaller_than_the_target(
  stored, target, expected
):
  by = video.reduction(*stored, *target)
  assert by == expected and (
    by == 1 or (stored[0] // by >= target[0] and stored[1] // by >= target[1])
  )


@pytest.mark.parametrize("stored, target", [(64, 32), (128, 32), (256, 32), (192, 32), (44, 22)])
def test_a_smaller_decode_is_the_average_of_the_whole_one(stored, target):
  coded = video.encode_jpeg(textured(stored, stored, stored), 95)
  by = video.reduction(stored, stored, target, target)
  small, whole = video.decode_jpeg(coded, by=by), video.decode_jpeg(coded)
  assert by > 1 and small.shape == (stored // by, stored // by, 3)
  difference = np.abs(
    video.resize(small, target, target).astype(int) - video.resize(whole, target, target)
  )
  assert difference.mean() < 1 and difference.max() <= 8
  np.testing.assert_array_equal(video.decode_jpeg(coded, np.empty_like(small), by=by), small)


def test_an_image_of_another_size_than_the_record_says_is_damage():
  coded = video.encode_jpeg(textured(0), 95)
  with pytest.raises(video.UnreadableError, match="damaged jpeg frame .*16, 16, 3"):
    frame_codec.decode("jpeg", {0: coded}, [0], np.empty((1, 8, 8, 3), np.uint8), by=2)


@pytest.mark.parametrize("mode, size", [("squash", 16), ("crop", 8), ("pad", 16)])
def test_image_files_as_records(mode, size):
  coded, geometry = video.encode_jpeg(textured(1, 32, 64), 95), video.Geometry(size, mode)
  by = video.reduction(32, 64, *geometry.inner(32, 64))
  found = video.decode_image(coded, geometry)
  assert by > 1 and found.shape == (size, size, 3)
  np.testing.assert_array_equal(found, geometry.apply(video.decode_jpeg(coded, by=by)))
  assert not np.array_equal(found, geometry.apply(video.decode_jpeg(coded)))
  png = io.BytesIO()
  Image.fromarray(textured(1, 32, 64)).save(png, "png")
  np.testing.assert_array_equal(
    video.decode_image(png.getvalue(), geometry), geometry.apply(textured(1, 32, 64))
  )


def test_a_crop_needs_the_whole_image():
  resize, shift = transforms.Resize(16), transforms.RandomShift()
  assert transforms.resized_to((shift, resize)) == (16, 16)
  assert (
    transforms.resized_to((transforms.RandomResizedCrop(), shift, resize))
    == transforms.resized_to((shift,))
    == (0, 0)
  )


@pytest.mark.parametrize(
  "codec, size, by", [("jpeg", 16, 2), ("jpeg", 20, 1), ("jpeg", 32, 1), ("h264", 16, 1)]
)
def test_training_evaluation_labeling_and_policies_see_the_same_frames(tmp_path, codec, size, by):
  path = makers.shards(
    tmp_path / "s", source=Textured((9, 7), task=lambda i: "task 0"), codec=codec
  )
  table, expected = shards.read_table(path), {}
  segments, read = makers.segments(path)
  for i in range(len(segments)):
    episode, length = table.episodes[table.episode[segments.first_row[i]]], segments.length(i)
    whole = read.images(i, "camera", range(length))
    blobs = (
      read.shards[0].blobs(
        segments.clip_location(segments.first_row[i])[1], "camera", range(length)
      )
      if codec == "jpeg"
      else {}
    )
    small = (
      np.stack([video.decode_jpeg(blobs[t], by=by) for t in range(length)]) if by > 1 else whole
    )
    expected[episode] = np.stack([video.resize(image, size, size) for image in small])
    exact = np.stack([video.resize(image, size, size) for image in whole])
    assert np.array_equal(expected[episode], exact) == (by == 1)
  plan = sequences.plan(table, offset_seconds=0.1)
  walk = plan.sequences(0)
  with sequences.iterate_clips(path, plan, walk, image_size=size, threads=0) as pieces:
    for one in walk:
      frames = np.concatenate([next(pieces)["frames"] for _ in segments.rows(one.segment)])
      np.testing.assert_array_equal(
        frames, expected[table.episodes[table.episode[segments.first_row[one.segment]]]]
      )
  sets, common = (
    [data.DataSet(path, offset_seconds=0.1)],
    dict(batch_size=14, image_size=size, split="all", frames=2, threads=0),
  )
  windows = flat.windows(sets, **common)
  with windows.batches() as batches:
    seen = next(batches)
  for frames, episode, t in zip(seen["frames"], seen["episode"], seen["time"], strict=True):
    np.testing.assert_array_equal(frames, expected[windows.episodes[episode]][t : t + 2])
  with flat.motion(sets, **common) as batches:  # an epoch: every window once
    drawn = next(batches)["frames"]
  assert sorted(one.tobytes() for one in drawn) == sorted(one.tobytes() for one in seen["frames"])
  settings = dict(
    policy_walks.SIZES,
    image_size=size,
    normalization=policy_walks.normalizer(),
    batch_size=16,
    split="all",
    threads=0,
  )
  with flat.policy([policy_walks.arm(path)], **settings) as batches:
    images = next(batches)["images"][:, 0, 0]
  assert sorted(one.tobytes() for one in images) == sorted(
    one.tobytes() for frames in expected.values() for one in frames
  )
  with flat.policy_windows([policy_walks.arm(path)], **settings).batches() as batches:
    assert sorted(one.tobytes() for one in next(batches)["images"][:, 0, 0]) == sorted(
      one.tobytes() for one in images
    )


def test_shards_made_anew_are_made_of_the_smaller_decode(tmp_path):
  path = makers.shards(tmp_path / "s", source=Textured((3,)))
  coded = list(makers.segments(path)[1].shards[0].blobs(0, "camera", range(3)).values())
  for size, by in ((16, 2), (24, 1)):
    seconds, found = zip(
      *sources.open_source(path)[0].cameras["camera"](video.Geometry(size)), strict=True
    )
    np.testing.assert_allclose(seconds, [0, 0.1, 0.2])
    np.testing.assert_array_equal(
      found, [video.resize(video.decode_jpeg(blob, by=by), size, size) for blob in coded]
    )
