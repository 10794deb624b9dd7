"""The probe piece by piece: what it takes from the training run, notes, the table, and the page."""

import json
import types
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.evaluate import probe_rows, probe_table
from como_jax.tasks import probe
from como_jax.train import rng
from tests.end_to_end import program
from tests.report.test_probe_page import targets_of

TRAINED = {
  "path": "trained",
  "mixture": [],
  "offset_seconds": 0.25,
  "validation_fraction": 0.5,
  "image_size": 99,
  "unknown": 1,
  "frames": 7,
}


def config_of(*words):
  return config_lib.parse(
    ["main", f"--config={program.ROOT}/configs/probe.py", "--config.checkpoint=RUN", *words]
  ).config


def test_what_the_probe_leaves_open_is_that_of_the_training(capsys):
  run = {"model": {"image_size": 48}, "data": TRAINED}
  section = probe.with_run_data(config_of(), run).data
  assert (
    section.path,
    section.offset_seconds,
    section.validation_fraction,
    section.image_size,
    section.frames,
  ) == ("trained", 0.25, 0.5, 48, 7)
  assert "unknown" not in section and not capsys.readouterr().out
  given = config_of("--config.data.validation_fraction=0.125", "--config.data.path=trained")
  found = probe.with_run_data(
    given, {**run, "data": {**TRAINED, "mixture": [{"path": "trained", "offset_seconds": 0.75}]}}
  ).data
  assert (found.validation_fraction, found.offset_seconds, tuple(found.mixture)) == (
    0.125,
    0.75,
    (),
  )
  assert (
    capsys.readouterr().out
    == "probe: trained: offset 0.75 s (as the model was trained on this data set)\n"
  )
  assert given.data.offset_seconds is None, "the config itself is left alone"


def test_names_of_dimensions_are_those_of_each_data_set(monkeypatch):
  def facts(names, size=1):
    return {"names": names, "size": size}

  manifests = {
    "a": {"action": facts(["x"]), "state": facts(["s"])},
    "videos": {"action": facts(None, None), "state": facts(None, None)},
  }
  monkeypatch.setattr(probe.shards, "read_manifest", lambda path: manifests[path])
  sets = [types.SimpleNamespace(path=path) for path in ("a", "videos")]
  assert probe.label_names(sets) == {"action": [["x"], None], "state": [["s"], None]}


@pytest.fixture(name="page")
def _page(tmp_path, monkeypatch):
  """`page_data` of three windows on paper."""
  monkeypatch.setattr(
    probe.shards,
    "read_manifest",
    lambda path: {"quarantine": [f"{path} q"], "skipped": [f"{path} s"]},
  )
  monkeypatch.setattr(probe.rundir, "versions", lambda: {"jax": "1"})
  monkeypatch.setattr(probe.rundir, "hardware", lambda: {"cores": "2"})
  monkeypatch.setattr(
    probe.probe_page, "split_note", lambda data, trained_on: f"{dict(data)} of {trained_on}"
  )
  run = tmp_path / "run"
  (run / "weights").mkdir(parents=True)
  lines = [
    {"step": 1, "kind": "train", "loss": 2.0},
    {"step": 2, "kind": "validation", "psnr": 20.0},
  ]
  (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  frames = np.arange(3 * 3).reshape(3, 3, 1, 1, 1).astype(np.uint8) * np.ones(
    (1, 1, 2, 2, 3), np.uint8
  )
  shown = {
    "frames": frames,
    "task": ["reach", "", "push"],
    "episode": ["e0", "e1", "e2"],
    "camera": ["a", "b", "a"],
  }
  windows = types.SimpleNamespace(pictures=lambda count: shown if count == 5 else None)
  result = types.SimpleNamespace(
    names=["x", "y"],
    true=np.array([[np.nan, 1], [2, 3], [4, 5]]),
    predicted=-np.arange(6).reshape(3, 2),
    r2_by_dimension=np.array([0.5, 0.25]),
  )
  z = np.random.default_rng(0).normal(size=(3, 4))
  sets = [types.SimpleNamespace(path="one"), types.SimpleNamespace(path="two")]

  def details(name, probes=None, matrix=None):
    pcfc = types.SimpleNamespace(values=name) if "trained" in name else None
    return probe_rows.Details(probes or {}, ["n"], pcfc, matrix)

  def page(checkpoint="run/weights", *, empty=False):
    matrix = None if empty else types.SimpleNamespace(values="V", labels="L")
    table = probe_table.Table(
      {"row": 1},
      ["n"],
      {
        "trained": details("trained", {} if empty else {"action": result}, matrix),
        "untrained": details("untrained"),
        "difference": details("difference"),
      },
    )
    probed = probe.Probed(
      config=config_lib.ConfigDict(
        {"checkpoint": str(tmp_path / checkpoint), "pictures": 5, "data": {"path": "own"}}
      ),
      run_config={"a": 1, "data": "trained on"},
      sets=sets,
      windows=windows,
      trained=types.SimpleNamespace(z=z),
      targets=[] if empty else targets_of()[:1],
      table=table,
      seconds=12.345,
    )
    command = types.SimpleNamespace(words=("--config=a b",))
    return probe.page_data(command, probed, lambda *images: ("predicted", images)), frames

  page.run = run
  return page


def test_everything_that_the_page_shows(page):
  found, frames = page()
  assert (
    found.title == "Motion model: run"
    and found.metrics == {"row": 1}
    and found.metric_notes == ["{'path': 'own'} of trained on", "n"]
  )
  assert found.curves == {"loss": ([1], [2.0]), "validation/psnr": ([2], [20.0])}
  assert found.reconstruction.captions == ["reach, a", "e1, b", "push, a"]
  np.testing.assert_array_equal(found.reconstruction.current, frames[:, 1])
  np.testing.assert_array_equal(found.reconstruction.target, frames[:, 2])
  word, images = found.reconstruction.predicted
  assert (word, len(images)) == ("predicted", 2) and (images[1] == frames[:, 2]).all()
  assert found.transfer.captions == ["reach, a → push, a", "e1, b → reach, a", "push, a → e1, b"]
  np.testing.assert_array_equal(found.transfer.b_current, frames[[2, 0, 1], 1])
  _, images = found.transfer.b_predicted
  assert (
    len(images) == 3
    and (images[0] == frames[:, 1]).all()
    and (images[1] == frames[:, 2]).all()
    and (images[2] == frames[[2, 0, 1], 1]).all()
  )
  assert found.s_pcfc == {"trained": "trained", "untrained": "untrained"} and list(
    found.probes
  ) == ["action: x", "action: y"]
  scatter = found.probes["action: y"]
  assert found.probes["action: x"].true.tolist() == [2, 4] and found.probes[
    "action: x"
  ].predicted.tolist() == [-2, -4], "of the robot that has it"
  assert (
    scatter.true.tolist() == [1, 3, 5]
    and scatter.predicted.tolist() == [-1, -3, -5]
    and scatter.r2 == 0.25
  )
  assert set(found.pca.colors) == {
    "action: p",
    "action: q",
    "action: r",
    "action: s",
  } and found.pca.colors["action: q"].tolist() == [5, 13, 21]
  assert found.pca.points.shape == (3, 2) and all(
    isinstance(one, float) for one in found.pca.explained
  )
  assert (found.similarity.values, found.similarity.labels) == ("V", "L") and found.config == {
    "a": 1,
    "data": "trained on",
  }
  assert (found.versions, found.hardware, found.time) == (
    {"jax": "1"},
    {"cores": "2"},
    {"probe, seconds": 12.3},
  )
  assert found.commands == ["python -m como_jax.main '--config=a b'"] and found.quarantine == [
    "one q",
    "one s",
    "two q",
    "two s",
  ]


def test_the_page_of_a_run_directory_without_probes(page):
  (page.run / "speed.json").write_text('{"steps": 5, "seconds": 2.0}')
  found, _ = page("run", empty=True)
  assert (
    found.title == "Motion model: run"
    and found.probes == {}
    and found.pca is None
    and found.similarity is None
  )
  assert found.time == {"probe, seconds": 12.3, "training, steps": 5, "training, seconds": 2.0}


def test_the_way_of_a_probe(monkeypatch, tmp_path, capsys):
  """What the table is made of, over held-out and training windows, and what is written."""
  told = SimpleNamespace(windows=[], measured=[], opened=[], pages=[])
  clock = iter((100.0, 112.5))
  run = {"model": {"kind": "motion"}, "data": {}}

  def init(key):
    return {
      "encoder": {"a": jax.random.normal(key, (2,))},
      "idm": {"b": jax.random.normal(key, (2,))},
    }

  model = SimpleNamespace(init=init, components=None)
  trained = {"encoder": {"a": np.ones(2)}, "idm": {"b": np.full(2, 5.0)}}
  monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(probe.motion_checkpoint, "read", lambda path: (trained, run))
  monkeypatch.setattr(probe.models, "build", lambda section: model)
  monkeypatch.setattr(probe, "with_run_data", lambda config, given: config)
  sets = [
    SimpleNamespace(label="one", offset_seconds=0.5),
    SimpleNamespace(label="two", offset_seconds=0.25),
  ]

  def windows(split, *, frames, batch_size, max_windows):
    told.windows.append((split, frames, batch_size, max_windows))
    return SimpleNamespace(
      split=split, size={"validation": 3, "train": 7}[split], datasets=["A", "B"]
    )

  opened = SimpleNamespace(mixture=SimpleNamespace(datasets=sets), windows=windows)
  monkeypatch.setattr(probe.motion_data, "MotionData", lambda config: opened)
  monkeypatch.setattr(
    probe.rundir, "check", lambda workdir, config, **flags: told.opened.append(("check", flags))
  )
  monkeypatch.setattr(
    probe.rundir, "open_run", lambda workdir, config, **flags: told.opened.append(("open", flags))
  )
  monkeypatch.setattr(probe, "label_names", lambda given: "NAMES")

  class MotionEvaluator:
    def __init__(self, given):
      assert given is model

    def __call__(self, params, windows, *, pictures=False):
      idm, encoder = float(params["idm"]["b"][0]), float(params["encoder"]["a"][0])
      told.measured.append(("all", idm, encoder, windows.split, pictures))
      return SimpleNamespace(
        z=np.full(2, idm),
        past=np.full(1, 7.0),
        future=np.full(1, 8.0),
        columns={"camera": np.arange(2)},
      )

    def labels(self, params, windows):
      found = {name: float(of["idm"]["b"][0]) for name, of in params.items()}
      told.measured.append(
        ("labels", found, {float(of["encoder"]["a"][0]) for of in params.values()}, windows.split)
      )
      return SimpleNamespace(columns={"camera": np.zeros(3)})

    def predict(self, params, *images):
      return float(params["idm"]["b"][0]), images

  monkeypatch.setattr(probe.motion_evaluator, "MotionEvaluator", MotionEvaluator)

  def build_target(name, fit, held_out, *, names, datasets):
    assert (len(fit["camera"]), len(held_out["camera"])) == (3, 2)
    assert (names, datasets) == ("NAMES", ["A", "B"])
    return f"TARGET {name}"

  monkeypatch.setattr(probe.probe_targets, "build", build_target)

  def build_table(evaluations, fitted, targets, windows, *, state_names, seed):
    assert {name: float(one.z[0]) for name, one in evaluations.items()} == {
      "trained": 5.0,
      "untrained": other,
    }
    assert (len(fitted.columns["camera"]), windows.split, seed) == (3, "validation", 3)
    assert targets == ["TARGET action", "TARGET state"]
    assert state_names == {"state_delta": "true-state-change", "state": "true-state"}
    return probe_table.Table({"trained": {"psnr": 30.0}}, ["a note"], {})

  monkeypatch.setattr(probe.probe_table, "build", build_table)
  monkeypatch.setattr(probe, "page_data", lambda *given: told.pages.append(given) or "PAGE")
  monkeypatch.setattr(probe.report, "write", lambda folder, page: folder / f"{page}.html")
  command = config_lib.parse(
    [
      "main",
      f"--config={program.ROOT}/configs/probe.py",
      f"--workdir={tmp_path}",
      "--config.checkpoint=RUN",
      "--config.seed=3",
      "--config.batch_size=8",
      "--config.windows=50",
      "--config.fit_windows=60",
      "--overwrite",
    ]
  )
  other = pytest.approx(float(jax.random.normal(rng.key(3, "untrained"), (2,))[0]))
  assert probe.run(command) == 0
  assert told.opened == [(name, dict(resume=False, overwrite=True)) for name in ("check", "open")]
  assert told.windows == [("validation", 3, 8, 50), ("train", 3, 8, 60)]
  assert told.measured == [
    ("all", 5.0, 1.0, "validation", True),
    ("all", other, 1.0, "validation", False),
    ("labels", {"trained": 5.0, "untrained": other}, {1.0}, "train"),
  ], "the encoder is the same"
  text = (tmp_path / probe.METRICS).read_text()
  found = json.loads(text)
  assert text == json.dumps(found, indent=2)
  assert found == dict(
    checkpoint="RUN",
    data=["one", "two"],
    windows=3,
    offset_seconds=[0.5, 0.25],
    rows={"trained": {"psnr": 30.0}},
    notes=["a note"],
    seconds=12.5,
  )
  with np.load(tmp_path / probe.LATENTS) as arrays:
    assert {name: arrays[name].tolist() for name in arrays.files} == {
      "z": [5.0, 5.0],
      "past": [7.0],
      "future": [8.0],
      "camera": [0, 1],
    }
  assert capsys.readouterr().out.splitlines() == [
    "probe: 3 held-out windows, 7 to fit on, one at 0.5 s, two at 0.25 s",
    "                 trained",
    "psnr             30.0000",
    "  a note",
    f"report: {tmp_path / 'PAGE.html'}",
  ]
  ((given, probed, predict),) = told.pages
  assert given is command and (probed.seconds, probed.run_config, probed.sets) == (12.5, run, sets)
  assert probed.trained.z.tolist() == [5.0, 5.0] and probed.windows.split == "validation"
  assert predict("first", "second") == (5.0, ("first", "second"))
