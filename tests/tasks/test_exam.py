"""Taking the exam: which picture is which row of z, the stored rows beside it, and refusals."""

import json

import chex
import jax
import numpy as np
import pytest

from como_jax import errors, models, report, weights
from como_jax.data import video
from como_jax.tasks import exam, exam_controls, exam_pictures, exam_rows
from como_jax.tasks import exam_set as exam_set_task
from configs import probe as probe_config
from tests.end_to_end import program
from tests.exam import made_set
from tests.models import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A set of numbers, with pictures of one gray level each: 20 + 4 (3 v + k), modulo 200."""
  root = tmp_path_factory.mktemp("set")
  arrays, _ = made_set.build(fit_chains=60, test_chains=10)
  (root / "hand").mkdir()
  arrays["rows/components of the difference"] = arrays["errors/both"]
  np.savez(root / "hand" / "exam.npz", **arrays)
  encoder = video.H264Encoder(10, group=250)
  for picture in range(3 * len(arrays["chain"])):
    encoder.add(np.full((64, 64, 3), 20 + 4 * picture % 200, np.uint8))
  (root / "hand" / "pictures.mp4").write_bytes(encoder.finish())
  (root / "hand" / "rows.json").write_text(
    json.dumps(
      {
        "first picture": {
          "kind": "cheat",
          "verdict": "no motion beyond one picture",
          "flags": ["scene"],
          "s": -0.2,
          "s_low": -0.3,
          "s_high": -0.1,
          "e_z": 0.9,
          "e_z_low": 0.85,
          "e_z_high": 0.95,
          "excess/scene": 0.9,
          "excess/scene_low": 0.8,
          "excess/scene_high": 1.0,
        }
      }
    )
  )
  return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp("run") / "weights"
  config = tiny.MOTION
  weights.save(
    path,
    jax.device_get(models.build(config).init(jax.random.key(0))),
    {"model": config, "data": {}},
  )
  return path


def test_rows_of_z_are_the_pairs_of_a_view_in_order(folder):
  frames = exam_pictures.frames(folder / "hand", 0)
  views = len(frames)
  chex.assert_shape(frames, (views, 3, 64, 64, 3))
  numbers = np.rint((frames.mean(axis=(2, 3, 4)) - 20) / 4)  # the codec is off by a level or so
  np.testing.assert_array_equal(numbers, (np.arange(3 * views) % 50).reshape(-1, 3))
  found = exam_rows.latents(lambda a, b: 100 * a[:, None] + b[:, None], numbers)
  assert found["z"][:4, 0].tolist() == [1, 102, 304, 405]
  assert found["z_ba"][:2, 0].tolist() == [100, 201]
  assert found["z_ac"][:2, 0].tolist() == [2, 305] and found["z_aa"][:2, 0].tolist() == [0, 303]
  assert "z_shifted" not in found
  found = exam_rows.latents(lambda a, b: 100 * a[:, None] + b[:, None], numbers, 1 + numbers[:, :2])
  assert found["z_shifted"][:2, 0].tolist() == [102, 405]


def test_shifted_pictures_move_together_and_repeat_their_edges(monkeypatch, tmp_path):
  frames = np.random.default_rng(0).integers(0, 255, size=(6, 3, 32, 32, 3)).astype(np.uint8)
  frames[:, 1] = 255 - frames[:, 0]
  found = exam_pictures.shifted(frames)
  assert found.shape == (6, 2, 32, 32, 3)
  np.testing.assert_array_equal(found[:, 1], 255 - found[:, 0])
  for view, (down, right) in enumerate([(2, 2), (2, -2), (-2, 2), (-2, -2), (2, 2)]):
    rows, columns = (np.clip(np.arange(32) - by, 0, 31) for by in (down, right))
    np.testing.assert_array_equal(found[view, 0], frames[view, 0][rows][:, columns])
  np.testing.assert_array_equal(exam_pictures.shifted(frames[3:], np.arange(3, 6)), found[3:])
  monkeypatch.setattr(exam_pictures, "frames", lambda folder, size: frames)
  exam.write_pairs(None, tmp_path / "pairs.npz")
  with np.load(tmp_path / "pairs.npz") as file:
    np.testing.assert_array_equal(file["shifted"], found)


def test_a_models_latents_do_not_depend_on_the_batch(folder, checkpoint):
  parameters, config = exam.probe.load(str(checkpoint))
  found, other = (
    exam.of_model(parameters, config, folder / "hand", views=size) for size in (64, 9)
  )
  assert set(found) == {"z", "z_ba", "z_ac", "z_aa", "z_shifted"}
  assert len(found["z"]) == 2 * len(found["z_ac"])
  chex.assert_trees_all_close(found, other, atol=1e-4)  # XLA sums in another order at another size


@pytest.mark.parametrize(
  "changes",
  [
    {"idm.inputs": "rgb_diff"},
    {"idm.inputs": "future"},
    {"idm.inputs": "none", "bottleneck": {"kind": "vq", "latent_dim": 4, "num_codes": 8}},
    {"image_size": 32, "idm.components": 4, "idm.components_of": "flow"},
  ],
  ids=str,
)
def test_a_models_latents_are_those_of_each_pair_alone(monkeypatch, changes):
  """Pictures encoded once for all their pairs, against pairs that know nothing of each other."""
  model, parameters = tiny.made(tiny.MOTION, **changes)
  shape = (model.image_size, model.image_size, 3)
  shown = np.random.default_rng(0).integers(0, 256, size=(3, 3, *shape)).astype(np.uint8)
  monkeypatch.setattr(exam_pictures, "frames", lambda folder, size: shown)
  found = exam.of_model(parameters, {"model": tiny.section(tiny.MOTION, **changes)}, None, views=2)
  first, second = (shown[:, side].reshape(-1, *shape) for side in ([0, 1], [1, 2]))
  wanted = {
    "z": (first, second),
    "z_ba": (second, first),
    "z_ac": (shown[:, 0], shown[:, 2]),
    "z_aa": (shown[:, 0], shown[:, 0]),
    "z_shifted": exam_pictures.shifted(shown).swapaxes(0, 1),
  }
  assert set(found) == set(wanted)
  images = (
    exam.pixels.normalize(np.concatenate(side)) for side in zip(*wanted.values(), strict=False)
  )
  z = np.asarray(jax.jit(lambda *images: model.encode(parameters, *images).z)(*images))
  together = np.concatenate([found[name] for name in wanted])
  np.testing.assert_allclose(together, z, atol=1e-5 * np.abs(z).max())


def test_the_exam_of_a_checkpoint_and_of_foreign_latents(folder, checkpoint, tmp_path):
  np.savez(
    tmp_path / "theirs.npz",
    z=np.random.default_rng(0).normal(size=(2 * len(exam_pictures.frames(folder / "hand", 16)), 5)),
  )
  done = program.run(
    "configs/probe.py:exam",
    tmp_path / "exam",
    f"--config.checkpoint={checkpoint}",
    f"--config.exam.set={folder}",
    f"--config.exam.latents={tmp_path / 'theirs.npz'}",
  )
  rows = json.loads((tmp_path / "exam" / exam.METRICS).read_text())["rows"]
  assert list(rows) == ["trained", "untrained", "theirs.npz", "first picture"]
  assert rows["untrained"]["kind"] == "baseline" and rows["trained"][
    "minus_untrained"
  ] == pytest.approx(rows["trained"]["e_z"] - rows["untrained"]["e_z"])
  assert (
    "minus_untrained" not in rows["theirs.npz"]
    and "minus that of the untrained model" in done.stdout
  )
  assert (
    rows["theirs.npz"]["verdict"] == "no motion beyond one picture"
    and rows["theirs.npz"]["minus_components_low"] > 0.2
  )
  assert "no motion beyond one picture: S is" in done.stdout and "theirs" in done.stdout
  table = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
  # the stored row was not asked of the future picture
  assert table["first picture"][-2:] == ["-", "scene"]
  assert float(table["theirs.npz"][-2]) == pytest.approx(
    rows["theirs.npz"]["future/second"], abs=0.006
  )
  page = (tmp_path / "exam" / "report.html").read_text()
  assert (
    "Motion and appearance" in page
    and "first picture" in page
    and (tmp_path / "exam" / "exam.png").stat().st_size > 10_000
  )
  with np.load(tmp_path / "exam" / exam.LATENTS) as file:
    assert file["z"].shape[0] == 2 * file["z_ac"].shape[0]


def test_a_start_from_data_that_is_gone_is_named():
  changes = {"image_size": 32, "idm.components": 4, "idm.components_of": "flow"}
  _, parameters = tiny.made(tiny.MOTION, **changes)
  config = probe_config.get_config("exam")
  with pytest.raises(errors.UserError, match="'/gone' does not exist"):
    exam.untrained(
      config, parameters, {"model": tiny.section(tiny.MOTION, **changes), "data": {"path": "/gone"}}
    )


@pytest.mark.parametrize(
  "train, trained",
  [
    ({}, False),
    ({"frozen": None}, False),
    ({"frozen": ("encoder/.*",)}, False),
    ({"frozen": ("encoder/position",)}, True),
  ],
)
def test_a_trained_encoder_is_told(train, trained):
  _, parameters = tiny.made(tiny.MOTION)
  assert exam.encoder_is_trained({"model": tiny.MOTION, "train": train}, parameters) == trained


def test_pairs_are_written_for_others(folder, tmp_path):
  done = program.run(
    "configs/probe.py:exam",
    tmp_path / "pairs",
    "--config.exam.pairs=True",
    f"--config.exam.set={folder}",
  )
  with np.load(tmp_path / "pairs" / "pairs.npz") as file:
    assert file["frames"].dtype == np.uint8 and file["frames"].shape[1:] == (3, 64, 64, 3)
    assert f"z [{2 * len(file['frames'])}, Z]" in done.stdout
    assert f"Row v of z_shifted [{len(file['frames'])}, Z]" in done.stdout


@pytest.mark.parametrize(
  "words, message",
  [
    ([], "config.checkpoint and config.exam.latents are empty"),
    (
      ["--config.exam.tier=hands", "--config.exam.pairs=True"],
      "config.exam.tier=hands: did you mean 'hand'?",
    ),
    (
      ["--config.exam.set=nowhere", "--config.exam.pairs=True"],
      "config.exam.set=nowhere does not exist",
    ),
  ],
)
def test_refusals(words, message, tmp_path):
  done = program.run("configs/probe.py:exam", tmp_path / "exam", *words, code=2)
  assert message in done.stderr and not (tmp_path / "exam").exists()


def test_report_rows_show_what_was_withheld_as_withheld():
  rows = {
    "trained": {
      "kind": "model",
      "e_z": 0.9,
      "e_z_low": 0.8,
      "e_z_high": 1.0,
      "s": None,
      "excess/scene": 0.2,
      "excess/scene_low": 0.1,
      "excess/scene_high": 0.3,
      "excess/camera": 0.4,
      "excess/camera_low": 0.3,
      "excess/camera_high": 0.5,
      "flags": ["camera"],
      "future/second": 0.5,
      "future/second_low": 0.4,
      "future/second_high": 0.6,
    }
  }
  shown = exam.as_report(rows).rows[0]
  assert shown == report.ExamRow(
    "trained",
    "model",
    error=(0.9, 0.8, 1.0),
    score=None,
    leak=(0.4, 0.3, 0.5),
    read=("camera",),
    gap=None,
    future=(0.5, 0.4, 0.6),
  )


def made_pictures():
  arrays, features = made_set.build(fit_chains=60, test_chains=10)
  views = len(features)
  frames = np.random.default_rng(0).integers(0, 255, size=(views, 3, 16, 16, 3)).astype(np.uint8)
  arrays |= {
    "inverse_model": arrays["target"],
    "state/first": arrays["target"],
    "state/second": arrays["target"],
    "state_robot/first": arrays["target_robot"],
    "state_robot/second": arrays["target_robot"],
    "place": np.zeros((views, 3, 2), np.float16),
  }
  tokens = features.reshape(views, 3, 8, 12).astype(np.float16)
  # as if shifted were later by one
  return exam_pictures.Pictures(frames, frames, tokens, arrays, tokens[:, 1:])


def test_cheats_and_baselines_are_what_they_are_called():
  pictures = made_pictures()
  rows = exam_rows.build(pictures)
  assert tuple(rows) == exam_rows.CHEATS + exam_rows.BASELINES
  pairs = 2 * len(pictures.frames)
  assert all(len(row["z"]) == pairs and np.isfinite(row["z"]).all() for row in rows.values())
  first = rows["first picture"]["z"]
  np.testing.assert_allclose(
    first,
    rows["first picture"]["z_ac"].repeat(2, axis=0) * (np.arange(pairs) % 2 == 0)[:, None]
    + first * (np.arange(pairs) % 2 == 1)[:, None],
    atol=1e-4,
  )
  # the future of a pair is the first of the next
  np.testing.assert_allclose(rows["future picture"]["z"][::2], first[1::2], atol=1e-4)
  future = rows["future picture"]
  np.testing.assert_allclose(future["z_shifted"], future["z"][1::2], atol=1e-4)
  difference = rows["components of the difference"]
  np.testing.assert_allclose(difference["z_shifted"], difference["z"][1::2], atol=1e-4)
  for row in (rows["components of the optical flow"], rows["flow magnitude"]):
    assert row["z_shifted"].shape == row["z"][::2].shape and np.isfinite(row["z_shifted"]).all()
    # the flow is found of other pixels
    assert not np.allclose(row["z_shifted"], row["z"][::2], atol=1e-2)
  np.testing.assert_allclose(
    difference["z_ba"] + difference["z"],
    np.broadcast_to(2 * difference["z_aa"][:1], difference["z"].shape),
    atol=1e-3,
  )
  episode = rows["episode"]["z"]
  np.testing.assert_array_equal(episode[::2], episode[1::2])
  assert rows["wide random map of both"]["z"].shape[1] == exam_rows.WIDE
  other = exam_rows._others(pictures, np.random.default_rng(0))
  assert (pictures.of_pairs("chain")[other] != pictures.of_pairs("chain")).all()
  key = 1000 * pictures.of_pairs("camera") + pictures.of_pairs("scene")
  several = np.array([len(set(pictures.of_pairs("chain")[key == one])) > 1 for one in key])
  assert several.mean() > 0.5 and (key[other] == key)[several].all()


def test_controls_are_of_the_tests_pairs():
  pictures = made_pictures()
  found = exam_controls.errors(pictures, steps=2)
  test, same = (int((pictures.of_pairs("part") == part).sum()) for part in (1, 2))
  kinds = [
    f"{name}_{probe}" for name in ("first", "second", "both") for probe in ("linear", "kernel")
  ] + [f"{name}_{look}" for name in ("first", "second", "both") for look in ("network", "window")]
  oracles = [f"oracle_second_{probe}" for probe in ("linear", "kernel")]
  assert {key.partition("/")[2] for key in found if key.startswith("errors/")} == {*kinds, *oracles}
  assert {key.partition("/")[2] for key in found if key.startswith("errors_robot/")} == {
    *kinds,
    *oracles,
  }
  chex.assert_shape([found[f"errors/{name}"] for name in kinds + oracles], (test, 4))
  chex.assert_shape([found[f"errors_robot/{name}"] for name in kinds], (same, 4))
  chex.assert_shape(found["inverse_model"], (2 * len(pictures.frames), 4))
  variance = np.square(pictures.table["target"][pictures.of_pairs("part") == 1]).mean(axis=0)
  # the made pose is the target itself
  assert (found["errors/oracle_second_linear"].mean(axis=0) < 1e-3 * variance).all()
  assert found["errors/both_linear"].mean() < 0.7 * found["errors/first_linear"].mean()


def test_components_of_what_moves_leave_camera_and_scene_out():
  pictures = made_pictures()
  found = exam_set_task.picture_components(pictures)
  test = pictures.table["part"] == 1
  assert found.shape == (test.sum(), 3, exam_set_task.COMPONENTS) and found.dtype == np.float16
  key = 1000 * pictures.table["camera"][test] + pictures.table["scene"][test]
  for one in np.unique(key):
    assert np.abs(found[key == one].mean(axis=(0, 1), dtype=np.float64)).max() < 1e-3
  # 8 is exact
  look = pictures.tokens + np.float16(8) * (pictures.table["scene"][:, None, None, None] % 4)
  same = exam_set_task.picture_components(pictures._replace(tokens=look))
  np.testing.assert_allclose(np.abs(same), np.abs(found), atol=0.05)
  flat = pictures.tokens.reshape(*pictures.tokens.shape[:2], -1)
  wanted = made_set.moving(pictures.table, flat.astype(np.float64))
  # signs of components are arbitrary
  np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=0.01)


def test_a_set_without_the_sets_pictures_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="make a set with configs/exam_set.py"):
    exam.find(str(tmp_path), "hand")


def test_components_leave_out_directions_of_rounding():
  rng = np.random.default_rng(0)
  fit = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 200))).astype(np.float32)
  assert exam_rows.components(fit, 32)(fit).shape == (40, 5)


def test_errors_are_stored_finite(tmp_path):
  exam_set_task.save(
    tmp_path, {"errors/first": np.array([[1e9, 0.5]]), "target": np.array([[1e9]])}
  )
  with np.load(tmp_path / "exam.npz") as file:
    assert (
      np.isfinite(file["errors/first"]).all()
      and file["errors/first"][0, 1] == 0.5
      and file["target"][0, 0] == 1e9
    )
