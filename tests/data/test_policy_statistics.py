"""Statistics of latent motion: the same whether they come from what files of labels say of their
clips or from every number.
"""

import dataclasses
import warnings

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import label_file, labels, policy_statistics, shard_file, shards, statistics
from como_jax.data.policy_index import PolicySet
from como_jax.data.times import FrameTimes
from tests.data import flat, makers
from tests.data.test_policy_pipeline import arm, label


@pytest.fixture(scope="module", name="data", params=[6, 25])
def _data(tmp_path_factory, request):
  """Two cameras; a part of an episode is so slow that no window covers it: a clip of its own, or
  one that the windows cover in two pieces.
  """
  times = np.concatenate([np.arange(12) / 10, 1.2 + np.arange(6), 7.2 + np.arange(12) / 10])
  root = tmp_path_factory.mktemp("data")
  return makers.shards(
    root / "s",
    (30, 30, 30, 30, 9, 14),
    times=lambda i, n: times if i in (2, 3) else np.arange(n) / 10,
    cameras=("left", "right"),
    clip_frames=request.param,
    episodes_per_shard=2,
  )


def made(data, folder, *, seed, older=False, **settings):
  """Labels of random numbers, some of them not valid; `older`: by a version that says nothing of
  the clips in the index.
  """
  rng, write, add = np.random.default_rng(seed), label_file.write_shard, shard_file.Writer.add

  def random(motion):
    valid = motion.valid & (rng.random(len(motion.valid)) < 0.9)
    return labels.Motion(
      rng.normal(2, 3, motion.z.shape).astype(np.float32) * valid[:, None],
      valid,
      motion.difference * valid,
    )

  def write_random(path, shard, clips, **facts):
    return write(
      path,
      shard,
      [
        (start, {name: random(motion) for name, motion in motions.items()})
        for start, motions in clips
      ],
      **facts,
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(label_file, "write_shard", write_random)
    if older:
      patch.setattr(
        shard_file.Writer,
        "add",
        lambda self, clip: add(self, dataclasses.replace(clip, frame_facts={}, statistics={})),
      )
    return label(data, folder, **settings)


def by_a_loop(sets, found, keep):
  """Every valid label of the examples' frames, each once, clip by clip."""
  total, counted = statistics.Accumulator(keep), set()
  for one, opened in zip(sets, found, strict=True):
    segments = opened.windows.segments
    for segment, first, last in zip(*opened.windows.runs(), strict=True):
      for row in segments.rows(int(segment)):
        for camera in opened.slots if one.labels else ():
          z, valid, _ = opened.motions.clip(*segments.place(row))[camera]
          frames = [
            t
            for t in range(len(z))
            if valid[t]
            and first <= segments.begin(int(segment), row) + t < last
            and (one.labels, row, camera, t) not in counted
          ]
          counted |= {(one.labels, row, camera, t) for t in frames}
          total.add(z[frames])
  return total.finish()


@pytest.mark.parametrize(
  "mixture", ["robot", "video", "robot video", "video robot", "robot video robot", "each"]
)
@pytest.mark.parametrize("keep", [3, 23, 10**6])
@pytest.mark.parametrize("older", [False, True])
def test_stored_moments_and_a_loop_over_every_label_agree_bit_by_bit(
  data, tmp_path, monkeypatch, mixture, keep, older
):
  folder, other = (
    made(data, tmp_path / name, seed=seed, older=older) for name, seed in (("l", 0), ("m", 1))
  )
  kinds = {
    "robot": arm(data, labels=folder, cameras=("left", "right")),
    "video": PolicySet(data, labels=folder),
    "each": PolicySet(data, labels=other, views="each", tasks=("task 1",)),
  }
  sets = [kinds[kind] for kind in mixture.split()] + [kinds["each"]]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = flat.mixture(sets, validation_fraction=0.2).split("train")
  expected = by_a_loop(sets, found, keep)
  read, array = [], shard_file.ShardFile.array
  monkeypatch.setattr(
    shard_file.ShardFile,
    "array",
    lambda self, clip, name: read.append(name.split("/")[0]) or array(self, clip, name),
  )
  monkeypatch.setattr(policy_statistics, "_LATENT_SAMPLE", keep)
  got = policy_statistics._latent_statistics(found)
  assert got.count == expected.count > 40
  for field in dataclasses.fields(statistics.Statistics):
    np.testing.assert_array_equal(
      getattr(got, field.name), getattr(expected, field.name), err_msg=field.name
    )
  if older:
    assert "valid" in read
  else:
    # that of a few clips, where the sample is thin and each entry's frames are whole clips
    assert set(read) <= {"z"}
    clips = sum(len(opened.windows.rows()) * 2 for opened in found)
    assert read.count("z") < clips or keep > 3


def test_what_a_file_says_of_its_clips_is_what_they_hold(data, tmp_path):
  found = labels.Labels(made(data, tmp_path / "l", seed=0))
  table = shards.read_table(data)
  for row in range(len(table)):
    place = int(table.shard[row]), int(table.clip[row])
    z, valid, _ = found.clip(*place)["left"]
    np.testing.assert_array_equal(found.valid(*place, "left"), valid, strict=True)
    np.testing.assert_array_equal(found.z(*place, "left"), z)
    rows = z[valid].astype(np.float64)
    expected = (
      [rows.mean(0), ((rows - rows.mean(0)) ** 2).sum(0), rows.min(0), rows.max(0)]
      if len(rows)
      else np.zeros((4, 2))
    )
    np.testing.assert_allclose(found.moments(*place, "left"), expected, rtol=1e-12)


@pytest.mark.parametrize("keep", [1, 7, 64, 10**6])
def test_moments_of_pieces_are_added_as_their_rows(keep):
  rng = np.random.default_rng(keep)
  rows = rng.normal(size=(500, 3)) * [1, 10, 0] + [0, 5, 2]
  pieces = np.split(rows, np.sort(rng.integers(0, 500, 60)))
  plain, thin, asked = statistics.Accumulator(keep), statistics.Accumulator(keep, expected=500), 0
  for piece in pieces:
    plain.add(piece)
    if len(piece) and not thin.add_known(len(piece), statistics.moments(piece)):
      thin.add(piece)
      asked += 1
  one, other = plain.finish(), thin.finish()
  for field in dataclasses.fields(statistics.Statistics):
    np.testing.assert_array_equal(
      getattr(one, field.name), getattr(other, field.name), err_msg=field.name
    )
  assert asked <= keep + 1 and (asked == sum(map(bool, map(len, pieces)))) == (keep == 10**6)
  for bad in (np.nan, np.inf, -np.inf):
    with pytest.raises(errors.UserError, match="not finite"):
      thin.add(np.array([[0, bad, 1.0], [1, -bad, 0]]))


def test_ends_of_policy_steps():
  times = FrameTimes(0.0, 0.1, 6)
  assert policy_statistics._step_ends(times, np.arange(6), 0.2).tolist() == [2, 3, 4, 5, 6, 6]
  # a frame at least
  assert policy_statistics._step_ends(times, np.arange(6), 0.04).tolist() == [1, 2, 3, 4, 5, 6]
  uneven = FrameTimes(0.0, 0.25, 4, np.array([0.0, 0.1, 0.2, 1.0]))
  assert policy_statistics._step_ends(uneven, np.arange(4), 0.2).tolist() == [2, 2, 3, 4]
