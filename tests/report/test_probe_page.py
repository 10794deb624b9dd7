"""Parts of the page of the probe, and its table for the terminal."""

import numpy as np
import pytest

from como_jax.evaluate import probe_targets
from como_jax.report import probe_page


def test_the_table_on_the_terminal():
  text = probe_page.table(
    {
      "trained": {"lp_mse": (0.25, 0.0125), "psnr": 30.0},
      "untrained": {"lp_mse": (0.75, None), "rank": 2.0},
    },
    ["a note", "another"],
  )
  assert text == (
    "                   trained           untrained\n"
    "lp_mse     0.2500 ± 0.0125              0.7500\n"
    "psnr               30.0000                    \n"
    "rank                                    2.0000\n"
    "  a note\n  another"
  )


def columns(*, action=True, state=True):
  """Three windows to fit on (groups 0, 0, 1) or, where shifted, held-out ones."""
  return {
    "action": np.arange(24.0).reshape(3, 2, 4),
    "state_delta": np.ones((3, 2, 2)),
    "has_action": np.full(3, action),
    "has_state": np.full(3, state),
    "group": np.array([0, 0, 1]),
    "dataset": np.zeros(3, int),
    "action_size": np.full(3, 4),
    "state_size": np.full(3, 2),
  }


def targets_of(**changes):
  fit, held_out = columns(**changes), columns(**changes)
  held_out["group"] = held_out["group"] + 10
  names = {"action": [["p", "q", "r", "s"]], "state": [["x", "y"]]}
  return [
    probe_targets.build(name, fit, held_out, names=names, datasets=["arm"])
    for name in ("action", "state")
  ]


def test_the_projection_is_colored_by_the_first_target_that_was_probed():
  points = np.arange(6.0).reshape(3, 2)
  found = probe_page.projection(points, np.array([0.75, 0.25]), targets_of())
  assert list(found.colors) == ["action: p", "action: q", "action: r", "action: s"]
  assert found.explained == (0.75, 0.25)
  np.testing.assert_array_equal(found.points, points)
  for d, values in enumerate(found.colors.values()):
    np.testing.assert_array_equal(values, columns()["action"][:, 1, d])
  found = probe_page.projection(points, np.array([1.0, 0.0]), targets_of(action=False))
  assert list(found.colors) == ["state: x", "state: y"]
  nothing = targets_of(action=False, state=False)
  assert probe_page.projection(points, np.array([1.0, 0.0]), nothing) is None


def test_windows_without_a_target_are_left_out_of_the_projection():
  fit, held_out = columns(), columns()
  held_out |= {"group": held_out["group"] + 10, "has_action": np.array([True, False, True])}
  names = {"action": [["p", "q", "r", "s"]], "state": [["x", "y"]]}
  target = probe_targets.build("action", fit, held_out, names=names, datasets=["arm"])
  found = probe_page.projection(np.arange(6.0).reshape(3, 2), np.array([1.0, 0.0]), [target])
  assert found.points.tolist() == [[0, 1], [4, 5]]
  assert found.colors["action: p"].tolist() == [4, 20]


@pytest.mark.parametrize(
  "change, start",
  [
    ({}, "Measured on the validation episodes of the training run;"),
    *(
      (
        {key: value},
        "Measured on the validation episodes of this data (not the split of the training run);",
      )
      for key, value in (("path", "x"), ("mixture", [{"path": "y"}]), ("validation_fraction", 0.25))
    ),
  ],
)
def test_which_episodes_were_measured(change, start):
  section = {"path": "trained", "mixture": [], "validation_fraction": 0.5, "frames": 2}
  note = probe_page.split_note({**section, **change, "frames": 3}, section)
  assert note.startswith(start) and note.endswith(" Episodes of the same motion stand on one side.")
