"""What is refused before a task begins because tables, folders and the config do not go together."""

import dataclasses
from typing import Any

import pytest

from como_jax import config as config_lib
from como_jax import errors, models
from como_jax.tasks import checks, policy, sources


def refused(*words):
  with pytest.raises(errors.UserError) as caught:
    checks.check(config_lib.parse(["main", *words]).config)
  return str(caught.value)


@pytest.mark.parametrize("words, expected", [
    (["--config=motion:debug", "--config.objectives={'sparsity': {'weight': 1.0}}"], "config.objectives has no 'sparsity': valid: contrastive, features,"),
    (["--config=motion:debug", "--config.objectives={'contrastiv': {'weight': 1.0}}"], "did you mean 'contrastive'"),
    (["--config=motion:debug", "--config.objectives={'kl': {}}"], "config.objectives.kl.weight is None, expected a number"),
    (["--config=motion:debug", "--config.objectives={'kl': 0.1}"], "config.objectives.kl=0.1, expected a section"),
    (["--config=motion:debug", "--config.objectives={'contrastive': {'tempreature': 1.0}}"], "did you mean 'temperature'"),
    (["--config=motion:debug", "--config.objectives={'kl': {'weight': 0.1}}"], "it needs --config.model.bottleneck.kind=kl"),
    (["--config=motion:debug", "--config.objectives={'mae': {'weight': 0.1}}"], "a model of kind 'motion' has no such loss"),
    (["--config=motion:debug", "--config.objectives.features.weight=1"], "it needs --config.model.fdm.features=direct or residual"),
    (["--config=motion:debug", "--config.model.fdm.features=direct"], "has a loss without a weight"),
    (["--config=motion:debug", "--config.model.bottleneck.kind=vq"], "{'quantisation': {'weight': 1.0}}"),
    (["--config=motion:small,bottleneck=vq", "--config.model.bottleneck={'kind': 'continuous', 'dims': 8}"], "bottleneck.kind=vq or pre_vq"),
    (["--config=mae:debug", "--config.objectives={'contrastive': {'weight': 1.0}}"], "a model of kind 'mae' has no such loss (its own: mae)"),
    (["--config=policy:debug", "--config.policy.objectives={'actoin': {'weight': 1.0}}"], "did you mean 'action'"),
    (["--config=policy:debug", "--config.policy.objectives.action={'wieght': 1.0}"], "action.wieght; did you mean 'weight'"),
    (["--config=motion:debug", "--config.model.encoder={'kind': 'mae_vit', 'size': 'debug/8', 'epsilom': 1.0}"], "did you mean 'epsilon'"),
    (["--config=motion:debug", "--config.model.kind=mae"], "this config trains a model of kind 'motion'"),
    (["--config=compile:debug", "--config.changes=train.stesp=3"], "config.changes=train.stesp=3: config key --config.train.stesp is unknown"),
    (["--config=compile:debug", "--config.changes='x"], "config.changes='x: No closing quotation"),
    (["--config=quickstart", "--config.probe=configs/mae.py"], "is a config of task 'mae', one of task 'probe' is expected"),
    (["--config=policy:debug", "--config.data.mixture=({'path': 'bundled', 'robot': 'a'}, {'path': 'bundled', 'labels': 'no/labels'})"],
     "mixture[1]['labels']=no/labels does not exist"),
])
def test_what_does_not_go_together(words, expected):
  try:
    line = refused(*words)
  except errors.UserError as error:  # already when the line is read
    line = str(error)
  assert expected in line and "\n" not in line


def test_losses_that_go_together():
  for words in (["--config=policy:small,policy=gpt", "--config.policy.objectives={'gripper': {'weight': 0.5}}"],
                ["--config=motion:debug", "--config.model.fdm.features=direct", "--config.objectives.features.weight=1"],
                ["--config=motion:debug", "--config.model.bottleneck.kind=vq", "--config.objectives={'quantisation': {'weight': 1.0}}"],
                ["--config=motion:small,bottleneck=kl", "--config.objectives.kl.weight=0"], ["--config=motion:debug", "--config.objectives.contrastive.weight=0"]):
    checks.check(config_lib.parse(["main", *words]).config)


@dataclasses.dataclass
class Toy:
  """An encoder without keys of its own."""

  size: Any
  image_size: int
  dtype: Any
  scan: bool
  remat: str
  attention_kernel: str


def test_a_section_of_another_kind_says_how_to_give_it(monkeypatch):
  monkeypatch.setitem(models.ENCODERS, "toy", Toy)
  line = refused("--config=motion:debug", "--config.model.encoder.kind=toy")
  assert "unknown key model.encoder.epsilon; this kind has no keys of its own; for another kind give the section whole: --config.model.encoder=" in line
  checks.check(config_lib.parse(["main", "--config=motion:debug", "--config.model.encoder={'kind': 'toy', 'size': 'debug/8'}"]).config)


@pytest.mark.parametrize("path, expected, never", [
    ("videso", "did you mean 'videos'? (valid: bundled, videos)", ".git"), ("zzz", "valid: bundled, videos", "notes"),
    ("lerobot/pusht", "data sets of a hub are not downloaded: give a local folder", "valid"), ("./videso", "./videos", ".git"), ("", "does not exist", ".git")])
def test_a_data_path_that_is_not_there(tmp_path, monkeypatch, path, expected, never):
  monkeypatch.chdir(tmp_path)
  for name in (".git", "notes", "videos"):
    (tmp_path / name).mkdir()
  (tmp_path / "videos" / "a.MP4").write_bytes(b"")
  (tmp_path / ".git" / "a.mp4").write_bytes(b"")
  with pytest.raises(errors.UserError) as caught:
    sources.resolve(path)
  assert expected in str(caught.value) and never not in str(caught.value)


def test_all_inputs_are_looked_for_before_the_first_is_worked_on(tmp_path, monkeypatch):
  monkeypatch.setattr(sources.ingest, "ensure_shards", lambda *a, **k: pytest.fail("converted"))
  config = config_lib.parse(["main", "--config=motion:debug", f"--config.data.mixture=({{'path': 'bundled'}}, {{'path': '{tmp_path}/no'}})"]).config
  for function in (sources.data_sets, checks.check):
    with pytest.raises(errors.UserError, match="/no"):
      function(config)


@pytest.mark.parametrize("variant, key", [("probe", "checkpoint"), ("policy:debug", "init"), ("motion:debug", "encoder_weights"), ("policy:debug", "language.weights"),
                                          ("policy:debug", "data.labels"), ("motion:debug", "objectives.perceptual.weights_path")])
def test_missing_inputs_are_named_with_their_key(tmp_path, variant, key):
  (tmp_path / "run1").mkdir()
  assert refused(f"--config={variant}", f"--config.{key}={tmp_path}/rum1") == f"config.{key}={tmp_path}/rum1 does not exist: did you mean '{tmp_path}/run1'?"


def test_a_policy_to_start_from_of_another_kind_says_what_to_choose():
  config = config_lib.parse(["main", "--config=policy:small"]).config
  with pytest.raises(errors.UserError, match="is a 'gpt', this config makes a 'dit'.*policy.py:small,policy=gpt"):
    policy.starting_point(config, None, ({}, {"model": {"policy": "gpt"}}))
