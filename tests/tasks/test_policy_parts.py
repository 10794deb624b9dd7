"""A policy's task piece by piece: kept tokens, and its job."""

import types

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.assembly import policy_setup
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.tasks import policy, policy_scoring
from tests.refusals import text_of


def test_tokens_are_kept_of_a_given_and_frozen_encoder_and_images_that_stay():
  model = types.SimpleNamespace(frozen=("encoder/.*",))

  def config(frozen=None, *, augmented=True):
    on = {"shift": augmented, "flip": False, "blur": augmented}
    augment = {name: {"on": value} for name, value in on.items()}
    return config_lib.ConfigDict(
      {"init": "", "train": {"frozen": frozen}, "data": {"augment": augment}}
    )

  def refused(config, start):
    return text_of(
      lambda: policy.token_cache.check("policy.cache_tokens", config, model, start)
    ).removeprefix("config.policy.cache_tokens needs ")

  start = {"encoder": {"a": np.zeros(1)}}
  policy.token_cache.check("policy.cache_tokens", config(augmented=False), model, start)
  frozen = config(("encoder/a", "x"), augmented=False)
  policy.token_cache.check("policy.cache_tokens", frozen, model, start)
  assert refused(config(), {}) == "a given encoder: set config.encoder_weights or config.init"
  assert refused(config(("x",)), start) == "a frozen encoder: leave config.train.frozen out"
  assert refused(config(), start) == (
    "images that stay as they are: switch off config.data.augment.blur.on, "
    "config.data.augment.shift.on"
  )


class Data:
  """The data of a policy, of paper."""

  mixture = types.SimpleNamespace(
    sets=[
      types.SimpleNamespace(entry=types.SimpleNamespace(path="P", labels="L")),
      types.SimpleNamespace(entry=types.SimpleNamespace(path="Q", labels="")),
    ],
    describe=lambda: ["described"],
  )

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
  """A cache of paper."""

  def __init__(self, model, start):
    assert start == {"encoder": {}}

  def fill(self, walk):
    assert walk == "WALK"
    return self

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
    (policy.token_cache, "check", lambda key, *given: told.checked.append((key, given[2:]))),
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
        "data": {"validation_fraction": fraction, "threads": 4, "shuffle_shards": 0},
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
  section = {"kind": "policy", "dtype": "bfloat16"}
  useful = {**section, "remat": "none", "attention_kernel": "xla"}
  assert made.told.built == [section, useful] and job.model is made.model
  assert job.useful_loss("P", "B", "K") == ("LOSS", ("P", "B", "K"))
  assert (
    job.loss("P", "B", "K") == ("LOSS", ("P", "B", "K"))
    and job.weights == {"action": 2.0, "latent": 0.5}
    and job.initial_params == {"encoder": {}}
  )
  assert (job.unit, job.examples_per_step, job.batch, job.data) == (
    "examples",
    8,
    {"images": 8},
    [("P", "L"), ("Q", "")],
  )
  assert job.read_options == READING and job.files == {"policy.json": "text of True"}
  held_out = ("LAYOUT", "validation", {"batch_size": 6, "max_examples": 50})
  assert made.told.evaluations == [held_out] and job.evaluate("PARAMS") == ("PARAMS", "WALK")
  assert made.told.scores == [
    ((made.model, {"arm": "UNITS"}), dict(guidance_scale=2.0, dtype="bfloat16"))
  ]
  assert job.batches(9) == "BATCHES" and made.told.batches == [BATCHES] and not made.told.checked


def test_the_job_of_a_policy_that_keeps_its_tokens_and_validates_nothing(made):
  job, said = made(fraction=0.0, cache=True)
  assert job.evaluate is None and said == ["data: described", "data: dimensions of arm, FACTS"]
  assert made.told.evaluations == [("LAYOUT", "train", {"batch_size": 6})]
  assert made.told.checked == [("policy.cache_tokens", ({"encoder": {}},))]
  assert (
    job.batches(9) == ("tokens", "BATCHES")
    and made.told.batches == [BATCHES]
    and job.batch == ("tokens", {"images": 8})
  )
