"""The probe piece by piece: what it takes from the training run, notes, the table, and the page."""

import json
import types
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.inference import motion_evaluator
from como_jax.tasks import probe, probe_rows, probe_targets
from como_jax.train import rng
from tests.end_to_end import program

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


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def test_only_motion_models_are_probed(monkeypatch):
  assert (
    text_of(lambda: probe.load(""))
    == "config.checkpoint is empty: give the run directory or weights folder of a motion model"
  )
  for config, kind in (
    ({"model": {"kind": "mae"}}, "mae"),
    ({"kind": "encoder"}, "encoder"),
    ({}, "unknown"),
    ({"model": {}, "kind": "x"}, "x"),
  ):
    monkeypatch.setattr(probe.checkpoint, "load", lambda path, config=config: ({}, config))
    assert (
      text_of(lambda: probe.load("C"))
      == f"checkpoint 'C' holds a model of kind {kind!r}, a motion model is expected"
    )
  good = ({"a": 1}, {"model": {"kind": "motion"}})
  monkeypatch.setattr(probe.checkpoint, "load", lambda path: good)
  assert probe.load("C") == good


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
  config = config_lib.ConfigDict({"data": {**section, **change, "frames": 3}})
  note = probe.split_note(config, {"data": section})
  assert note.startswith(start) and note.endswith(" Episodes of the same motion stand on one side.")


def test_the_table_on_the_terminal(capsys):
  probe.show(
    {
      "trained": {"lp_mse": (0.25, 0.0125), "psnr": 30.0},
      "untrained": {"lp_mse": (0.75, None), "rank": 2.0},
    },
    ["a note", "another"],
  )
  assert capsys.readouterr().out == (
    "                   trained           untrained\n"
    "lp_mse     0.2500 ± 0.0125              0.7500\n"
    "psnr               30.0000                    \n"
    "rank                                    2.0000\n"
    "  a note\n  another\n"
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
  has, found = probe._colorings(targets_of(), 3)
  assert list(found) == ["action: p", "action: q", "action: r", "action: s"] and has.tolist() == [
    0,
    1,
    2,
  ]
  for d, values in enumerate(found.values()):
    np.testing.assert_array_equal(values, columns()["action"][:, 1, d])
  assert list(probe._colorings(targets_of(action=False), 3)[1]) == ["state: x", "state: y"]
  nothing, found = probe._colorings(targets_of(action=False, state=False), 3)
  assert nothing.tolist() == [0, 1, 2] and found == {}


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
  monkeypatch.setattr(probe, "split_note", lambda config, run: "SPLIT")
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
  measure = types.SimpleNamespace(predict=lambda params, *images: ("predicted", params, images))
  result = types.SimpleNamespace(
    names=["x", "y"],
    true=np.array([[np.nan, 1], [2, 3], [4, 5]]),
    predicted=-np.arange(6).reshape(3, 2),
    r2_by_dimension=np.array([0.5, 0.25]),
  )
  measured = {
    "trained": types.SimpleNamespace(
      z=np.random.default_rng(0).normal(size=(3, 4)), columns=columns()
    )
  }
  targets = targets_of()[:1]
  results = {
    name: {
      "s_pcfc": types.SimpleNamespace(values=name),
      "probes": {"action": result} if name == "trained" else {},
      "notes": ["n"],
      "targets": targets,
      "similarity": types.SimpleNamespace(values="V", labels="L") if name == "trained" else None,
    }
    for name in ("trained", "untrained")
  }
  command = types.SimpleNamespace(words=("--config=a b",))
  sets = [types.SimpleNamespace(path="one"), types.SimpleNamespace(path="two")]

  def page(checkpoint="run/weights", *, drop=()):
    for key in drop:
      results["trained"][key] = {} if key == "probes" else None
      targets.clear()
    config = config_lib.ConfigDict({"checkpoint": str(tmp_path / checkpoint), "pictures": 5})
    return probe.page_data(
      command,
      config,
      {"a": 1},
      measure,
      "PARAMS",
      measured,
      {"row": 1},
      results,
      windows,
      sets,
      12.345,
    ), frames

  page.run = run
  return page


def test_everything_that_the_page_shows(page):
  found, frames = page()
  assert (
    found.title == "Motion model: run"
    and found.metrics == {"row": 1}
    and found.metric_notes == ["SPLIT", "n"]
  )
  assert found.curves == {"loss": ([1], [2.0]), "validation/psnr": ([2], [20.0])}
  assert found.reconstruction.captions == ["reach, a", "e1, b", "push, a"]
  np.testing.assert_array_equal(found.reconstruction.current, frames[:, 1])
  np.testing.assert_array_equal(found.reconstruction.target, frames[:, 2])
  word, params, images = found.reconstruction.predicted
  assert (word, params, len(images)) == ("predicted", "PARAMS", 2) and (
    images[1] == frames[:, 2]
  ).all()
  assert found.transfer.captions == ["reach, a → push, a", "e1, b → reach, a", "push, a → e1, b"]
  np.testing.assert_array_equal(found.transfer.b_current, frames[[2, 0, 1], 1])
  _, _, images = found.transfer.b_predicted
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
    "a": 1
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
  found, _ = page("run", drop=("probes", "similarity"))
  assert (
    found.title == "Motion model: run"
    and found.probes == {}
    and found.pca is None
    and found.similarity is None
  )
  assert found.time == {"probe, seconds": 12.3, "training, steps": 5, "training, seconds": 2.0}


def measured_of(**changes):
  z = np.random.default_rng(1).normal(size=(12, 2))
  found = {
    **{name: np.zeros(12, int) for name in ("group", "task", "camera", "episode")},
    "time": np.arange(12),
    "stride": np.ones(12, int),
    "has_action": np.zeros(12, bool),
    "has_state": np.zeros(12, bool),
    **changes,
  }
  frames = types.SimpleNamespace(
    ratio=1.0, moving_ratio=2.0, mse=3.0, psnr=4.0, ssim=5.0, text="FRAMES"
  )
  return motion_evaluator.MotionEvaluation(z=z, past=z, future=z, frames=frames, columns=found), (
    z,
    found,
  )


def score(one, fit, windows):
  targets = [
    probe_targets.build(name, fit[1], one.columns, names={}, datasets=["videos"])
    for name in ("action", "state")
  ]
  return probe_rows.score(one, fit[0], windows, targets, seed=0)


@pytest.mark.parametrize(
  "episodes, cameras, tasks, keys",
  [
    (5, 2, 1, {"camera_excess", "appearance_contrast"}),
    (4, 2, 1, {"appearance_contrast"}),
    (5, 1, 2, set()),
  ],
)
def test_what_is_compared_hangs_on_cameras_tasks_and_episodes(episodes, cameras, tasks, keys):
  number = np.arange(12)
  one, fit = measured_of(group=number % episodes, camera=number // 6 % cameras, task=number % tasks)
  windows = types.SimpleNamespace(tasks=["", "push"], cameras=["front", "side"])
  row, results = score(one, fit, windows)
  assert set(row) & {"camera_excess", "retrieval", "motion_contrast", "appearance_contrast"} == keys
  assert [
    row[key] for key in ("copy_ratio", "copy_ratio_moving", "reconstruction_mse", "psnr", "ssim")
  ] == [1.0, 2.0, 3.0, 4.0, 5.0]
  assert results["notes"][0] == "FRAMES" and results["notes"][2:4] == [
    "the data has no action: no probe of it",
    "the data has no state: no probe of it",
  ]
  assert (results["similarity"] is not None) == (cameras > 1 or tasks > 1)
  if results["similarity"] is not None:
    names = ["clip", "push"][:tasks]
    assert results["similarity"].labels == tuple(
      f"{name} | {camera}" for name in names for camera in ["front", "side"][:cameras]
    )


def test_more_groups_than_a_picture_holds_are_not_drawn():
  for count, drawn in ((40, True), (41, False)):
    z = np.random.default_rng(0).normal(size=(count, 2))
    found = {
      **{name: np.zeros(count, int) for name in ("group", "camera", "episode", "time")},
      "stride": np.ones(count, int),
      "task": np.arange(count),
      "has_action": np.zeros(count, bool),
      "has_state": np.zeros(count, bool),
    }
    one = motion_evaluator.MotionEvaluation(
      z=z, past=z, future=z, frames=measured_of()[0].frames, columns=found
    )
    windows = types.SimpleNamespace(tasks=[f"t{i}" for i in range(count)], cameras=["front"])
    _, results = score(one, (z, found), windows)
    assert (results["similarity"] is not None) is drawn


def test_the_way_of_a_probe(monkeypatch, tmp_path, capsys):
  """Two models over held-out and training windows, the row of the trained one beside the untrained
  one's, and what is written.
  """
  told, clock = (
    SimpleNamespace(windows=[], measured=[], scored=[], opened=[], pages=[], gains=[]),
    iter((100.0, 112.5)),
  )
  run = {"model": {"kind": "motion"}, "data": {}}

  def init(key):
    return {
      "encoder": {"a": jax.random.normal(key, (2,))},
      "idm": {"b": jax.random.normal(key, (2,))},
    }

  model = SimpleNamespace(init=init, components=None)
  trained = {"encoder": {"a": np.ones(2)}, "idm": {"b": np.full(2, 5.0)}}
  monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(probe, "load", lambda path: (trained, run))
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
      frames = SimpleNamespace(copy_mse=1.0, copy_psnr=2.0, copy_ssim=3.0)
      told.measured.append(
        (
          "all",
          float(params["idm"]["b"][0]),
          float(params["encoder"]["a"][0]),
          windows.split,
          pictures,
        )
      )
      return SimpleNamespace(
        pictures=np.full(2, float(pictures)),
        z=np.full(2, params["idm"]["b"][0]),
        past=np.full(1, 7.0),
        future=np.full(1, 8.0),
        columns={"camera": np.arange(2)},
        frames=frames,
      )

    def labels(self, params, windows):
      found = {name: float(of["idm"]["b"][0]) for name, of in params.items()}
      told.measured.append(
        ("labels", found, {float(of["encoder"]["a"][0]) for of in params.values()}, windows.split)
      )
      return SimpleNamespace(
        z={name: np.full(3, value) for name, value in found.items()},
        columns={"camera": np.zeros(3)},
        pictures=np.full(3, 0.5),
      )

  monkeypatch.setattr(probe.motion_evaluator, "MotionEvaluator", MotionEvaluator)

  def build(name, fit, held_out, *, names, datasets):
    assert (len(fit["camera"]), len(held_out["camera"]), names, datasets) == (
      3,
      2,
      "NAMES",
      ["A", "B"],
    )
    return SimpleNamespace(name=name, robots=["R"] if name == "action" else [], groups=f"G {name}")

  monkeypatch.setattr(probe.probe_targets, "build", build)

  def own(target, fit, held_out, *, seed):
    return (
      {"true-state": {"lp_mse": (0.5, 0.1)}}
      if (target.name, len(fit["camera"]), len(held_out["camera"]), seed) == ("action", 3, 2, 3)
      else None
    )

  monkeypatch.setattr(probe.probe_rows, "state_rows", own)

  def score(one, fitted, windows, targets, *, seed):
    fitted = float(fitted[0])
    told.scored.append(
      (float(one.z[0]), fitted, windows.split, [target.name for target in targets], seed)
    )
    return {"psnr": float(one.z[0])}, {
      "probes": {"action": f"A{fitted:g}"},
      "notes": [f"note {fitted:g}"],
    }

  monkeypatch.setattr(probe.probe_rows, "score", score)

  def difference(fit, one, targets, *, seed):
    assert (len(fit.pictures), one.pictures.tolist(), len(targets), seed) == (3, [1, 1], 2, 3)
    return np.full(5, 6.0), {"lp_mse": 0.5}, {"probes": {"action": "AD"}, "notes": ["note D"]}

  monkeypatch.setattr(probe.probe_controls, "difference", difference)
  monkeypatch.setattr(
    probe.probe_controls,
    "one_picture",
    lambda fit, one, targets, *, seed: {
      "first-only": ({"lp_mse": float(len(targets) + seed)}, {"probes": {"action": "AF"}})
    },
  )

  def strong(latent, pictures, targets, cameras, *, seed):
    told.strong = {name: values.tolist() for name, values in latent.items()}
    assert (pictures.tolist(), cameras.tolist(), len(targets), seed) == (
      [0.5, 0.5, 0.5, 1, 1],
      [0, 0, 0, 0, 1],
      2,
      3,
    )
    return {"trained": {"kr_mse": 0.25}, "both-pictures": {"kr_mse": 0.125}}, ["note K"]

  monkeypatch.setattr(probe.probe_controls, "strong", strong)
  monkeypatch.setattr(
    probe.probes, "gain", lambda *given: told.gains.append(given) or (float(len(told.gains)), 0.5)
  )
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
  assert probe.run(command) == 0
  assert told.opened == [(name, dict(resume=False, overwrite=True)) for name in ("check", "open")]
  assert told.windows == [("validation", 3, 8, 50), ("train", 3, 8, 60)]
  other = float(jax.random.normal(rng.key(3, "untrained"), (2,))[0])
  other = pytest.approx(other)
  assert told.measured == [
    ("all", 5.0, 1.0, "validation", True),
    ("all", other, 1.0, "validation", False),
    ("labels", {"trained": 5.0, "untrained": other}, {1.0}, "train"),
  ], "the encoder is the same"
  assert told.scored == [
    (value, value, "validation", ["action", "state"], 3) for value in (5.0, other)
  ]
  text = (tmp_path / probe.METRICS).read_text()
  found = json.loads(text)
  assert text == json.dumps(found, indent=2) and list(found["rows"]) == [
    "trained",
    "untrained",
    "difference",
    "first-only",
    "both-pictures",
    "true-state",
    "copy-current-frame",
  ]
  assert told.strong == {
    "trained": [5.0] * 5,
    "untrained": [other] * 5,
    "difference": [6.0] * 5,
  } and found["rows"]["both-pictures"] == {"kr_mse": 0.125}
  assert found["rows"]["first-only"] == {"lp_mse": 5.0}
  assert found["rows"]["trained"] == {
    "psnr": 5.0,
    "kr_mse": 0.25,
    "lp_gain": [1.0, 0.5],
    "lp_gain_difference": [2.0, 0.5],
    "lp_gain_first": [3.0, 0.5],
  }
  assert told.gains == [
    ("A5", f"A{told.scored[1][1]:g}", "G action"),
    ("A5", "AD", "G action"),
    ("A5", "AF", "G action"),
  ]
  assert found["rows"]["untrained"] == {"psnr": other}
  assert found["rows"]["copy-current-frame"] == {
    "reconstruction_mse": 1.0,
    "psnr": 2.0,
    "ssim": 3.0,
  }
  assert {
    key: found[key]
    for key in ("checkpoint", "data", "windows", "offset_seconds", "notes", "seconds")
  } == dict(
    checkpoint="RUN",
    data=["one", "two"],
    windows=3,
    offset_seconds=[0.5, 0.25],
    seconds=12.5,
    notes=[
      "note 5",
      "note D",
      "note K",
      (
        "true-state: the action read from the robot's own numbers by the same linear layer, not "
        "from z"
      ),
    ],
  )
  with np.load(tmp_path / "latents.npz") as arrays:
    assert {name: arrays[name].tolist() for name in arrays.files} == {
      "z": [5.0, 5.0],
      "past": [7.0],
      "future": [8.0],
      "camera": [0, 1],
    }
  out = capsys.readouterr().out.splitlines()
  assert (
    out[0] == "probe: 3 held-out windows, 7 to fit on, one at 0.5 s, two at 0.25 s"
    and out[-1] == f"report: {tmp_path / 'PAGE.html'}"
  )
  assert (
    out[-5:-2] == ["  note 5", "  note D", "  note K"]
    and told.pages[0][-1] == 12.5
    and told.pages[0][4]["idm"]["b"].tolist() == [5.0, 5.0]
  )
