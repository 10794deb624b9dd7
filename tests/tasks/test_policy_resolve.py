"""What a policy's config comes down to once its data were looked at; data and the policy to start
from are of paper.
"""

from types import SimpleNamespace

import pytest

from como_jax import config as config_lib
from como_jax.data import policy_layout
from como_jax.tasks import policy
from tests.tasks.test_policy import TINY
from tests.tasks.test_policy_parts import ROWS, text_of, units

ARM = {
  "action": 3,
  "state": 3,
  "action_names": ["x", "grip"],
  "state_names": [],
  "step_seconds": 0.1,
  "cameras": ["front"],
  "unused_cameras": [],
  "instructions": {"count": 1, "empty": False, "examples": ["go"]},
}


@pytest.fixture(name="resolve")
def _resolve(monkeypatch):
  """`policy.resolve` on paper: (function, what there is)."""
  there = SimpleNamespace(
    robots={"arm": ARM},
    label=None,
    cameras=("front", "side"),
    resize="squash",
    start=None,
    found=units(arm=ROWS),
    asked=[],
  )
  d = policy.policy_data
  monkeypatch.setattr(d, "sets", lambda config: ["SET"])
  for name in ("resize", "label_facts"):
    monkeypatch.setattr(
      d, name, lambda sets, name=name: getattr(there, name.removesuffix("_facts"))
    )
  monkeypatch.setattr(d, "robots", lambda config, sets: there.robots)
  monkeypatch.setattr(d, "cameras", lambda config, sets: there.cameras)
  monkeypatch.setattr(
    d, "instructions", lambda config, sets: (SimpleNamespace(width=8, tokens=5), {"go": "EMBEDDED"})
  )
  monkeypatch.setattr(
    policy.checkpoint, "load", lambda path: there.asked.append(path) or there.start
  )
  monkeypatch.setattr(
    policy.serving,
    "check",
    lambda config, name: there.asked.append((config is there.start[1], name)),
  )
  monkeypatch.setattr(
    policy.policy_pipeline,
    "statistics",
    lambda sets, **more: there.asked.append(more) or there.found,
  )

  def resolve(*words, kind="dit"):
    del there.asked[:]
    config = config_lib.parse(
      [
        "main",
        f"--config=configs/policy.py:debug,policy={kind}",
        *[word for word in TINY if kind == "dit" or "model.dit" not in word],
        *words,
      ]
    ).config
    before = config_lib.to_json(config)
    found = policy.resolve(config)
    assert config_lib.to_json(config) == before, "the given one is left alone"
    return found

  resolve.there = there
  return resolve


def test_what_follows_from_the_data(resolve):
  config, ready = resolve("--config.policy.step_seconds=0.25", "--config.policy.reduce=mean")
  assert resolve.there.asked == [
    dict(
      mode=config.policy.normalization, step_seconds=0.25, reduce="mean", validation_fraction=0.3
    )
  ]
  assert (
    config.robots.to_dict() == {"arm": ARM}
    and tuple(config.policy.cameras) == ("front", "side")
    and config.policy.resize == "squash"
  )
  assert (config.policy.latent_model, config.policy.latent_offset_seconds) == ("", 0.0)
  model = config.model
  assert (
    model.robots.to_dict() == {"arm": {"action": 3, "state": 3}}
    and model.num_cameras == 2
    and (model.language.width, model.language.num_tokens) == (8, 5)
  )
  assert (
    ready.sets == ["SET"]
    and ready.start is None
    and config.normalization.to_dict() == ready.layout.normalizer.to_json()
    and ready.layout.normalizer.grippers("arm") == (1,)
  )
  assert ready.layout == policy_layout.Layout(
    normalizer=ready.layout.normalizer,
    language={"go": "EMBEDDED"},
    robots={"arm": (3, 3)},
    cameras=2,
    history=2,
    step_seconds=0.25,
    chunk=3,
    reduce="mean",
    latent_chunk=model.latent.motion_horizon,
    latent_size=model.latent.num_queries * model.latent.latent_dim,
    image_size=32,
  )
  assert config.is_locked
  resolve.there.label = {
    "queries": 6,
    "dims": 7,
    "latent_model": "aa",
    "latent_offset_seconds": 0.5,
  }
  resolve.there.robots = {"b": ARM, "a": ARM}
  resolve.there.found = units(a=ROWS, b=ROWS)
  config, ready = resolve("--config.policy.gripper=()")
  assert (
    config.model.latent.num_queries,
    config.model.latent.latent_dim,
    config.policy.latent_model,
    config.policy.latent_offset_seconds,
  ) == (6, 7, "aa", 0.5)
  assert (
    ready.layout.latent_size == 42
    and list(config.robots) == list(config.model.robots) == ["a", "b"]
    and ready.layout.normalizer.grippers("a") == ()
  )


def started(**changes):
  """A policy to start from: (parameters, config)."""
  robots = {
    "arm": {key: value for key, value in ARM.items() if key != "cameras"},
    "old": {**ARM, "action": 2, "state": 2},
  }
  return {}, {
    "robots": robots,
    "policy": {
      "cameras": ["front"],
      "resize": "squash",
      "latent_model": "aa",
      "latent_offset_seconds": 0.5,
    },
    "model": {"policy": "dit", "latent": {"num_queries": 3, "latent_dim": 2, "motion_horizon": 99}},
    "normalization": units(arm=ROWS * 2, old=ROWS[:, :2]).to_json(),
    **changes,
  }


def test_a_policy_goes_on_in_its_own_units(resolve):
  there = resolve.there
  there.start = started()
  there.robots, there.found = {"arm": ARM, "new": ARM}, units(arm=ROWS, new=ROWS)
  config, ready = resolve(
    "--config.init=INIT", "--config.policy.gripper=()", "--config.policy.normalization=quantile"
  )
  assert there.asked[:2] == ["INIT", (True, "'INIT'")] and ready.start is there.start
  assert list(config.robots) == ["arm", "new", "old"] and list(config.robots.old.cameras) == [
    "front"
  ]
  normalizer = ready.layout.normalizer
  assert normalizer.mode == "standard" and normalizer.robots["arm"]["action"].std[
    0
  ] == pytest.approx(2 * normalizer.robots["new"]["action"].std[0])
  assert (
    normalizer.latent is None
    and normalizer.grippers("arm") == (1,)
    and normalizer.grippers("new") == ()
  ), "those of the policy stay"
  assert (
    config.model.latent.num_queries,
    config.model.latent.latent_dim,
    config.policy.latent_model,
  ) == (3, 2, "aa") and config.model.latent.motion_horizon != 99
  latent = units(x=ROWS).robots["x"]["action"]
  there.found = policy.dataclasses.replace(there.found, latent=latent)
  assert resolve("--config.init=INIT")[1].layout.normalizer.latent is latent
  there.start = started(
    normalization={
      **there.start[1]["normalization"],
      "latent": units(x=ROWS * 3).robots["x"]["action"].to_json(),
    }
  )
  assert resolve("--config.init=INIT")[1].layout.normalizer.latent.std[0] == pytest.approx(
    3 * latent.std[0]
  )
  for key, value in (("action", 2), ("state", 2), ("step_seconds", 0.2)):
    there.robots = {"arm": {**ARM, key: value}}
    assert text_of(lambda: resolve("--config.init=INIT")) == (
      f"robot 'arm': {key} is {value} here and {ARM[key]} in the policy 'INIT' to start from; "
      "give it another name to get a new head"
    )


def test_what_does_not_go_with_the_model(resolve):
  assert (
    text_of(lambda: resolve("--config.data.image_size=64"))
    == "config.data.image_size=64 is not config.model.image_size=32"
  )
  gpt = [
    f"--config.model.gpt.{word}" for word in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")
  ]
  assert text_of(lambda: resolve("--config.policy.guidance_scale=2.0", *gpt, kind="gpt")) == (
    "config.policy.guidance_scale=2.0: only policy=dit can be guided, policy=gpt takes 1"
  )
  assert resolve("--config.policy.guidance_scale=2.0")[0].policy.guidance_scale == 2
  config, _ = resolve(*gpt, kind="gpt")
  assert config.model.gpt.gripper.to_dict() == {"arm": [1]} and config.policy.guidance_scale == 1
  resolve.there.start = started()
  resolve.there.resize = "crop"
  assert "ingest them in the same way" in text_of(lambda: resolve("--config.init=INIT"))


def test_the_directory_is_looked_at_before_the_data(monkeypatch, tmp_path):
  told = []
  monkeypatch.setattr(
    policy.rundir, "check", lambda workdir, config, **flags: told.append((workdir, flags))
  )
  monkeypatch.setattr(
    policy, "resolve", lambda config: told.append("resolve") or ("RESOLVED", "READY")
  )
  monkeypatch.setattr(
    policy.training, "fit", lambda command, make: (command.config, command.workdir, make())
  )
  monkeypatch.setattr(policy, "job", lambda *given: given)
  command = config_lib.parse(["main", "--config=policy:debug", f"--workdir={tmp_path}", "--resume"])
  assert policy.run(command) == ("RESOLVED", tmp_path, ("RESOLVED", "READY"))
  assert told == [(tmp_path, dict(resume=True, overwrite=False)), "resolve"]
  del told[:]
  monkeypatch.setattr(policy.distributed, "is_primary", lambda: False)
  policy.run(command)
  assert told == ["resolve"]
