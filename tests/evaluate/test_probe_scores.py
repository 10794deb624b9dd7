"""What one picture, both pictures and a latent tell a kernel probe, and the motion score."""

import dataclasses

import numpy as np
import pytest

from como_jax.evaluate import probe_scores, probe_targets, probes


def filmed(cameras=2, robots=1, moves=150, seed=0):
  """(target, pictures [N + M, 2, P], cameras, poses [N + M, 2, 2]): two poses, drawn anew for each
  window, shown without a flaw; the target is the way from the one to the other. Two thirds of the
  motions are there to fit on.
  """
  rng, count = np.random.default_rng(seed), 6 * moves
  poses = rng.normal(size=(count, 2, 2))
  group, camera = np.arange(count) // 6, np.arange(count) % cameras
  # each camera has its look
  pictures = np.concatenate(
    [poses, rng.normal(size=(cameras, 1, 2))[camera] * np.ones((1, 2, 1))], axis=2
  )
  held_out, made = group >= 2 * moves // 3, []
  for which in range(robots):
    mine = group % robots == which
    rows = np.flatnonzero(mine)
    values = (poses[:, 1] - poses[:, 0])[rows]
    made.append(
      probe_targets.Robot(
        f"arm {which}",
        rows,
        held_out[mine],
        group[mine],
        np.flatnonzero(mine[held_out]),
        values,
        ("x", "y"),
      )
    )
  return probe_targets.Target("action", tuple(made), ()), pictures, camera, poses


def strong(target, pictures, cameras, **latent):
  return probe_scores.kernel_rows(latent, pictures, [target], cameras, seed=0)


def test_one_picture_tells_half_and_both_tell_all():
  target, pictures, cameras, poses = filmed()
  rng = np.random.default_rng(1)
  rows, notes = strong(
    target,
    pictures,
    cameras,
    motion=poses[:, 1] - poses[:, 0],
    place=poses[:, 0],
    noise=rng.normal(size=(900, 3)),
  )
  errors = {name: row["kr_mse"][0] for name, row in rows.items()}
  assert errors == pytest.approx(
    {
      "motion": 0,
      "both-pictures": 0,
      "place": 0.5,
      "first-only": 0.5,
      "second-only": 0.5,
      "noise": 1,
    },
    abs=0.12,
  )
  assert 0 < rows["noise"]["kr_mse"][1] < 0.2
  score = {name: rows[name]["motion_score"][0] for name in ("motion", "place", "noise")}
  assert (
    score == pytest.approx({"motion": 1, "place": 0, "noise": -1}, abs=0.25)
    and rows["motion"]["motion_score"][1] < 0.1
  )
  assert (
    rows["both-pictures"]["motion_gain"][0] == pytest.approx(0.5, abs=0.1)
    and "motion_score" not in rows["first-only"]
  )
  assert notes[0].startswith("KR-MSE") and notes[1].startswith(
    "motion score of action: probes fitted on one half of the cameras, scored on"
  )


def test_a_latent_that_knows_one_camera_only_scores_nothing():
  """It tells the motion, but turned the other way in the other camera: probes fitted on one camera
  must not be scored there.
  """
  target, pictures, cameras, poses = filmed()
  sign = np.where(cameras == 0, 1.0, -1.0)[:, None]
  rows, _ = strong(
    target, pictures, cameras, own=np.concatenate([(poses[:, 1] - poses[:, 0]) * sign, sign], 1)
  )
  assert rows["own"]["kr_mse"][0] < 0.3 and rows["own"]["motion_score"][0] < 0


def test_motion_scores_are_withheld():
  target, pictures, cameras, poses = filmed(cameras=1)
  rows, notes = strong(target, pictures, cameras, place=poses[:, 0])
  assert (
    notes[1] == "motion score of action: withheld: there is one camera only"
    and set(rows["place"]) == {"kr_mse"}
    and set(rows["both-pictures"]) == {"kr_mse"}
  )
  target, pictures, cameras, poses = filmed()
  # the first picture tells all there is
  known = dataclasses.replace(target.robots[0], values=poses[:, 0])
  rows, notes = strong(
    dataclasses.replace(target, robots=(known,)), pictures, cameras, place=poses[:, 0]
  )
  assert rows["first-only"]["kr_mse"][0] < 0.01 < 0.9 < rows["second-only"]["kr_mse"][0]
  assert "motion_score" not in rows["place"] and abs(rows["both-pictures"]["motion_gain"][0]) < 0.05
  assert notes[1].startswith(
    "motion score of action: withheld: both pictures are not clearly better than one"
  )
  some = dataclasses.replace(
    target.robots[0], groups=np.where(target.robots[0].held_out, 99, target.robots[0].groups)
  )
  assert strong(dataclasses.replace(target, robots=(some,)), pictures, cameras, place=poses[:, 0])[
    1
  ][1].endswith("fewer than 2 motions to fit on or to score")


def test_robots_are_probed_apart_and_targets_of_the_same_windows_together(monkeypatch):
  target, pictures, cameras, poses = filmed(robots=2)
  state = dataclasses.replace(target, name="state", robots=target.robots[:1])
  fitted, fit = [], probe_scores.kernel_ridge.fit
  monkeypatch.setattr(
    probe_scores.kernel_ridge,
    "fit",
    lambda inputs, targets, **how: (
      fitted.append((inputs.shape, targets.shape, how["whiten"])) or fit(inputs, targets, **how)
    ),
  )
  monkeypatch.setattr(probe_scores, "MAX_WINDOWS", 100)
  rows, _ = probe_scores.kernel_rows(
    {"place": poses[:, 0]}, pictures, [target, state], np.zeros(900), seed=0
  )
  assert fitted[:2] == [((100, 2), (100, 4), True), ((100, 2), (100, 2), True)] and len(fitted) == 8
  assert [whiten for _, _, whiten in fitted[2:]] == [False] * 6 and fitted[-1][0] == (100, 8)
  assert rows["place"]["state_kr_mse"] != rows["place"]["kr_mse"]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_constant_targets_have_no_error():
  """A robot that stands still is left out; with no other robot there is no number."""
  target, pictures, cameras, poses = filmed(robots=2, moves=30)
  first, second = target.robots
  still = dataclasses.replace(second, values=np.ones_like(second.values))
  half = dataclasses.replace(first, values=first.values * [1, 0] + [0, 2])
  motion = poses[:, 1] - poses[:, 0]

  def error(*robots):
    inputs = probe_scores._Inputs({"motion": motion}, ("motion",), 0)
    made = probe_targets.Target("action", robots, ())
    return probe_scores._kernel_row(inputs, "motion", [made]).get("kr_mse")

  assert error(first, still) == error(first) and error(still) is None
  assert error(half)[0] == pytest.approx(error(first)[0], abs=0.02)


def test_errors_are_in_units_of_the_windows_to_fit_on():
  target, pictures, cameras, poses = filmed()
  robot = target.robots[0]
  scaled = dataclasses.replace(
    robot,
    values=np.concatenate([robot.values * [1, 1000], np.ones((900, 1))], 1),
    names=("x", "y", "still"),
  )
  plain, (found,) = (
    probe_scores._errors(poses[:, 0], [one], whiten=True, max_windows=1000, seed=0)
    for one in (robot, scaled)
  )
  np.testing.assert_allclose(found[:, :2], plain[0], rtol=1e-6)
  assert np.isnan(found[:, 2]).all() and found.shape == (300, 3)
  fit = probe_scores.kernel_ridge.fit(poses[:600, 0], robot.values[:600], groups=robot.groups[:600])
  _, scale, _ = probes.scale_of(robot.values[:600])
  np.testing.assert_allclose(
    plain[0], ((fit.predict(poses[600:, 0]) - robot.values[600:]) / scale) ** 2
  )
