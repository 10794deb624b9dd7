"""The table of the probe: which rows it has, in which order, and what each is computed from."""

from types import SimpleNamespace

import numpy as np
import pytest

from como_jax.evaluate import probe_rows, probe_table

STATE_NAMES = {"state_delta": "true-change", "state": "true-state"}


def evaluation(value, pictures=None):
  frames = SimpleNamespace(copy_mse=1.0, copy_psnr=2.0, copy_ssim=3.0)
  columns = {"camera": np.arange(2)}
  return SimpleNamespace(
    z=np.full((2, 1), value), frames=frames, columns=columns, pictures=pictures
  )


def build(pictures):
  evaluations = {"trained": evaluation(5.0, pictures), "untrained": evaluation(4.0)}
  fitted = SimpleNamespace(
    z={"trained": np.full((3, 1), 5.0), "untrained": np.full((3, 1), 4.0)},
    pictures=np.full((3, 2, 6), 0.5),
    columns={"camera": np.zeros(3)},
  )
  targets = [
    SimpleNamespace(name="action", robots=["R"], groups="G action"),
    SimpleNamespace(name="state", robots=[], groups="G state"),
  ]
  return probe_table.build(evaluations, fitted, targets, "WINDOWS", state_names=STATE_NAMES, seed=3)


@pytest.fixture(name="told")
def _told(monkeypatch):
  """What was computed, with results on paper."""
  told = SimpleNamespace(scored=[], gains=[], latents=None, states=True)

  def score(one, fitted, windows, targets, *, seed):
    told.scored.append(
      (float(one.z[0, 0]), float(fitted[0, 0]), windows, [target.name for target in targets], seed)
    )
    details = probe_rows.Details({"action": f"A{one.z[0, 0]:g}"}, [f"note {one.z[0, 0]:g}"])
    return {"psnr": float(one.z[0, 0])}, details

  def difference(fit, held_out, count, targets, *, seed):
    assert (fit.shape, held_out.shape, count, len(targets), seed) == ((3, 2, 6), (2, 2, 6), 1, 2, 3)
    return np.full((5, 1), 6.0), {"lp_mse": 0.5}, probe_rows.Details({"action": "AD"}, ["note D"])

  def one_picture(fit, held_out, count, targets, *, seed):
    assert (fit.shape, held_out.shape, count, len(targets), seed) == ((3, 2, 6), (2, 2, 6), 1, 2, 3)
    return {"first-only": ({"lp_mse": 0.75}, probe_rows.Details({"action": "AF"}, ["unused"]))}

  def kernel_rows(latent, pictures, targets, cameras, *, seed):
    told.latents = {name: values[:, 0].tolist() for name, values in latent.items()}
    assert (pictures[:, 0, 0].tolist(), cameras.tolist(), len(targets), seed) == (
      [0.5, 0.5, 0.5, 1, 1],
      [0, 0, 0, 0, 1],
      2,
      3,
    )
    return {"trained": {"kr_mse": 0.25}, "both-pictures": {"kr_mse": 0.125}}, ["note K"]

  def state_rows(target, fit, held_out, *, seed):
    assert (len(fit["camera"]), len(held_out["camera"]), seed) == (3, 2, 3)
    row = {"lp_mse": (0.5, 0.1)}
    return {"state": row} if told.states and target.name == "action" else {}

  monkeypatch.setattr(probe_table.probe_rows, "score", score)
  monkeypatch.setattr(probe_table.probe_controls, "difference", difference)
  monkeypatch.setattr(probe_table.probe_controls, "one_picture", one_picture)
  monkeypatch.setattr(probe_table.probe_scores, "kernel_rows", kernel_rows)
  monkeypatch.setattr(probe_table.probe_rows, "state_rows", state_rows)
  monkeypatch.setattr(
    probe_table.probes,
    "gain",
    lambda *given: told.gains.append(given) or (float(len(told.gains)), 0.5),
  )
  return told


def test_the_rows_and_what_they_are_computed_from(told):
  table = build(np.ones((2, 2, 6)))
  assert told.scored == [
    (value, value, "WINDOWS", ["action", "state"], 3) for value in (5.0, 4.0)
  ], "each model with its own z of the windows to fit on"
  assert told.latents == {"trained": [5.0] * 5, "untrained": [4.0] * 5, "difference": [6.0] * 5}
  assert list(table.rows.items()) == [
    (
      "trained",
      {
        "psnr": 5.0,
        "kr_mse": 0.25,
        "lp_gain": (1.0, 0.5),
        "lp_gain_difference": (2.0, 0.5),
        "lp_gain_first": (3.0, 0.5),
      },
    ),
    ("untrained", {"psnr": 4.0}),
    ("difference", {"lp_mse": 0.5}),
    ("first-only", {"lp_mse": 0.75}),
    ("both-pictures", {"kr_mse": 0.125}),
    ("true-state", {"lp_mse": (0.5, 0.1)}),
    ("copy-current-frame", {"reconstruction_mse": 1.0, "psnr": 2.0, "ssim": 3.0}),
  ]
  assert told.gains == [("A5", worse, "G action") for worse in ("A4", "AD", "AF")]
  assert table.notes == [
    "note 5",
    "note D",
    "note K",
    "true-state: the action read from the robot's own numbers by the same linear layer, not from z",
  ]
  assert list(table.details) == ["trained", "untrained", "difference", "first-only"]


def test_a_table_without_rows_of_the_state_has_no_note_of_them(told):
  told.states = False
  table = build(np.ones((2, 2, 6)))
  assert table.notes == ["note 5", "note D", "note K"] and "true-state" not in table.rows


def test_controls_need_the_pictures():
  with pytest.raises(ValueError, match="'trained'.*pictures is None"):
    build(None)
