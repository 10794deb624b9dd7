"""What a policy's config comes to once its data were read; data and the policy to start from are
of paper.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.assembly import policy_setup
from como_jax.data import policy_facts, policy_spec
from como_jax.data.policy_layout import Layout
from tests.assembly.starting import ARM, started
from tests.refusals import text_of
from tests.tasks.columns import GRIPPER, MOVING, ROWS, STILL, of, units
from tests.tasks.small_policy import TINY

LATENT = policy_facts.LatentMotion("aa", 0.5, num_queries=6, latent_dim=7)


class Mixture:
  """The data of a policy, of paper; `asked` counts how often statistics were asked for."""

  def __init__(self):
    self.facts, self.latent, self.size = {"arm": ARM}, None, "squash"
    self.slots, self.numbers, self.asked = ("front", "side"), units(arm=ROWS), 0
    self.mixture, self.encode = self, SimpleNamespace(width=8, num_tokens=5)
    self.language = {"": "E", "go": "E"}

  def robots(self):
    return self.facts

  def latent_motion(self):
    return self.latent

  def resize(self):
    return self.size

  def statistics(self):
    self.asked += 1
    return self.numbers


@pytest.fixture(name="mixture")
def _mixture(monkeypatch):
  mixture = Mixture()
  monkeypatch.setattr(policy_setup.policy_data, "PolicyData", lambda config: mixture)
  return mixture


def config(*words, kind="dit"):
  return config_lib.parse(
    [
      "main",
      f"--config=configs/policy.py:debug,policy={kind}",
      *[word for word in TINY if kind == "dit" or "model.dit" not in word],
      *words,
    ]
  ).config


def setup(*words, kind="dit", resumed=None):
  given = config(*words, kind=kind)
  before = config_lib.to_json(given)
  found = policy_setup.setup(given, resumed)
  assert config_lib.to_json(given) == before, "the config is never changed"
  return found


def test_what_follows_from_the_data(mixture):
  found = setup("--config.policy.step_seconds=0.25", "--config.policy.reduce=last")
  spec, model = found.spec, found.spec.model
  action, state = mixture.numbers.robots["arm"]["action"], mixture.numbers.robots["arm"]["state"]
  assert spec.robots == {
    "arm": policy_spec.RobotSpec(
      action=3,
      state=3,
      action_names=("x", "grip", "y"),
      cameras=("front",),
      unused_cameras=("top",),
      step_seconds=0.1,
      reduce="last",
      instructions=ARM.instructions,
      transforms={"action": action.transforms(snap=True), "state": state.transforms()},
    )
  }
  assert (spec.resize, spec.guidance_scale, spec.latent) == ("squash", 1.0, None)
  assert (
    model["robots"] == {"arm": {"action": 3, "state": 3}}
    and model["num_cameras"] == 2
    and (model["language"]["width"], model["language"]["num_tokens"]) == (8, 5)
  )
  assert found.data is mixture and found.start is None
  latent = model["latent"]
  assert found.layout == Layout(
    normalization=spec.normalization,
    language={"": "E", "go": "E"},
    robots={"arm": (3, 3)},
    num_cameras=2,
    history=2,
    step_seconds=0.25,
    action_horizon=3,
    reduce="last",
    motion_horizon=latent["motion_horizon"],
    latent_size=latent["num_queries"] * latent["latent_dim"],
    image_size=32,
  )


def test_labels_decide_the_size_of_the_latent_motion(mixture):
  mixture.latent, mixture.facts = LATENT, {"b": ARM, "a": ARM}
  mixture.numbers = dataclasses.replace(units(a=ROWS, b=ROWS), latent=of(ROWS))
  found = setup("--config.policy.gripper=()", "--config.policy.normalization=quantile")
  latent = found.spec.model["latent"]
  assert (latent["num_queries"], latent["latent_dim"], found.layout.latent_size) == (6, 7, 42)
  transforms = of(ROWS).transforms("quantile")
  assert found.spec.latent == policy_spec.LatentMotionSpec("aa", 0.5, transforms)
  # examples number the robots by name
  assert list(found.spec.robots) == list(found.spec.model["robots"]) == ["a", "b"]
  assert found.spec.robots["a"].two_valued == ()


def test_a_policy_goes_on_in_its_own_units(mixture, monkeypatch):
  start = started()
  monkeypatch.setattr(
    policy_setup.policy_start, "load", lambda init: start if init == "INIT" else None
  )
  mixture.facts, mixture.numbers = {"arm": ARM, "new": ARM}, units(arm=ROWS, new=ROWS)
  words = (
    "--config.init=INIT",
    "--config.policy.gripper=()",
    "--config.policy.normalization=quantile",
  )
  found = setup(*words)
  robots = found.spec.robots
  assert found.start is start and list(robots) == ["arm", "new", "old"]
  assert robots["arm"].transforms == start.spec.robots["arm"].transforms
  # it is served with what it is trained on now
  assert robots["arm"].cameras == ("front",) and robots["arm"].instructions == ARM.instructions
  assert robots["old"] == start.spec.robots["old"]
  new = mixture.numbers.robots["new"]["state"].transforms("quantile")
  assert robots["new"].transforms["state"] == new, "a new head has the units of the config"
  assert robots["arm"].two_valued == (1,) and robots["new"].two_valued == (), "of new heads alone"
  latent = found.spec.model["latent"]
  assert (latent["num_queries"], latent["latent_dim"]) == (3, 2)
  assert latent["motion_horizon"] != 99 and found.spec.latent is start.spec.latent
  mixture.latent = LATENT
  start = started(latent=None)
  mixture.numbers = dataclasses.replace(mixture.numbers, latent=of(ROWS))
  assert setup(*words).spec.latent.latent_model == "aa", "it had no labels before"


def resumed_run(cameras=("front",), num_cameras=2):
  start = started()
  arm = dataclasses.replace(start.spec.robots["arm"], cameras=cameras)
  return started(
    robots={**start.spec.robots, "arm": arm}, model={**start.spec.model, "num_cameras": num_cameras}
  )


def test_a_resumed_run_keeps_its_cameras(mixture):
  del mixture
  assert text_of(lambda: setup(resumed=resumed_run(num_cameras=3))).startswith(
    "--resume: config.policy.cameras and the data give 2 camera slots, the policy 'INIT'"
  )
  assert text_of(lambda: setup(resumed=resumed_run(cameras=("side",)))).startswith(
    "--resume: the cameras of robot 'arm' are front here and side in the policy 'INIT'"
  )
  setup(resumed=resumed_run(cameras=()))  # an older version did not say which


def test_a_resumed_run_keeps_its_units_and_reads_no_statistics(mixture):
  before, mixture.numbers = resumed_run(), None
  found = setup("--config.policy.gripper=('x',)", resumed=before)
  assert not mixture.asked and found.start is before
  assert found.spec.robots["arm"].transforms == before.spec.robots["arm"].transforms
  assert found.spec.latent is before.spec.latent


GPT = [
  f"--config.model.gpt.{word}" for word in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")
]


def test_what_does_not_go_with_the_model(mixture):
  assert (
    text_of(lambda: setup("--config.data.image_size=64"))
    == "config.data.image_size=64 is not config.model.image_size=32"
  )
  assert text_of(lambda: setup("--config.policy.guidance_scale=2.0", *GPT, kind="gpt")) == (
    "config.policy.guidance_scale=2.0: only policy=dit can be guided, policy=gpt takes 1"
  )
  assert setup("--config.policy.guidance_scale=2.0").spec.guidance_scale == 2


def test_gpt_classifies_the_grippers_that_it_does_not_denoise(mixture):
  def gripper(*words):
    return setup(*GPT, *words, kind="gpt").spec.model["gpt"]["gripper"]

  assert gripper() == {"arm": [1]}
  assert gripper("--config.model.gpt.action_head=diffusion") == {}
  assert text_of(lambda: gripper("--config.model.gpt.gripper={'arm': (0,)}")) == (
    "config.model.gpt.gripper is filled from the data: name the dimensions in config.policy.gripper"
  )


def test_names_of_grippers_are_those_of_actions_whether_or_not_a_robot_is_new(mixture):
  del mixture
  line = (
    "config.policy.gripper: no robot has an action 'grap': did you mean 'grip'? (valid: 0, 1, "
    "2, grip, x, y)"
  )
  given = "--config.policy.gripper=('grip', 'grap')"
  for before in (None, resumed_run()):
    assert text_of(lambda before=before: setup(given, resumed=before)) == line
  robots = {"arm": ARM, "bot": dataclasses.replace(ARM, action_names=())}
  for names in (("auto",), (), ("grip", "2"), (1,)):
    policy_setup.check_gripper(robots, names)
  assert text_of(lambda: policy_setup.check_gripper({"bot": robots["bot"]}, ("grip",))).startswith(
    "config.policy.gripper: no robot has an action 'grip'"
  )


def test_two_valued_actions_by_name_by_number_or_as_found():
  numbers = units(arm=ROWS, bot=ROWS)
  robots = {"arm": ARM, "bot": dataclasses.replace(ARM, action_names=())}

  def grippers(*names, of=robots):
    found = policy_setup.with_grippers(numbers, of, names).robots
    return {
      name: np.flatnonzero(found[name]["action"].two_valued).tolist() for name in ("arm", "bot")
    }

  assert policy_setup.with_grippers(numbers, robots, ("auto",)) is numbers
  assert grippers("auto") == {"arm": [1], "bot": [1]}
  assert grippers() == {"arm": [], "bot": []}
  assert grippers("grip") == {"arm": [1], "bot": []}
  assert grippers("1") == grippers(1) == {"arm": [1], "bot": [1]}
  assert grippers(of={"arm": ARM}) == {"arm": [], "bot": [1]}, "of the robots that are new"
  assert text_of(lambda: grippers("x")) == (
    "config.policy.gripper: action 'x' of robot 'arm' has more values than two, from "
    f"{MOVING.min():.6g} to {MOVING.max():.6g}: leave it out"
  )
  changed = policy_setup.with_grippers(numbers, robots, ("grip",))
  assert changed.robots["arm"]["state"] is numbers.robots["arm"]["state"]
  assert numbers.robots["bot"]["action"].two_valued.tolist() == [False, True, False]


def test_every_term_of_the_loss_has_its_weight():
  sections = {"action": {"weight": 1}, "latent": {"weight": 0.5}, "gripper": {"weight": 2.0}}
  config = config_lib.ConfigDict({"policy": {"objectives": sections}})
  model = SimpleNamespace(terms=("action", "latent"))
  assert policy_setup.loss_weights(config, model) == {"action": 1.0, "latent": 0.5}


def test_what_is_said_of_dimensions():
  def said(state_names=("s0",), **rows):
    numbers = units(**rows).normalization("standard")
    names = policy_spec.action_names
    facts = {
      name: dataclasses.replace(ARM, state_names=state_names if name == "arm" else ())
      for name in rows
    }
    robots = {
      name: SimpleNamespace(
        transforms=numbers.robots[name],
        action_names=("x", "grip", "action 2") if name == "arm" else names((), 3),
      )
      for name in rows
    }
    return policy_setup.describe_dimensions(facts, robots)

  assert said(bot=np.stack([STILL, STILL, GRIPPER], 1), arm=ROWS) == [
    "robot arm: action grip takes two values, -1 and 0.6: it is served as one of them",
    "robot arm: action action 2 never moves: it is served as its constant 1.5",
    "robot arm: state s0 never moves: the policy does not see it",
    "robot bot: action action 2 takes two values, -1 and 0.6: it is served as one of them",
    "robot bot: action action 0 never moves: it is served as its constant 1.5",
    "robot bot: action action 1 never moves: it is served as its constant 1.5",
    "robot bot: state state 1, state 2 never moves: the policy does not see it",
  ]
  assert said(arm=np.stack([MOVING, MOVING, MOVING], 1)) == []
