"""What the probe of a motion model measures, and the latents it keeps."""

from types import SimpleNamespace

import numpy as np

from como_jax.inference import motion_probe


def test_names_of_dimensions_are_those_of_each_data_set():
  def facts(names, size=1):
    return {"names": names, "size": size}

  manifests = [
    {"action": facts(["x"]), "state": facts(["s"])},
    {"action": facts(None, None), "state": facts(None, None)},
  ]
  assert motion_probe.label_names(manifests) == {"action": [["x"], None], "state": [["s"], None]}


def test_both_models_on_the_held_out_windows_and_on_those_to_fit_on(monkeypatch):
  measured = []

  class Evaluator:
    def __call__(self, params, windows, *, pictures=False):
      measured.append(("all", params, windows.name, pictures))
      return SimpleNamespace(z=params, columns={"camera": np.arange(2)})

    def labels(self, params, windows):
      measured.append(("labels", dict(params), windows.name))
      return SimpleNamespace(columns={"camera": np.zeros(3)})

  def build_target(name, fit, held_out, *, names, datasets):
    assert (len(fit["camera"]), len(held_out["camera"])) == (3, 2)
    assert (names, datasets) == ("NAMES", ["A", "B"])
    return f"TARGET {name}"

  def build_table(evaluations, fitted, targets, windows, *, state_names, seed):
    assert {name: one.z for name, one in evaluations.items()} == {
      "trained": "TRAINED",
      "untrained": "UNTRAINED",
    }
    assert (len(fitted.columns["camera"]), windows.name) == (3, "held out")
    assert (targets, state_names, seed) == (["TARGET action", "TARGET state"], "STATES", 3)
    return "TABLE"

  monkeypatch.setattr(motion_probe.probe_targets, "build", build_target)
  monkeypatch.setattr(motion_probe.probe_table, "build", build_table)
  held_out, fit = (
    SimpleNamespace(name=name, datasets=["A", "B"]) for name in ("held out", "to fit on")
  )
  params = {"trained": "TRAINED", "untrained": "UNTRAINED"}
  found = motion_probe.probe(
    Evaluator(), params, held_out, fit, names="NAMES", state_names="STATES", seed=3
  )
  assert measured == [
    ("all", "TRAINED", "held out", True),
    ("all", "UNTRAINED", "held out", False),
    ("labels", params, "to fit on"),
  ]
  assert (found.trained.z, found.table) == ("TRAINED", "TABLE")
  assert found.targets == ["TARGET action", "TARGET state"]


def test_latents_are_written_with_the_columns_of_their_windows(tmp_path):
  evaluated = SimpleNamespace(
    z=np.full(2, 5.0),
    past=np.full(1, 7.0),
    future=np.full(1, 8.0),
    columns={"camera": np.arange(2)},
  )
  motion_probe.save_latents(tmp_path / "z.npz", evaluated)
  with np.load(tmp_path / "z.npz") as arrays:
    assert {name: arrays[name].tolist() for name in arrays.files} == {
      "z": [5.0, 5.0],
      "past": [7.0],
      "future": [8.0],
      "camera": [0, 1],
    }
