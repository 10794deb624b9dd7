"""The table of latents: what of it is computed, and what is stored with the set."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from como_jax.exam import exam_set, motion_score, rows

CHAINS = np.arange(40) // 4


def result(error, **numbers):
  return SimpleNamespace(
    verdict="V",
    flagged=("scene",),
    errors=np.full((40, 2), error),
    moves=motion_score.Moves(CHAINS),
    row=lambda: {"e_z": error, "s": float("nan"), **numbers},
  )


@pytest.fixture
def folder(tmp_path):
  np.savez(
    tmp_path / exam_set.TABLE, **{"rows/components of the difference": np.full((40, 2), 0.5)}
  )
  return tmp_path


def test_results_stand_before_the_stored_rows(folder):
  (folder / rows.ROWS).write_text(json.dumps({"camera": {"kind": "cheat"}}))
  table = rows.table(folder, {"trained": result(0.25), "untrained": result(0.75), "x": result(1.0)})
  assert list(table) == ["trained", "untrained", "x", "camera"]
  assert [row["kind"] for row in table.values()] == ["model", "baseline", "model", "cheat"]
  assert table["trained"]["minus_components"] == pytest.approx(-0.25)
  assert table["x"]["minus_components_low"] == pytest.approx(0.5)
  assert table["trained"]["minus_untrained"] == pytest.approx(-0.5)
  for name in ("untrained", "x"):
    assert "minus_untrained" not in table[name], "of the trained model alone"
  assert "minus_flow" not in table["trained"], "not stored with this set"


def test_a_table_needs_no_stored_rows(folder):
  table = rows.table(folder, {"x": result(1.0)})
  assert list(table) == ["x"]


def test_a_stored_row_has_four_digits_and_nothing_that_is_the_same_for_all_rows():
  found = rows.stored_row(result(1 / 3, width=4, seconds=2.0, **{"e_control/both": 0.1}), "cheat")
  assert found == {
    "kind": "cheat",
    "verdict": "V",
    "flags": ["scene"],
    "e_z": 0.3333,
    "s": None,
    "width": 4,
  }


def test_what_was_withheld_is_null():
  row = rows.as_row(result(0.5, width=4.0), "model")
  assert row == {
    "kind": "model",
    "verdict": "V",
    "flags": ["scene"],
    "e_z": 0.5,
    "s": None,
    "width": 4.0,
  }
