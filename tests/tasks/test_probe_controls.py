"""What the frozen encoder alone tells: components of its difference, one picture, both pictures,
and what a latent adds to one.
"""

import dataclasses

import numpy as np
import pytest

from como_jax.evaluate import probes
from como_jax.inference import motion_evaluator
from como_jax.tasks import probe_controls, probe_targets
from tests.evaluate import test_positions as recordings
from tests.tasks.test_probe_targets import NAMES, columns


def test_components_are_the_principal_ones():
  rng = np.random.default_rng(0)
  fit, new = (
    rng.normal(size=(rows, 3)) @ np.diag([9.0, 4.0, 1.0]) @ np.eye(3, 40)
    + 0.01 * rng.normal(size=(rows, 40))
    + 5
    for rows in (60, 20)
  )
  one, other = probe_controls.components(fit, new, 2, seed=0)
  _, _, axes = np.linalg.svd(fit - fit.mean(0), full_matrices=False)
  for found, values in ((one, fit), (other, new)):
    np.testing.assert_allclose(
      np.abs(found), np.abs((values - fit.mean(0)) @ axes[:2].T), atol=1e-6
    )
  assert probe_controls.components(fit[:5], new, 32, seed=0)[0].shape == (5, 5)


def test_the_difference_tells_what_the_pictures_tell():
  """The second picture is the first plus the motion, beside much that does not move: as many
  components as z has numbers find it.
  """
  rng, sides = np.random.default_rng(0), []
  for seed in (0, 1):
    found, _ = columns(recordings.delta, seed, first=100 * seed)
    first = 10 * rng.normal(size=(len(found["group"]), 30))
    second = first + found["action"][:, 1] @ np.eye(4, 30)
    sides.append((found, np.stack([first, second], 1)))
  (fit, fit_pictures), (held_out, pictures) = sides
  target = probe_targets.build("action", fit, held_out, names=NAMES, datasets=["arm"])
  one = motion_evaluator.MotionEvaluation(
    z=np.zeros((len(pictures), 4)),
    past=None,
    future=None,
    frames=None,
    columns=held_out,
    pictures=pictures,
  )
  z, row, results = probe_controls.difference(
    motion_evaluator.Labels({}, fit_pictures, fit), one, [target], seed=0
  )
  assert z.shape == (len(fit_pictures) + len(pictures), 4)
  assert (
    row["lp_mse"][0] < 0.01
    and row["mlp_mse"][0] < 0.2
    and results["notes"][0].startswith("difference, action: ridge regression")
  )
  assert results["probes"]["action"].mse == pytest.approx(row["lp_mse"][0])
  # pictures of experts: the first tells
  told = [np.stack([found["action"][:, 1] @ np.eye(4, 30), seen[:, 0]], 1) for found, seen in sides]
  one = dataclasses.replace(one, pictures=told[1])
  rows = probe_controls.one_picture(
    motion_evaluator.Labels({}, told[0], fit), one, [target], seed=0
  )
  assert list(rows) == ["first-only", "second-only"]
  (first, results), (second, _) = rows.values()
  assert (
    first["lp_mse"][0] < 0.01
    and second["lp_mse"][0] > 0.9
    and results["probes"]["action"].mse == pytest.approx(first["lp_mse"][0])
  )


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
  return probe_controls.strong(latent, pictures, [target], cameras, seed=0)


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
  fitted, fit = [], probe_controls.kernel_ridge.fit
  monkeypatch.setattr(
    probe_controls.kernel_ridge,
    "fit",
    lambda inputs, targets, **how: (
      fitted.append((inputs.shape, targets.shape, how["whiten"])) or fit(inputs, targets, **how)
    ),
  )
  monkeypatch.setattr(probe_controls, "STRONG", 100)
  rows, _ = probe_controls.strong(
    {"place": poses[:, 0]}, pictures, [target, state], np.zeros(900), seed=0
  )
  assert fitted[:2] == [((100, 2), (100, 4), True), ((100, 2), (100, 2), True)] and len(fitted) == 8
  assert [whiten for _, _, whiten in fitted[2:]] == [False] * 6 and fitted[-1][0] == (100, 8)
  assert rows["place"]["state_kr_mse"] != rows["place"]["kr_mse"]


def test_errors_are_in_units_of_the_windows_to_fit_on():
  target, pictures, cameras, poses = filmed()
  robot = target.robots[0]
  scaled = dataclasses.replace(
    robot,
    values=np.concatenate([robot.values * [1, 1000], np.ones((900, 1))], 1),
    names=("x", "y", "still"),
  )
  plain, (found,) = (
    probe_controls._errors(poses[:, 0], [one], whiten=True, max_windows=1000, seed=0)
    for one in (robot, scaled)
  )
  np.testing.assert_allclose(found[:, :2], plain[0], rtol=1e-6)
  assert np.isnan(found[:, 2]).all() and found.shape == (300, 3)
  fit = probe_controls.kernel_ridge.fit(
    poses[:600, 0], robot.values[:600], groups=robot.groups[:600]
  )
  _, scale, _ = probes.scale_of(robot.values[:600])
  np.testing.assert_allclose(
    plain[0], ((fit.predict(poses[600:, 0]) - robot.values[600:]) / scale) ** 2
  )
