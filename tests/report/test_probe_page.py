"""The page of the probe, and its table for the terminal."""

from types import SimpleNamespace

import numpy as np
import pytest

from como_jax.evaluate import probe_rows, probe_table, probe_targets
from como_jax.report import probe_page
from como_jax.train import goodput, step_clock

SECONDS = {**dict.fromkeys((*step_clock.WINDOW, "restoring"), 0.0), "starting": 8.0, "wall": 9.0}


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


def test_the_motion_of_an_example_on_its_own_frame_and_on_that_of_the_one_before():
  frames = np.arange(3 * 3).reshape(3, 3, 1, 1, 1).astype(np.uint8) * np.ones(
    (1, 1, 2, 2, 3), np.uint8
  )
  shown = {
    "frames": frames,
    "task": ["reach", "", "push"],
    "episode": ["e0", "e1", "e2"],
    "camera": ["a", "b", "a"],
  }
  own, other = probe_page.drawings(shown, lambda *images: images)
  assert own.captions == ["reach, a", "e1, b", "push, a"]
  np.testing.assert_array_equal(own.current, frames[:, 1])
  np.testing.assert_array_equal(own.target, frames[:, 2])
  assert len(own.predicted) == 2 and (own.predicted[1] == frames[:, 2]).all()
  assert other.captions == ["reach, a → push, a", "e1, b → reach, a", "push, a → e1, b"]
  np.testing.assert_array_equal(other.b_current, frames[[2, 0, 1], 1])
  first, second, onto = other.b_predicted
  assert (first == frames[:, 1]).all() and (second == frames[:, 2]).all()
  assert (onto == frames[[2, 0, 1], 1]).all()


def page_of(probes=None, matrix=None, targets=()):
  """The page of a table with two models and a row without S-PCFC."""

  def details(name, probes=None, matrix=None):
    pcfc = SimpleNamespace(values=name) if "trained" in name else None
    return probe_rows.Details(probes or {}, ["n"], pcfc, matrix)

  of_rows = {
    "trained": details("trained", probes, matrix),
    "untrained": details("untrained"),
    "difference": details("difference"),
  }
  return probe_page.page(
    probe_table.Table({"row": 1}, ["n"], of_rows),
    targets,
    (np.arange(6.0).reshape(3, 2), np.array([0.75, 0.25])),
    ("OWN", "OTHER"),
    split="SPLIT",
    training=SimpleNamespace(
      name="run",
      curves={"loss": "CURVE", "mfu": "MFU", "time/device": "T", "hbm_peak_gib": "H"},
      speed={"steps": 5},
      goodput={},
    ),
    run_config={"a": 1},
  )


def test_everything_that_the_page_shows_of_a_model():
  result = SimpleNamespace(
    names=["x", "y"],
    true=np.array([[np.nan, 1], [2, 3], [4, 5]]),
    predicted=-np.arange(6).reshape(3, 2),
    r2_by_dimension=np.array([0.5, 0.25]),
  )
  matrix = SimpleNamespace(values="V", labels="L")
  found = page_of({"action": result}, matrix, targets_of()[:1])
  assert (found.title, found.metrics) == ("Motion model: run", {"row": 1})
  assert found.metric_notes == ["SPLIT", "n"]
  assert found.curves == {"loss": "CURVE", "mfu": "MFU"}, "no panel for every section of the time"
  assert (found.time, found.goodput) == ({"training, steps": 5}, None)
  assert (found.reconstruction, found.transfer, found.config) == ("OWN", "OTHER", {"a": 1})
  assert found.s_pcfc == {"trained": "trained", "untrained": "untrained"}
  assert list(found.probes) == ["action: x", "action: y"]
  of_one_robot, scatter = found.probes.values()
  assert of_one_robot.true.tolist() == [2, 4], "of the robot that has it"
  assert of_one_robot.predicted.tolist() == [-2, -4]
  assert (scatter.true.tolist(), scatter.predicted.tolist()) == ([1, 3, 5], [-1, -3, -5])
  assert scatter.r2 == 0.25
  assert found.pca.points.shape == (3, 2) and list(found.pca.colors) == [
    f"action: {name}" for name in "pqrs"
  ]
  assert (found.similarity.values, found.similarity.labels) == ("V", "L")


def test_the_page_of_a_model_without_probes():
  found = page_of()
  assert (found.probes, found.pca, found.similarity) == ({}, None, None)


def test_files_that_were_left_out():
  manifests = [{"quarantine": [f"{name} q"], "skipped": [f"{name} s"]} for name in ("one", "two")]
  assert probe_page.left_out(manifests) == ["one q", "one s", "two q", "two s"]


def test_the_time_of_the_training_is_shown_where_there_is_a_ledger():
  summary = goodput.summarize([{"event": "start", "step": 3, "began": 0.0, "seconds": SECONDS}], [])
  found = probe_page.goodput(summary)
  assert (found.wall, found.seconds["starting"], found.unaccounted) == (9.0, 8.0, 1.0)
  assert found.redone_steps == 0 and found.attempts[0]["to_step"] == 3
  assert probe_page.goodput({}) is None
