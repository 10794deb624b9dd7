"""The set that ships: its size, its controls against what they should be, and every cheat seen
through.
"""

import json

import numpy as np
import pytest

from como_jax.evaluate import exam_baselines
from como_jax.exam import exam_set, run
from como_jax.exam import rows as rows_lib
from como_jax.sim import exam_design, exam_draws

NEAR = 0.03


@pytest.fixture(scope="module", params=exam_design.TIERS)
def tier(request):
  folder = exam_set.find("bundled", request.param)
  return request.param, exam_set.load(folder), json.loads((folder / rows_lib.ROWS).read_text())


def test_it_is_small():
  assert sum(file.stat().st_size for file in exam_set.BUNDLED.rglob("*") if file.is_file()) <= 10e6


def test_parts_are_what_the_design_says(tier):
  name, given, _ = tier
  settings = json.loads((exam_set.BUNDLED / "exam.json").read_text())["config"]["exam"]
  design = exam_draws.draw(
    exam_design.Settings(
      **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    )
  )
  _, seen, _ = exam_design.targets(design, exam_design.TIERS.index(name))
  assert sorted(np.round(seen[:, 0], 5)) == pytest.approx(
    sorted(np.round(given.target[:, 0], 5)), abs=2e-5
  )
  twins = run.twins(given)
  assert 2 * len(twins) >= (200 if name == "hand" else 100) and twins.shape[1:] == (3, 3)


def test_the_first_picture_tells_nothing_before_capping(tier):
  _, given, _ = tier
  for kind in ("linear", "kernel"):
    assert (given.errors[f"first_{kind}"] / given.variance).mean() == pytest.approx(1, abs=NEAR)


def test_the_true_second_pose_tells_what_its_closed_form_says(tier):
  name, given, _ = tier
  closed = exam_draws.closed_form(exam_design.TIERS.index(name))
  for kind, form in (("linear", "linear"), ("kernel", "conditional")):
    assert (given.errors[f"oracle_second_{kind}"] / given.variance).mean() == pytest.approx(
      closed[form].mean(), abs=NEAR
    )


def test_no_second_picture_tells_more_than_its_true_pose(tier):
  _, given, _ = tier
  error = {name: (values / given.variance).mean() for name, values in given.errors.items()}
  pictures = [error[name] for name in error if name.startswith("second_")]
  assert (
    len(pictures) == 4
    and min(pictures) >= min(error["oracle_second_linear"], error["oracle_second_kernel"]) - NEAR
  )


def test_every_cheat_is_seen_through(tier):
  _, _, rows = tier
  assert set(exam_baselines.CHEATS + exam_baselines.BASELINES) == set(rows)
  passed = [
    name for name in exam_baselines.CHEATS if not (rows[name]["s"] < 0.1 or rows[name]["flags"])
  ]
  assert not passed
  assert rows["future picture"]["s"] < 0.1, "the collapse"
  assert abs(rows["true second pose"]["s"]) < 0.1 and not rows["true second pose"]["flags"], (
    "all that the second picture can tell, and no appearance"
  )


def test_true_displacement_passes(tier):
  _, _, rows = tier
  row = rows["true displacement"]
  assert row["s"] >= 0.95 and row["e_z"] < 0.01


def test_stored_errors_give_the_stored_rows(tier):
  _, given, rows = tier
  single = [
    values / given.variance
    for name, values in given.errors.items()
    if name.startswith(("first_", "second_"))
  ]
  both = [
    values / given.variance for name, values in given.errors.items() if name.startswith("both_")
  ]
  lowest = [
    min(float(np.minimum(1, values.mean(axis=0)).mean()) for values in some)
    for some in (single, both)
  ]
  closed = exam_draws.closed_form(exam_design.TIERS.index(tier[0]))["conditional"].mean()
  assert given.limit == pytest.approx(closed, abs=1e-6) and given.limit < lowest[0]
  lowest[0] = min(given.limit, lowest[0])
  for row in rows.values():
    assert (row["e_single"], row["e_both"]) == pytest.approx(lowest, abs=1e-4)
    if row["s"] is not None:
      assert row["s"] == pytest.approx(
        (row["e_single"] - row["e_z"]) / (row["e_single"] - row["e_both"]), abs=2e-3
      )
