"""The making of an exam set, with a world and scores on paper."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np

from como_jax.exam import exam_set, rows
from como_jax.inference import exam_pictures
from como_jax.sim import exam_draws
from como_jax.tasks import exam_set as exam_set_task
from tests.exam import made_set
from tests.sim.small_exam import SETTINGS

SMALL = dataclasses.replace(SETTINGS, pushed_fit_chains=8, pushed_test_chains=2, fit_chains=2)


def level(view, picture):
  """Gray level of a picture."""
  return 20 + 4 * (3 * view + picture) % 200


class World:
  """Pictures of one gray level each."""

  def film(self, design, view):
    shades = [np.full((64, 64, 3), level(view, picture), np.uint8) for picture in range(3)]
    return shades, {"camera": np.full(3, view)}


def test_a_tier_is_its_pictures_and_their_table(tmp_path):
  folder, design = tmp_path / "pushed", exam_draws.draw(SMALL)
  exam_set_task.write_tier(folder, design, 1, World(), quality=10)
  exam = exam_set.load(folder)
  views = exam.numbers["camera"][:, 0].astype(int)
  np.testing.assert_array_equal(exam.views["chain"], design.views["chain"][views])
  frames = exam_pictures.frames(folder, 0)
  assert frames.shape == (len(views), 3, 64, 64, 3)
  levels = frames.mean(axis=(2, 3, 4))  # the codec is off by a level or so
  np.testing.assert_allclose(levels, level(views[:, None], np.arange(3)), atol=1.9)


def test_rows_are_stored_and_what_only_they_need_is_dropped(tmp_path, monkeypatch, capsys):
  arrays, _ = made_set.build(fit_chains=18, test_chains=3, features=20)
  made_set.write(tmp_path, arrays)
  pictures = SimpleNamespace(
    table=arrays | {"inverse_model": arrays["target"], "state_robot/first": arrays["target"]}
  )
  pairs = len(arrays["target"])
  latents = {name: {"z": np.ones((pairs, 2))} for name in ("time", "components of the difference")}
  monkeypatch.setattr(exam_set_task.exam_baselines, "build", lambda given, flow: latents)

  def evaluate(exam, z):
    assert z.z.shape == (exam.pairs, 2)
    return SimpleNamespace(
      verdict="V",
      flagged=(),
      sentence="S",
      errors=np.full((4, 2), 1 / 3),
      row=lambda: {"e_z": 1 / 3, "seconds": 2.0},
    )

  monkeypatch.setattr(exam_set_task.scoring, "evaluate", evaluate)
  exam_set_task.write_rows(tmp_path, pictures)
  row = {"verdict": "V", "flags": [], "e_z": 0.3333}
  assert json.loads((tmp_path / rows.ROWS).read_text()) == {
    "time": {"kind": "cheat", **row},
    "components of the difference": {"kind": "baseline", **row},
  }
  assert capsys.readouterr().out == "time: S\ncomponents of the difference: S\n"
  with np.load(tmp_path / exam_set.TABLE) as file:
    assert set(file.files) == {*arrays, "rows/components of the difference"}
    assert file["rows/components of the difference"].dtype == np.float16
