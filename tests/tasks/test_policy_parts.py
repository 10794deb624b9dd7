"""A policy's task piece by piece: two-valued actions, what is said and refused, the job, and how a
policy is scored.
"""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import normalization, statistics
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.data.read_options import ReadOptions
from como_jax.inference import policy_evaluator
from como_jax.tasks import policy


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def units(**robots):
  """A normalization from columns of numbers: {robot: action [N, A]}."""

  def of(rows):
    accumulator = statistics.Accumulator()
    accumulator.add(np.array(rows, float))
    return accumulator.finish()

  return normalization.Normalizer(
    "standard",
    {
      name: {"action": of(rows), "state": of(np.array(rows)[:, ::-1])}
      for name, rows in robots.items()
    },
  )


T = np.arange(40.0)
MOVING, GRIPPER, STILL = np.sin(T), np.where(T % 2, 0.6, -1.0), np.full(40, 1.5)
ROWS = np.stack([MOVING, GRIPPER, STILL], 1)
FACTS = {"action": 3, "action_names": ["x", "grip"], "state_names": ["s0"]}


def test_two_valued_actions_by_name_by_number_or_as_found():
  found = units(arm=ROWS, bot=ROWS)
  robots = {"arm": FACTS, "bot": {**FACTS, "action_names": []}}

  def grippers(wanted, **more):
    return {
      name: policy.with_grippers(found, robots, wanted, **more).grippers(name)
      for name in ("arm", "bot")
    }

  assert policy.with_grippers(found, robots, ("auto",)) is found and grippers(("auto",)) == {
    "arm": (1,),
    "bot": (1,),
  }
  assert (
    grippers(()) == {"arm": (), "bot": ()}
    and grippers(("grip",)) == {"arm": (1,), "bot": ()}
    and grippers(("1",)) == {"arm": (1,), "bot": (1,)}
  )
  assert grippers((), kept=("bot",)) == {"arm": (), "bot": (1,)} and grippers((1,)) == {
    "arm": (1,),
    "bot": (1,),
  }
  assert text_of(lambda: grippers(("grap",))) == (
    "config.policy.gripper: no robot has an action 'grap': did you mean 'grip'? (valid: 0, 1, "
    "2, grip, x)"
  )
  assert text_of(lambda: grippers(("grip",), kept=("arm",))).startswith(
    "config.policy.gripper: no robot has an action 'grip'"
  )
  assert text_of(lambda: grippers(("x",))) == (
    "config.policy.gripper: action 'x' of robot 'arm' has more values than two, from "
    f"{MOVING.min():.6g} to {MOVING.max():.6g}: leave it out"
  )
  changed = policy.with_grippers(found, robots, ("grip",))
  assert changed.robots["arm"]["state"] is found.robots["arm"]["state"] and found.grippers(
    "bot"
  ) == (1,), "the given one is left alone"


def test_gpt_classifies_the_grippers_that_it_does_not_denoise():
  def model(head="regression", given=None):
    return config_lib.ConfigDict(
      {"robots": {"arm": {}, "bot": {}}, "gpt": {"action_head": head, "gripper": given or {}}}
    )

  found = units(arm=ROWS, bot=ROWS[:, :1])
  for head, expected in (("regression", {"arm": [1]}), ("diffusion", {})):
    one = model(head)
    with one.ignore_type():
      policy.set_grippers(one, found)
    assert one.gpt.gripper.to_dict() == expected
  assert text_of(lambda: policy.set_grippers(model(given={"arm": [0]}), found)) == (
    "config.model.gpt.gripper is filled from the data: name the dimensions in config.policy.gripper"
  )


def test_what_is_said_of_dimensions():
  found = units(arm=ROWS, bot=np.stack([STILL, STILL, GRIPPER], 1))
  assert policy.say_dimensions(
    {"bot": {"action_names": [], "state_names": []}, "arm": FACTS}, found
  ) == [
    "robot arm: action grip takes two values, -1 and 0.6: it is served as one of them",
    "robot arm: action action 2 never moves: it is served as its constant 1.5",
    "robot arm: state s0 never moves: the policy does not see it",
    "robot bot: action action 2 takes two values, -1 and 0.6: it is served as one of them",
    "robot bot: action action 0 never moves: it is served as its constant 1.5",
    "robot bot: action action 1 never moves: it is served as its constant 1.5",
    "robot bot: state state 1, state 2 never moves: the policy does not see it",
  ]
  assert (
    policy.say_dimensions({"arm": FACTS}, units(arm=np.stack([MOVING, MOVING, MOVING], 1))) == []
  )


def test_a_policy_to_start_from_had_frames_and_labels_of_the_same_kind():
  def check(before, resize="squash", label=None):
    return policy.check_start("INIT", before, resize=resize, label=label)

  assert check({}, "crop") is check({"other": 1}) is check({"resize": "crop"}, "crop") is None
  assert text_of(lambda: check({"resize": "crop"})) == (
    "the data were ingested with resize='squash', those of the policy 'INIT' to start from with "
    "'crop': ingest them in the same way"
  )
  assert text_of(lambda: check({"other": 1}, "pad")).endswith(
    "with 'squash': ingest them in the same way"
  )
  label = {"latent_model": "aa", "latent_offset_seconds": 0.5}
  assert (
    check({"latent_model": "", "latent_offset_seconds": 0.0}, label=label)
    is check({"x": 1}, label=label)
    is check({**label}, label=label)
    is None
  )
  assert check({"latent_model": "bb"}) is None, "no labels now"
  assert text_of(lambda: check({**label, "latent_offset_seconds": 0.25}, label=label)) == (
    "latent_offset_seconds of the labels is 0.5, of the policy 'INIT' to start from 0.25: its "
    "latent head speaks another language; extract the labels with its motion model and offset"
  )
  assert text_of(lambda: check({"latent_model": "bb"}, label=label)).startswith(
    "latent_model of the labels is 'aa', of the policy 'INIT' to start from 'bb'"
  )


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


def test_where_a_policy_starts(monkeypatch, capsys):
  asked = []
  monkeypatch.setattr(
    policy.training,
    "encoder_weights",
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
  assert policy.starting_point(config, "MODEL", None) == {"encoder": ""}
  assert capsys.readouterr().out == (
    'encoder: random; set config.encoder_weights ("bundled", a motion model or a pretrained MAE)\n'
  )
  config.encoder_weights = "bundled"
  assert (
    policy.starting_point(config, "MODEL", None) == {"encoder": "bundled"}
    and not capsys.readouterr().out
  )
  assert asked == [("", "MODEL"), ("bundled", "MODEL")]
  before = {
    "trunk": {"a": np.ones(2, np.float32), "b": np.ones(1, np.float32)},
    "heads": {"arm": {"w": np.ones(1, np.float32)}},
  }
  found = policy.starting_point(config, model, (before, {"model": {"policy": "dit"}}))
  assert capsys.readouterr().out == "new heads: bot\n" and np.asarray(
    found["trunk"]["a"]
  ).tolist() == [1, 1]
  np.testing.assert_allclose(
    found["heads"]["bot"]["w"], jax.random.normal(policy.rng.key(3, "init"), (2,)), rtol=1e-6
  )
  whole = {**before, "heads": {**before["heads"], "bot": {"w": np.ones(2, np.float32)}}}
  assert np.asarray(
    policy.starting_point(config, model, (whole, {"model": {"policy": "dit"}}))["heads"]["bot"]["w"]
  ).tolist() == [1, 1]
  assert not capsys.readouterr().out
  assert text_of(
    lambda: policy.starting_point(
      config,
      model,
      (
        {"heads": before["heads"], "trunk": {"a": before["trunk"]["a"]}},
        {"model": {"policy": "dit"}},
      ),
    )
  ) == ("the policy 'INIT' to start from has no trunk/b: its model section differs from this one's")
  many = types.SimpleNamespace(
    init=lambda key: {"t": {name: {"x": jnp.zeros(1)} for name in "abcdef"}}
  )
  assert "has no t/a, t/b, t/c, t/d: its" in text_of(
    lambda: policy.starting_point(
      config, many, ({"heads": {"x": np.zeros(1)}}, {"model": {"policy": "dit"}})
    )
  )


@pytest.fixture(name="made")
def _made(monkeypatch, capsys):
  """`policy.job` on paper: (function, what was asked)."""
  told = types.SimpleNamespace(built=[], evaluations=[], batches=[], filled=[], scores=[])
  terms = {
    "inputs_spec": lambda size: {"images": size},
    "terms": ("action", "latent"),
    "losses": lambda *given: ("LOSS", given),
    "frozen": (),
  }
  model = types.SimpleNamespace(**terms)
  monkeypatch.setattr(policy.models, "build", lambda section: told.built.append(section) or model)
  monkeypatch.setattr(
    policy,
    "starting_point",
    lambda config, given, start: {"encoder": {}} if given is model else None,
  )
  monkeypatch.setattr(
    policy.policy_pipeline, "describe", lambda sets, **more: [f"{len(sets)} sets, {more}"]
  )
  monkeypatch.setattr(
    policy.policy_pipeline,
    "evaluation",
    lambda sets, *records, **more: told.evaluations.append((*records, more)) or "WALK",
  )
  monkeypatch.setattr(
    policy.policy_pipeline,
    "build",
    lambda sets, *records: told.batches.append(records) or "BATCHES",
  )
  monkeypatch.setattr(policy.policy_spec, "text", lambda spec: f"text of {spec}")
  monkeypatch.setattr(policy.policy_data, "unused_cameras", lambda one, slots: one.unused[slots:])
  monkeypatch.setattr(
    policy, "say_dimensions", lambda robots, found: [f"dimensions of {', '.join(robots)}"]
  )
  monkeypatch.setattr(
    policy.motion_data,
    "choose_read_options",
    lambda section, paths, spec: types.SimpleNamespace(
      workers=1, threads=2, prefetch=3, chosen=(paths, spec)
    ),
  )
  monkeypatch.setattr(policy.motion_data, "augmentation", lambda section: "AUGMENT")
  monkeypatch.setattr(policy.read_options, "reading_threads", lambda threads: ("reading", threads))
  monkeypatch.setattr(
    policy.policy_evaluator,
    "PolicyEvaluator",
    lambda *given, **more: (
      told.scores.append((given, more)) or (lambda params, walk: (params, walk))
    ),
  )
  monkeypatch.setattr(
    policy.token_cache, "check", lambda key, *given: told.filled.append(given[2:])
  )

  class TokenCache:
    def __init__(self, given, start):
      assert given is model and start == {"encoder": {}}

    def fill(self, walk):
      told.filled.append(walk)
      return self

    def __len__(self):
      return 5

    def over(self, batches):
      return ("tokens", batches)

    def spec(self, batch):
      return ("tokens", batch)

  monkeypatch.setattr(policy.token_cache, "TokenCache", TokenCache)
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  sets = [
    types.SimpleNamespace(label="mine", path="P", labels="L", unused=("l", "r", "top", "far")),
    types.SimpleNamespace(label="other", path="Q", labels="", unused=()),
  ]
  ready = policy.ResolvedPolicyData(sets, LAYOUT, None, "SPEC")

  def made(*, fraction=0.25, cache=False):
    config = config_lib.ConfigDict(
      {
        "seed": 7,
        "train": {"batch_size": 8},
        "evaluation": {"batch_size": 6, "examples": 50},
        "robots": {"arm": {}},
        "model": {"num_cameras": 2, "dtype": "bfloat16"},
        "data": {"validation_fraction": fraction, "threads": 4},
        "policy": {
          "cameras": ("a", "b"),
          "guidance_scale": 2,
          "cache_tokens": cache,
          "objectives": {"action": {"weight": 2}, "latent": {"weight": 0.5}},
        },
      }
    )
    return policy.job(config, ready), capsys.readouterr().out.splitlines()

  made.told, made.model = told, model
  return made


LAYOUT = types.SimpleNamespace(normalizer="UNITS")
FIXED = ReadOptions(threads=("reading", 4))
BATCHES = (
  LAYOUT,
  Batching(8, seed=7, start_step=9, process=ProcessSlice(1, 2)),
  Split("train", 0.25),
  types.SimpleNamespace(workers=1, threads=2, prefetch=3, chosen=(["P", "Q"], {"images": 4})),
  "AUGMENT",
)


def test_the_job_of_a_policy(made):
  job, said = made()
  assert said == [
    "data: 2 sets, {'validation_fraction': 0.25, 'cameras': 2}",
    (
      "data: mine: cameras top, far are not used, the policy's slots are a, b: name them in "
      "config.policy.cameras"
    ),
    "data: dimensions of arm",
  ]
  assert made.told.built == [{"num_cameras": 2, "dtype": "bfloat16"}] and job.model is made.model
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
  assert job.loading.chosen == (["P", "Q"], {"images": 4})
  assert job.files == {"policy.json": "text of SPEC"}
  held_out = (LAYOUT, Batching(6), Split("validation", 0.25), FIXED, {"max_examples": 50})
  assert made.told.evaluations == [held_out] and job.evaluate("PARAMS") == ("PARAMS", "WALK")
  assert made.told.scores == [((made.model, "UNITS"), dict(guidance_scale=2.0, dtype="bfloat16"))]
  assert job.batches(9) == "BATCHES" and made.told.batches == [BATCHES] and not made.told.filled


def test_the_job_of_a_policy_that_keeps_its_tokens_and_validates_nothing(made):
  job, said = made(fraction=0.0, cache=True)
  assert said[-1] == "image tokens: 5 images encoded, once" and job.evaluate is None
  assert made.told.evaluations == [(LAYOUT, Batching(6), Split("train", 0.0), FIXED, {})]
  assert made.told.filled == [({"encoder": {}}, "AUGMENT"), "WALK"]
  assert (
    job.batches(9) == ("tokens", "BATCHES")
    and made.told.batches == [(*BATCHES[:2], Split("train", 0.0), *BATCHES[3:])]
    and job.batch == ("tokens", {"images": 8})
  )


def test_what_a_score_asks_of_the_model(monkeypatch):
  """Two batches of two robots; each example is asked of its own robot with a key of its batch,
  without its targets.
  """
  asked = []
  spec = {"images": 0, "more": 0, "actions": 0, "latents": 0}

  def sample(params, seen, key, *, robot, guidance_scale, num_sampling_steps=None):
    asked.append((params, sorted(seen), robot, num_sampling_steps, guidance_scale))
    return jnp.broadcast_to(jax.random.uniform(key), (3, 2, {"arm": 3, "bot": 1}[robot]))

  def sample_latents(params, seen, key, *, num_sampling_steps=None):
    asked.append((sorted(seen), num_sampling_steps))
    return jnp.broadcast_to(jax.random.uniform(key), (3, 2, 4))

  model = types.SimpleNamespace(
    robots=("arm", "bot"),
    inputs_spec=lambda size: spec,
    sample=sample,
    sample_latents=sample_latents,
  )
  batch = {
    "images": np.zeros((3, 1)),
    "actions": np.zeros((3, 2, 3), np.float32),
    "latents": np.zeros((3, 2, 4), np.float32),
    "actions_mask": np.ones((3, 2, 3), bool),
    "latents_mask": np.array([[True, False], [True, True], [True, True]]),
    "valid": np.array([True, True, False]),
    "robot": np.array([0, 1, 0]),
  }
  held_out = types.SimpleNamespace(
    steps=2, batches=lambda: contextlib.nullcontext(iter([batch, batch]))
  )
  monkeypatch.setattr(
    policy.serving,
    "cast_kernels",
    lambda params, dtype: jnp.float32(7) if (params, dtype) == ("PARAMS", "bfloat16") else None,
  )
  moving = np.stack([MOVING] * 3, 1)
  found = policy_evaluator.PolicyEvaluator(
    model, units(arm=moving, bot=moving[:, :1]), guidance_scale=2.0, dtype="bfloat16"
  )("PARAMS", held_out)
  first, second = (float(jax.random.uniform(policy.rng.key(0, "score", step))) for step in (0, 1))
  # Of each batch 6 numbers of one example and 2 of the other, all off by the key's number.
  mean = (first**2 + second**2) / 2
  assert found == {
    "action_mse": pytest.approx(mean),
    "action_mse_first": pytest.approx(mean),
    "latent_mse": pytest.approx(mean),
  }
  assert [one[1:] for one in asked if len(one) == 5] == [
    (["images"], robot, None, 2.0) for robot in ("arm", "bot")
  ], "traced once a robot"
  assert [one for one in asked if len(one) == 2] == [(["images"], None)]


def test_the_common_value_of_a_gripper_in_all_batches():
  """The gripper is high in 1 of 4 elements, then in 3 of 4: over both batches neither value is the
  common one.
  """
  target = np.zeros((2, 2, 3), np.float32)
  batches = []
  for highs in (1, 3):
    one = target.copy()
    one[..., 1] = np.where(np.arange(4).reshape(2, 2) < highs, 1, -1)
    batches.append(
      {
        "actions": one,
        "actions_mask": np.ones((2, 2, 3), bool),
        "latents_mask": np.zeros((2, 2), bool),
        "valid": np.ones(2, bool),
        "robot": np.zeros(2, int),
      }
    )
  said = np.ones((2, 2, 3), np.float32)
  model = types.SimpleNamespace(
    robots=("arm",),
    inputs_spec=lambda size: batches[0],
    sample=lambda params, seen, key, *, guidance_scale, **more: jnp.asarray(said) * guidance_scale,
  )
  held_out = types.SimpleNamespace(steps=2, batches=lambda: contextlib.nullcontext(iter(batches)))
  found = policy_evaluator.PolicyEvaluator(model, units(arm=ROWS))({}, held_out)
  assert found == {
    "action_mse": 1.0,
    "action_mse_first": 1.0,
    "gripper_accuracy": 0.5,
    "gripper_majority": 0.5,
  }
