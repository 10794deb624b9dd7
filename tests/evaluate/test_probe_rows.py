"""The rows of the probe: fitted on training windows and scored on held-out ones, by hand."""

import types
from types import SimpleNamespace

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import probe_rows, probe_targets, reconstruction
from como_jax.inference import motion_evaluator

NAMES = {"action": [["x"]], "state": [None]}


def windows_of(z, action, episodes, tasks=0, cameras=0):
  """(z, columns) of windows whose two pairs have another action each: the first is never to be
  read.
  """
  count = len(z)

  def whole(value):
    return np.broadcast_to(value, count).copy()

  return z, {
    "action": np.stack([np.full(action.shape, 99.0), action], axis=1),
    "has_action": np.ones(count, bool),
    "has_state": np.zeros(count, bool),
    "group": whole(episodes),
    "episode": whole(episodes),
    "task": whole(tasks),
    "camera": whole(cameras),
    "time": np.zeros(count, int),
    "stride": np.ones(count, int),
    "dataset": np.zeros(count, int),
    "action_size": np.ones(count, int),
    "state_size": np.zeros(count, int),
  }


def measured(z, columns):
  still = np.zeros((1, 16, 16, 3))
  moved = still + 0.1
  return motion_evaluator.MotionEvaluation(
    z=z,
    past=z,
    future=-z,
    frames=reconstruction.compare(still + 0.05, moved, current=still),
    columns=columns,
  )


def score(fit, held_out, **changes):
  windows = SimpleNamespace(
    tasks=["reach", "push"], cameras=["front", "side"], datasets=changes.pop("datasets", ["arm"])
  )
  names = changes.pop("names", NAMES)
  targets = [
    probe_targets.build(name, fit[1], held_out[1], names=names, datasets=windows.datasets)
    for name in probe_targets.TARGETS
  ]
  row, details = probe_rows.score(measured(*held_out), fit[0], windows, targets, seed=0)
  return row, details, targets


def test_probes_are_fitted_on_training_windows_and_scored_on_held_out_ones():
  signs = np.tile([1.0, -1.0], 40)[:, None]
  fit = windows_of(signs, signs, np.arange(80) // 8)
  row, details, targets = score(
    fit, windows_of(signs[:24], 3 * signs[:24], 100 + np.arange(24) // 8)
  )
  # The line through the training windows is y = z; the held-out actions are 3 z, so each is off by
  # 2. Variance of the training actions: 1, of the held-out ones: 9. Fitted the other way round, or
  # in the other side's units, 4 / 9 would come out.
  error, standard_error = row["lp_mse"]
  assert (
    error == pytest.approx(4)
    and row["lp_mse_raw"] == pytest.approx(4)
    and standard_error == pytest.approx(0, abs=1e-9)
  )
  assert row["lp_r2"] == row["r2/x"] == pytest.approx(1 - 4 / 9) and row["mlp_mse"][
    0
  ] == pytest.approx(4, rel=0.1)
  linear = details.probes["action"]
  np.testing.assert_allclose(linear.true, 3 * signs[:24])
  np.testing.assert_allclose(linear.predicted, signs[:24], atol=1e-9)
  assert targets[0].groups.tolist() == [*np.arange(80) // 8, *(100 + np.arange(24) // 8)]
  assert (
    set(details.probes) == {"action"} and "the data has no state: no probe of it" in details.notes
  )
  # What needs no action: z and -z end in the same frame, one direction, half the error of copying
  # in each pixel.
  assert (row["s_pcfc"], row["copy_ratio"], row["psnr"]) == pytest.approx(
    (-1, 0.25, -20 * np.log10(0.05))
  )
  assert row["effective_rank"] == row["participation_ratio"] == pytest.approx(1)
  assert not {"camera_excess", "retrieval", "motion_contrast", "appearance_contrast"} & set(row), (
    "one camera, one task"
  )


def test_probes_of_videos_and_robots_together_are_of_the_robots():
  signs = np.tile([1.0, -1.0], 40)[:, None]

  def mixed(count, first, scale):
    z, columns = windows_of(
      np.concatenate([signs[:count], 7 + signs[:count]]),
      np.concatenate([scale * signs[:count], np.zeros((count, 1))]),
      first + np.arange(2 * count) // 8,
    )
    has = np.arange(2 * count) < count
    return z, columns | {
      "has_action": has,
      "action_size": has.astype(int),
      "dataset": np.arange(2 * count) // count,
    }

  row, details, targets = score(
    mixed(80, 0, 1),
    mixed(24, 100, 3),
    datasets=["arm", "videos"],
    names={"action": [["x"], None], "state": [None, None]},
  )
  assert row["lp_mse"][0] == pytest.approx(4)  # as of the robot's windows alone, above
  assert len(details.probes["action"].true) == 24 and targets[0].groups.tolist() == [
    *np.arange(80) // 8,
    *(100 + np.arange(24) // 8),
  ]
  assert (
    "action: 24 of 48 held-out windows have one, those of arm: the probes are of these"
    in details.notes
  )


def two_robots(count, first, seed):
  """(z, columns): z of the first half's windows tells their two action numbers, with noise; the
  other half is a robot of one number, padded with 0.
  """
  rng = np.random.default_rng(seed)
  motion = rng.choice([-1.0, 1.0], size=(2 * count, 2))
  motion[1::2] = -motion[::2]  # so that the mean action of any episodes is 0, and its variance 1
  z = np.concatenate(
    [motion + 0.5 * rng.normal(size=motion.shape), np.repeat([[5.0], [-5.0]], count, 0)], 1
  )
  action = np.where((np.arange(2 * count) < count)[:, None], motion, motion * [1, 0])
  z, columns = windows_of(z, action, first + np.arange(2 * count) // 8)
  own = np.arange(2 * count) < count
  return z, columns | {"dataset": 1 - own, "action_size": 1 + own}


def part(windows, chosen):
  z, columns = windows
  return z[chosen], {name: value[chosen] for name, value in columns.items()}


def test_another_robots_padding_changes_nothing():
  fit, held_out = two_robots(80, 0, 0), part(two_robots(40, 1000, 1), slice(64))
  names = {"action": [["x", "y"], ["grip"]], "state": [None, None]}
  both, details, targets = score(fit, held_out, datasets=["arm", "hand"], names=names)
  alone, _, _ = score(
    part(fit, slice(80)), part(held_out, slice(40)), datasets=["arm", "hand"], names=names
  )
  hand, _, _ = score(
    part(fit, slice(80, None)),
    part(held_out, slice(40, None)),
    datasets=["arm", "hand"],
    names=names,
  )
  assert [both[f"r2/arm: {name}"] for name in "xy"] == [alone["r2/x"], alone["r2/y"]] and both[
    "r2/hand: grip"
  ] == hand["r2/grip"]
  for name in ("lp_mse", "mlp_mse"):
    assert both[name][0] == pytest.approx((40 * alone[name][0] + 24 * hand[name][0]) / 64)
  assert (
    both["lp_half"] == pytest.approx((40 * alone["lp_half"] + 24 * hand["lp_half"]) / 64)
    and 0.1 < alone["lp_mse"][0] < 0.4
  )
  assert any(
    "arm: 2 dimensions, 40 held-out windows; hand: 1 dimensions, 24 held-out windows" in note
    for note in details.notes
  )
  assert [robot.values.shape for robot in targets[0].robots] == [(120, 2), (104, 1)]
  pooled = details.probes["action"]
  assert (
    pooled.true.shape == (64, 3)
    and np.isnan(pooled.true[:40, 2]).all()
    and np.isnan(pooled.true[40:, :2]).all()
  )
  np.testing.assert_array_equal(targets[0].groups[pooled.index], held_out[1]["group"])


def test_a_z_that_knows_only_the_data_set_tells_nothing():
  fit, held_out = two_robots(80, 0, 0), two_robots(40, 1000, 1)
  row, _, _ = score(
    (fit[0][:, 2:], fit[1]),
    (held_out[0][:, 2:], held_out[1]),
    datasets=["arm", "hand"],
    names={"action": [None, None], "state": [None, None]},
  )
  assert row["lp_mse"][0] == pytest.approx(1, abs=1e-6) and row["mlp_mse"][0] == pytest.approx(
    1, abs=1e-6
  )


def test_robots_that_cannot_be_probed_are_named():
  fit, held_out = two_robots(80, 0, 0), two_robots(40, 1000, 1)
  _, details, targets = score(
    part(fit, slice(84)),
    held_out,
    datasets=["arm", "hand"],
    names={"action": [None, None], "state": [None, None]},
  )
  assert [robot.label for robot in targets[0].robots] == ["arm"]
  assert "action of hand: fewer than 2 episodes to fit on have one: no probe of it" in details.notes


def test_what_the_robots_own_numbers_tell_of_positions_and_of_motions():
  rng = np.random.default_rng(0)
  state = rng.normal(size=(60, 3, 2))
  change = np.diff(state, axis=1)

  def columns(action, first, **changed):
    mine = slice(first, first + 30)
    z, found = windows_of(np.zeros((30, 1)), action[mine], first + np.arange(30) // 5)
    return (
      found
      | {
        "state": state[mine],
        "state_delta": change[mine],
        "state_mean": state[mine, :2],
        "has_state": np.ones(30, bool),
        "state_size": np.full(30, 2),
      }
      | changed
    )

  def own(action, names=None, **changed):
    fit, held_out = columns(action, 0, **changed), columns(action, 30, **changed)
    names = {"action": [["x"]], "state": [names]}
    return probe_rows.state_rows(
      probe_targets.build("action", fit, held_out, names=names, datasets=["arm"]),
      fit,
      held_out,
      seed=0,
    )

  absolute = {row: of["lp_mse"][0] for row, of in own(2 * state[:, 1, :1] + 1).items()}
  relative = {row: of["lp_mse"][0] for row, of in own(2 * change[:, 1, :1] + 1).items()}
  assert absolute["state"] == pytest.approx(0, abs=1e-9) and absolute["state_delta"] > 0.3
  assert relative["state_delta"] == pytest.approx(0, abs=1e-9) and relative["state"] > 0.3
  assert own(change[:, 1, :1], names=["x", "y"]) == {}, "compared directly"
  assert own(change[:, 1, :1], has_state=np.zeros(30, bool)) == {}


def test_groups_of_one_motion_stand_on_one_side():
  signs = np.tile([1.0, -1.0], 8)[:, None]
  with pytest.raises(errors.UserError, match="both sides of the split"):
    score(
      windows_of(signs, signs, np.arange(16) // 4), windows_of(signs, signs, 3 + np.arange(16) // 4)
    )


def test_what_cameras_and_tasks_have_in_common():
  # Eight episodes, each seen by both cameras; z = (2 for the one task and -2 for the other, 1 for
  # the one camera and -1 for the other).
  episodes, cameras = np.repeat(np.arange(8), 6), np.tile([0, 1], 24)
  tasks = episodes % 2
  z = np.stack([4.0 * tasks - 2, 2.0 * cameras - 1], 1)
  action = z[:, :1] / 2
  held_out = windows_of(z, action, 100 + episodes, tasks, cameras)
  held_out[1]["time"] = np.tile([0, 0, 1, 1, 2, 2], 8)
  row, details, _ = score(windows_of(z, action, episodes, tasks, cameras), held_out)
  # z is the same at each time: it says which task and which camera, but not which motion.
  assert row["motion_contrast"] == pytest.approx((0, 0), abs=1e-12)
  # Of the 7 other motions 3 are of the same task; from the same view: 1 or -3/5, from another: 3/5
  # or -1.
  assert row["appearance_contrast"] == pytest.approx((3 - 4 * 3 / 5) / 7 - (3 * 3 / 5 - 4) / 7)
  assert row["camera_excess"] == (1, 0) and row["retrieval"] == pytest.approx(1)
  # Of 3 episodes of the same task and 4 of the other: chance is (3 - 4) / 7.
  assert row["retrieval_chance"] == pytest.approx(-1 / 7) and row["lp_mse"][0] == pytest.approx(
    0, abs=1e-12
  )
  assert details.matrix.labels == ("push | front", "push | side", "reach | front", "reach | side")
  np.testing.assert_allclose(details.matrix.values[0], [1, 3 / 5, -3 / 5, -1], atol=1e-12)


def measured_of(**changes):
  z = np.random.default_rng(1).normal(size=(12, 2))
  found = {
    **{name: np.zeros(12, int) for name in ("group", "task", "camera", "episode")},
    "time": np.arange(12),
    "stride": np.ones(12, int),
    "has_action": np.zeros(12, bool),
    "has_state": np.zeros(12, bool),
    **changes,
  }
  frames = types.SimpleNamespace(
    ratio=1.0, moving_ratio=2.0, mse=3.0, psnr=4.0, ssim=5.0, text="FRAMES"
  )
  return motion_evaluator.MotionEvaluation(z=z, past=z, future=z, frames=frames, columns=found), (
    z,
    found,
  )


def score_videos(one, fit, windows):
  targets = [
    probe_targets.build(name, fit[1], one.columns, names={}, datasets=["videos"])
    for name in ("action", "state")
  ]
  return probe_rows.score(one, fit[0], windows, targets, seed=0)


@pytest.mark.parametrize(
  "episodes, cameras, tasks, keys",
  [
    (5, 2, 1, {"camera_excess", "appearance_contrast"}),
    (4, 2, 1, {"appearance_contrast"}),
    (5, 1, 2, set()),
  ],
)
def test_what_is_compared_hangs_on_cameras_tasks_and_episodes(episodes, cameras, tasks, keys):
  number = np.arange(12)
  one, fit = measured_of(group=number % episodes, camera=number // 6 % cameras, task=number % tasks)
  windows = types.SimpleNamespace(tasks=["", "push"], cameras=["front", "side"])
  row, details = score_videos(one, fit, windows)
  assert set(row) & {"camera_excess", "retrieval", "motion_contrast", "appearance_contrast"} == keys
  assert [
    row[key] for key in ("copy_ratio", "copy_ratio_moving", "reconstruction_mse", "psnr", "ssim")
  ] == [1.0, 2.0, 3.0, 4.0, 5.0]
  assert details.notes[0] == "FRAMES" and details.notes[2:4] == [
    "the data has no action: no probe of it",
    "the data has no state: no probe of it",
  ]
  assert (details.matrix is not None) == (cameras > 1 or tasks > 1)
  if details.matrix is not None:
    names = ["clip", "push"][:tasks]
    assert details.matrix.labels == tuple(
      f"{name} | {camera}" for name in names for camera in ["front", "side"][:cameras]
    )


def test_more_groups_than_a_picture_holds_are_not_drawn():
  for count, drawn in ((40, True), (41, False)):
    z = np.random.default_rng(0).normal(size=(count, 2))
    found = {
      **{name: np.zeros(count, int) for name in ("group", "camera", "episode", "time")},
      "stride": np.ones(count, int),
      "task": np.arange(count),
      "has_action": np.zeros(count, bool),
      "has_state": np.zeros(count, bool),
    }
    one = motion_evaluator.MotionEvaluation(
      z=z, past=z, future=z, frames=measured_of()[0].frames, columns=found
    )
    windows = types.SimpleNamespace(tasks=[f"t{i}" for i in range(count)], cameras=["front"])
    _, details = score_videos(one, (z, found), windows)
    assert (details.matrix is not None) is drawn
