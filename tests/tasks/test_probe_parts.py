"""The probe piece by piece: what it takes from the training run, what it measures and writes."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import report
from como_jax.evaluate import probe_table
from como_jax.tasks import probe
from como_jax.train import rng
from tests.end_to_end import program


def config_of(*words):
  return config_lib.parse(
    ["main", f"--config={program.ROOT}/configs/probe.py", "--config.checkpoint=RUN", *words]
  ).config


def test_the_way_of_a_probe(monkeypatch, tmp_path, capsys):
  """What the table is made of, over held-out and training windows, and what is written."""
  told = SimpleNamespace(windows=[], opened=[], pages=[])
  clock = iter((100.0, 112.5))
  run = {"model": {"kind": "motion"}, "data": {}}

  def init(key):
    return {
      "encoder": {"a": jax.random.normal(key, (2,))},
      "idm": {"b": jax.random.normal(key, (2,))},
    }

  model = SimpleNamespace(init=init, linear_path=None)
  trained = {"encoder": {"a": np.ones(2)}, "idm": {"b": np.full(2, 5.0)}}
  monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(probe.motion_checkpoint, "read", lambda path: (trained, run))
  monkeypatch.setattr(probe.models, "build", lambda section: model)
  monkeypatch.setattr(probe.run_data, "with_run_data", lambda config, given: config)
  sets = [
    SimpleNamespace(label="one", offset_seconds=0.5, path="/1"),
    SimpleNamespace(label="two", offset_seconds=0.25, path="/2"),
  ]

  def windows(split, *, frames, batch_size, max_windows):
    told.windows.append((split, frames, batch_size, max_windows))
    return SimpleNamespace(
      split=split,
      size={"validation": 3, "train": 7}[split],
      pictures=lambda count: f"{count} pictures",
    )

  opened = SimpleNamespace(mixture=SimpleNamespace(datasets=sets), windows=windows)
  monkeypatch.setattr(probe.motion_data, "MotionData", lambda config: opened)
  monkeypatch.setattr(
    probe.rundir, "check", lambda workdir, config, **flags: told.opened.append(("check", flags))
  )
  monkeypatch.setattr(
    probe.rundir, "open_run", lambda workdir, config, **flags: told.opened.append(("open", flags))
  )
  manifests = {
    path: {
      "action": {"names": [f"action of {path}"]},
      "state": {"names": None},
      "quarantine": [f"{path} q"],
      "skipped": [],
    }
    for path in ("/1", "/2")
  }
  monkeypatch.setattr(probe.shards, "read_manifest", manifests.get)

  class MotionEvaluator:
    def __init__(self, given):
      assert given is model

    def predict(self, params, *images):
      return float(params["idm"]["b"][0]), images

  monkeypatch.setattr(probe.motion_evaluator, "MotionEvaluator", MotionEvaluator)

  def measure(evaluator, params, held_out, fit, *, names, state_names, seed):
    values = {
      name: (float(one["idm"]["b"][0]), float(one["encoder"]["a"][0]))
      for name, one in params.items()
    }
    assert values == {"trained": (5.0, 1.0), "untrained": (other, 1.0)}, "the encoder is the same"
    assert (held_out.split, fit.split, seed) == ("validation", "train", 3)
    assert names == {"action": [["action of /1"], ["action of /2"]], "state": [None, None]}
    assert state_names == {"state_delta": "true-state-change", "state": "true-state"}
    evaluated = SimpleNamespace(
      z=np.random.default_rng(0).normal(size=(3, 4)),
      past=np.full(1, 7.0),
      future=np.full(1, 8.0),
      columns={"camera": np.arange(3)},
    )
    details = {"trained": SimpleNamespace(probes={}, s_pcfc=None, matrix=None)}
    table = probe_table.Table({"trained": {"psnr": 30.0}}, ["a note"], details)
    return SimpleNamespace(trained=evaluated, targets=[], table=table)

  monkeypatch.setattr(probe.motion_probe, "probe", measure)
  monkeypatch.setattr(
    probe.motion_checkpoint,
    "training_log",
    lambda path: SimpleNamespace(name=path, curves={}, speed={"steps": 5}, goodput={}),
  )
  monkeypatch.setattr(
    probe.probe_page, "drawings", lambda pictures, predict: (pictures, predict("first", "second"))
  )
  monkeypatch.setattr(
    probe.probe_page, "split_note", lambda data, trained_on: f"{data['threads']} of {trained_on}"
  )
  monkeypatch.setattr(probe.rundir, "versions", lambda: {"jax": "1"})
  monkeypatch.setattr(probe.rundir, "hardware", lambda: {"cores": "2"})
  monkeypatch.setattr(
    report, "write", lambda folder, page: told.pages.append(page) or folder / "PAGE.html"
  )
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
    assert sorted(arrays.files) == ["camera", "future", "past", "z"] and arrays["z"].shape == (3, 4)
  assert capsys.readouterr().out.splitlines() == [
    "probe: 3 held-out windows, 7 to fit on, one at 0.5 s, two at 0.25 s",
    "                 trained",
    "psnr             30.0000",
    "  a note",
    f"report: {tmp_path / 'PAGE.html'}",
  ]
  (page,) = told.pages
  assert (page.title, page.config) == ("Motion model: RUN", run)
  assert page.metric_notes == ["None of {}", "a note"]
  assert (page.reconstruction, page.transfer) == ("8 pictures", (5.0, ("first", "second")))
  assert (page.versions, page.hardware) == ({"jax": "1"}, {"cores": "2"})
  assert page.time == {"probe, seconds": 12.5, "training, steps": 5}
  assert page.commands[0].startswith(f"python -m como_jax.main --config={program.ROOT}/configs")
  assert page.quarantine == ["/1 q", "/2 q"]
