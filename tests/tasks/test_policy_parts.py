"""A policy's task piece by piece: kept tokens, where it starts, and its job."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import policy_setup, policy_start
from como_jax.data import normalization, statistics
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.tasks import policy, policy_scoring


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def of(rows):
  """Statistics of columns of numbers."""
  accumulator = statistics.Accumulator()
  accumulator.add(np.array(rows, float))
  return accumulator.finish()


def units(**robots):
  """Statistics from columns of numbers: {robot: action [N, A]}; the state has them reversed."""
  return normalization.MixtureStatistics(
    {
      name: {"action": of(rows), "state": of(np.array(rows)[:, ::-1])}
      for name, rows in robots.items()
    }
  )


def action_transforms(**robots):
  """Robot -> transforms of its actions."""
  return {
    name: parts["action"]
    for name, parts in units(**robots).normalization("standard").robots.items()
  }


T = np.arange(40.0)
MOVING, GRIPPER, STILL = np.sin(T), np.where(T % 2, 0.6, -1.0), np.full(40, 1.5)
ROWS = np.stack([MOVING, GRIPPER, STILL], 1)


def test_tokens_are_kept_of_a_given_and_frozen_encoder_and_images_that_stay():
  model = types.SimpleNamespace(frozen=("encoder/.*",))

  def config(frozen=None):
    return config_lib.ConfigDict(
      {
        "init": "",
        "train": {"frozen": frozen},
        "data": {"augment": {"shift": {"on": True}, "flip": {"on": False}, "blur": {"on": True}}},
      }
    )

  start, start_text = {"encoder": {"a": np.zeros(1)}}, "config.policy.cache_tokens needs "
  policy.token_cache.check("policy.cache_tokens", config(), model, start, ())
  policy.token_cache.check("policy.cache_tokens", config(("encoder/a", "x")), model, start, ())
  assert (
    text_of(lambda: policy.token_cache.check("policy.cache_tokens", config(), model, {}, ()))
    == start_text + "a given encoder: set config.encoder_weights or config.init"
  )
  assert (
    text_of(
      lambda: policy.token_cache.check(
        "policy.cache_tokens", config(("x",)), model, start, ("shift",)
      )
    )
    == start_text + "a frozen encoder: leave config.train.frozen out"
  )
  assert text_of(
    lambda: policy.token_cache.check(
      "policy.cache_tokens", config(), model, start, ("shift", "blur")
    )
  ) == (
    start_text
    + (
      "images that stay as they are: switch off config.data.augment.blur.on, "
      "config.data.augment.shift.on"
    )
  )


def begun(params, policy="dit"):
  """A policy to start from."""
  spec = types.SimpleNamespace(model={"policy": policy})
  return policy_start.StartingPolicy("the policy 'INIT' to start from", spec, params)


def test_where_a_policy_starts(monkeypatch, capsys):
  asked = []
  monkeypatch.setattr(
    policy_start.encoder_weights,
    "load",
    lambda path, *, model: asked.append((path, model)) or {"encoder": path},
  )
  config = config_lib.ConfigDict(
    {"encoder_weights": "", "init": "INIT", "seed": 3, "model": {"policy": "dit"}}
  )
  keys = []

  def init(key):
    keys.append(key)
    return {
      "trunk": {"a": jnp.zeros(2), "b": jnp.zeros(1)},
      "heads": {"arm": {"w": jnp.zeros(1)}, "bot": {"w": jax.random.normal(key, (2,))}},
    }

  model = types.SimpleNamespace(init=init)
  assert policy_start.parameters(config, "MODEL", None) == {"encoder": ""}
  assert capsys.readouterr().out == (
    'encoder: random; set config.encoder_weights ("bundled", a motion model or a pretrained MAE)\n'
  )
  config.encoder_weights = "bundled"
  assert (
    policy_start.parameters(config, "MODEL", None) == {"encoder": "bundled"}
    and not capsys.readouterr().out
  )
  assert asked == [("", "MODEL"), ("bundled", "MODEL")]
  before = {
    "trunk": {"a": np.ones(2, np.float32), "b": np.ones(1, np.float32)},
    "heads": {"arm": {"w": np.ones(1, np.float32)}},
  }
  found = policy_start.parameters(config, model, begun(before))
  assert capsys.readouterr().out == "new heads: bot\n" and np.asarray(
    found["trunk"]["a"]
  ).tolist() == [1, 1]
  np.testing.assert_allclose(
    found["heads"]["bot"]["w"], jax.random.normal(policy_start.rng.key(3, "init"), (2,)), rtol=1e-6
  )
  whole = {**before, "heads": {**before["heads"], "bot": {"w": np.ones(2, np.float32)}}}
  assert np.asarray(
    policy_start.parameters(config, model, begun(whole))["heads"]["bot"]["w"]
  ).tolist() == [1, 1]
  assert not capsys.readouterr().out
  assert text_of(
    lambda: policy_start.parameters(
      config, model, begun({"heads": before["heads"], "trunk": {"a": before["trunk"]["a"]}})
    )
  ) == ("the policy 'INIT' to start from has no trunk/b: its model section differs from this one's")
  many = types.SimpleNamespace(
    init=lambda key: {"t": {name: {"x": jnp.zeros(1)} for name in "abcdef"}}
  )
  assert "has no t/a, t/b, t/c, t/d: its" in text_of(
    lambda: policy_start.parameters(config, many, begun({"heads": {"x": np.zeros(1)}}))
  )
  assert text_of(
    lambda: policy_start.parameters(config, model, begun(before, policy="gpt"))
  ).startswith("the policy 'INIT' to start from is a 'gpt', this config makes a 'dit': choose")
  del asked[:]
  resumed = begun(None)
  assert policy_start.parameters(config, "MODEL", resumed) == {"encoder": "bundled"}
  assert asked == [("bundled", "MODEL")], "its checkpoint brings the weights"


class Data:
  """The data of a policy, of paper."""

  mixture = types.SimpleNamespace(
    sets=[
      types.SimpleNamespace(entry=types.SimpleNamespace(path="P", labels="L")),
      types.SimpleNamespace(entry=types.SimpleNamespace(path="Q", labels="")),
    ],
    describe=lambda: ["described"],
  )
  augment = "AUGMENT"

  def __init__(self, told):
    self._told = told

  def robots(self):
    return "FACTS"

  def choose_read_options(self, batch):
    return ("READING", batch)

  def examples(self, layout, split, **more):
    self._told.evaluations.append((layout, split, more))
    return "WALK"

  def batches(self, *records):
    self._told.batches.append(records)
    return "BATCHES"


class TokenCache:
  """A cache of paper, of five images."""

  def __init__(self, model, start):
    assert start == {"encoder": {}}

  def fill(self, walk):
    assert walk == "WALK"
    return self

  def __len__(self):
    return 5

  def over(self, batches):
    return ("tokens", batches)

  def spec(self, batch):
    return ("tokens", batch)


@pytest.fixture(name="made")
def _made(monkeypatch, capsys):
  """`policy.job` on paper: (function, what was asked)."""
  told = types.SimpleNamespace(built=[], evaluations=[], batches=[], checked=[], scores=[])
  model = types.SimpleNamespace(
    inputs_spec=lambda size: {"images": size},
    terms=("action", "latent"),
    losses=lambda *given: ("LOSS", given),
    frozen=(),
  )
  robot = types.SimpleNamespace(transforms={"action": "UNITS"})
  spec = types.SimpleNamespace(
    model={"kind": "policy", "dtype": "bfloat16"}, robots={"arm": robot}, guidance_scale=2.0
  )
  setup = policy_setup.PolicySetup(Data(told), spec, "LAYOUT", "START")
  for module, name, value in (
    (policy.models, "build", lambda section: told.built.append(section) or model),
    (policy.policy_setup, "setup", lambda config, *, resumed: setup if not resumed else None),
    (
      policy.policy_setup,
      "describe_dimensions",
      lambda facts, robots: [f"dimensions of {', '.join(robots)}, {facts}"],
    ),
    (policy.policy_start, "parameters", lambda config, given, start: {"encoder": {}}),
    (policy.policy_spec, "text", lambda given: f"text of {given is spec}"),
    (
      policy_scoring.policy_evaluator,
      "PolicyEvaluator",
      lambda *given, **more: (
        told.scores.append((given, more)) or (lambda params, walk: (params, walk))
      ),
    ),
    (policy.token_cache, "check", lambda key, *given: told.checked.append(given[2:])),
    (policy.token_cache, "TokenCache", TokenCache),
    (jax, "process_index", lambda: 1),
    (jax, "process_count", lambda: 2),
  ):
    monkeypatch.setattr(module, name, value)

  def made(*, fraction=0.25, cache=False):
    config = config_lib.ConfigDict(
      {
        "seed": 7,
        "train": {"batch_size": 8},
        "evaluation": {"batch_size": 6, "examples": 50},
        "data": {"validation_fraction": fraction, "threads": 4},
        "policy": {
          "step_seconds": 0.5,
          "cache_tokens": cache,
          "objectives": {"action": {"weight": 2}, "latent": {"weight": 0.5}},
        },
      }
    )
    command = types.SimpleNamespace(config=config, resume=False, workdir="W")
    return policy.job(command), capsys.readouterr().out.splitlines()

  made.told, made.model = told, model
  return made


READING = ("READING", {"images": 4})
BATCHES = ("LAYOUT", Batching(8, seed=7, start_step=9, process=ProcessSlice(1, 2)), READING)


def test_the_job_of_a_policy(made):
  job, said = made()
  assert said == ["data: described", "data: dimensions of arm, FACTS"]
  assert made.told.built == [{"kind": "policy", "dtype": "bfloat16"}] and job.model is made.model
  assert (
    job.loss("P", "B", "K") == ("LOSS", ("P", "B", "K"))
    and job.weights == {"action": 2.0, "latent": 0.5}
    and job.start == {"encoder": {}}
  )
  assert (job.unit, job.examples_per_step, job.batch, job.data) == (
    "examples",
    8,
    {"images": 8},
    [("P", "L"), ("Q", "")],
  )
  assert job.loading == READING and job.files == {"policy.json": "text of True"}
  held_out = ("LAYOUT", "validation", {"batch_size": 6, "max_examples": 50})
  assert made.told.evaluations == [held_out] and job.evaluate("PARAMS") == ("PARAMS", "WALK")
  assert made.told.scores == [
    ((made.model, {"arm": "UNITS"}), dict(guidance_scale=2.0, dtype="bfloat16"))
  ]
  assert job.batches(9) == "BATCHES" and made.told.batches == [BATCHES] and not made.told.checked


def test_the_job_of_a_policy_that_keeps_its_tokens_and_validates_nothing(made):
  job, said = made(fraction=0.0, cache=True)
  assert said[-1] == "image tokens: 5 images encoded, once" and job.evaluate is None
  assert made.told.evaluations == [("LAYOUT", "train", {"batch_size": 6})]
  assert made.told.checked == [({"encoder": {}}, "AUGMENT")]
  assert (
    job.batches(9) == ("tokens", "BATCHES")
    and made.told.batches == [BATCHES]
    and job.batch == ("tokens", {"images": 8})
  )
