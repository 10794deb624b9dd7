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
from tests.data import flat, makers, policy_walks
from tests.data.policy_walks import arm, label, names


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
    for segment, first, last in zip(*opened.windows.frame_ranges(), strict=True):
      for row in segments.rows(int(segment)):
        for camera in opened.slots if one.labels else ():
          z, valid, _ = opened.motions.clip(*segments.clip_location(row))[camera]
          frames = [
            t
            for t in range(len(z))
            if valid[t]
            and first <= segments.first_frame(int(segment), row) + t < last
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


@pytest.fixture(scope="module", name="arms")
def _arms(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("arms") / "s", (6, 5))


def test_defaults_of_policy_statistics(arms):
  sets = [policy_walks.arm(arms)]
  found = flat.statistics(sets, validation_fraction=0.0)
  assert found.latent is None and found.robots["arm"]["action"].count == 11
  # every frame by itself
  np.testing.assert_allclose(found.robots["arm"]["action"].mean, [25 / 11, 5 / 11, -25 / 11])
  with pytest.raises(
    errors.UserError, match="^unknown reduction of actions 'maen': did you mean 'mean'"
  ):
    flat.statistics(sets, reduce="maen")
  two = flat.statistics(sets, validation_fraction=0.0, step_seconds=0.2, reduce="last")
  np.testing.assert_allclose(
    two.robots["arm"]["action"].mean[0], (1 + 2 + 3 + 4 + 5 + 5 + 1 + 2 + 3 + 4 + 4) / 11
  )
  assert flat.statistics(sets, validation_fraction=0.0, step_seconds=0.2).robots["arm"][
    "action"
  ].mean[0] == pytest.approx((0.5 + 1.5 + 2.5 + 3.5 + 4.5 + 5 + 0.5 + 1.5 + 2.5 + 3.5 + 4) / 11)
  (line,) = flat.describe(
    [dataclasses.replace(sets[0], name="n", weight=0.5)], validation_fraction=0.0
  )
  assert (
    line == "n: 11 examples (weight 0.5), 2 of 2 episodes, 2 tasks; actions of arm; cameras camera"
  )


def test_robots_of_several_sizes(arms, tmp_path):
  class Wide(makers.Synthetic):
    def __getitem__(self, i):
      raw = super().__getitem__(i)
      return dataclasses.replace(raw, arrays={"action": np.tile(raw.arrays["action"], 2)})

  wide = makers.shards(tmp_path / "w", source=Wide((5, 5)))
  sets = [policy_walks.arm(arms, name="one"), policy_walks.arm(wide, name="two")]
  with pytest.raises(
    errors.UserError,
    match=(
      r"^two: robot 'arm' has action and state of sizes \[6, None\], in one \[3, 2\]; expected "
      r"one size"
    ),
  ):
    flat.statistics(sets)


def test_statistics_see_the_selected_episodes_only(many, tmp_path):
  rows = {i: np.stack([np.arange(5), np.full(5, i), -np.arange(5)], 1) for i in range(20)}
  found = flat.statistics([arm(many, episodes=(0, 2))], validation_fraction=0.0).robots["arm"][
    "action"
  ]
  want = np.concatenate([rows[i] for i in range(4)])
  assert found.count == 20
  np.testing.assert_allclose(found.mean, want.mean(0))
  np.testing.assert_allclose(found.std, want.std(0))
  two = flat.statistics(
    [arm(many, episodes=(0, 1)), arm(many, episodes=(1, 2))], validation_fraction=0.0
  ).robots["arm"]["action"]
  np.testing.assert_allclose(two.std, want.std(0))
  coarse = flat.statistics([arm(many, episodes=(0, 1))], step_seconds=0.2, validation_fraction=0.0)
  # a step may lie in two clips
  np.testing.assert_allclose(
    coarse.robots["arm"]["action"].mean[0], np.mean([0.5, 1.5, 2.5, 3.5, 4.0])
  )
  views = makers.shards(tmp_path / "s", (14,), clip_frames=8, cameras=("a", "b"))
  assert (
    flat.statistics([arm(views, views="each")], validation_fraction=0.0)
    .robots["arm"]["state"]
    .count
    == 14
  )


def test_statistics_of_latent_motion_see_the_selected_training_episodes_only(many, tmp_path):
  folder = label(many, tmp_path / "l", offset=0.2)
  held = names(arm(many), 0.2, "validation")
  sets = [
    arm(many, labels=folder, episodes=(0, 3)),
    PolicySet(many, labels=folder, tasks=("task 1",)),
  ]
  found = flat.statistics(sets, validation_fraction=0.2).latent
  first = names(sets[0], 0.2)
  rest = [i for i in range(20) if i % 2 and i not in held]
  used = sorted(set(first) | set(rest))
  # frames 0, 1 and 2 of 5 have a motion of two frames
  assert found.count == 3 * len(used) and not set(used) & set(held)
  np.testing.assert_allclose(found.mean, [1, 0])


def test_a_frame_that_two_entries_learn_from_counts_once_whatever_runs_it_lies_in(tmp_path):
  # a slow part, which no video window covers
  times = np.concatenate([np.arange(12) / 10, 1.2 + np.arange(6), 7.2 + np.arange(12) / 10])
  path = makers.shards(tmp_path / "s", (30,), times=lambda i, n: times, clip_frames=40)
  folder = label(path, tmp_path / "l")

  def of(*sets):
    return flat.statistics(list(sets), validation_fraction=0.0).latent

  robot, video = arm(path, labels=folder), PolicySet(path, labels=folder)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    alone, both, turned = of(robot), of(robot, video), of(robot, video, robot)
  assert 0 < alone.count == both.count == turned.count
  np.testing.assert_allclose(both.mean, alone.mean)
