"""policy.json: back and forth, refusals, and what it says of a robot."""

import dataclasses
import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import normalization, policy_spec, policy_upgrade, value_transforms
from como_jax.settings import renames
from tests.data.policy_configs import config


def stored(**changes):
  values = policy_upgrade.from_config(config()).to_json()
  return json.loads(json.dumps(values)) | changes


def test_back_and_forth_through_a_file(tmp_path):
  spec = policy_upgrade.from_config(config(cameras=["a", "b"], unused_cameras=["c"]))
  (tmp_path / policy_spec.FILE).write_text(policy_spec.text(spec))
  assert policy_spec.read(tmp_path) == spec
  assert policy_spec.read(tmp_path / "other") is None
  (tmp_path / policy_spec.FILE).write_text(json.dumps(stored(version=1)))
  assert policy_spec.read(tmp_path) is None, "it lacks facts that the config beside it has"


def test_a_file_of_version_2_is_read(tmp_path):
  values = broken(action_limits=[[0.0] * 3, [1.0] * 3]) | {"version": 2}
  (tmp_path / policy_spec.FILE).write_text(json.dumps(values))
  assert policy_spec.read(tmp_path) == policy_upgrade.from_config(config())


def test_its_transforms_are_those_of_the_normalization():
  """Bit for bit, both ways: a served action is what training would have said."""
  mode, statistics_of = normalization.from_json(config()["normalization"])
  expected = statistics_of.normalization(mode)
  spec = policy_spec.PolicySpec.from_json(stored())
  rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
  for transforms, others in (
    (spec.robots["arm"].transforms["action"], expected.robots["arm"]["action"]),
    (spec.robots["arm"].transforms["state"], expected.robots["arm"]["state"]),
    (spec.latent.transforms, expected.latent),
  ):
    for convert in (value_transforms.apply, value_transforms.invert):
      np.testing.assert_array_equal(convert(transforms, rows), convert(others, rows))
  assert spec.normalization.robots["arm"] == spec.robots["arm"].transforms
  assert spec.normalization.latent == spec.latent.transforms


@pytest.mark.parametrize(
  "instructions, needed",
  [
    ({"count": 2, "empty": False, "examples": ["go"]}, True),
    ({"count": 2, "empty": True, "examples": ["go"]}, False),
    ({"count": 1, "empty": False, "examples": ["go"]}, False),
    ({"count": 0, "empty": True, "examples": []}, False),
  ],
)
def test_an_instruction_is_needed_where_several_were_trained_and_none_empty(instructions, needed):
  assert policy_spec.instruction_needed(instructions) is needed


def broken(**changes):
  """With another description of the arm."""
  return stored(robots={"arm": stored()["robots"]["arm"] | changes})


def without(name):
  return {key: value for key, value in stored().items() if key != name}


@pytest.mark.parametrize(
  "values, message",
  [
    (stored(version=4), "^p is of version 4, this program reads 3$"),
    (stored(latent={"latent_model": "aa"}), "^p: latent: key 'latent_offset_seconds' is missing$"),
    (stored(resise="crop"), "^p: unknown key 'resise': did you mean 'resize'"),
    (without("language"), "^p: key 'language' is missing$"),
    (without("version"), "^p is of version None, this program reads 3$"),
    (stored(robots={"arm": {"action": 3}}), "^p: robots.arm: key 'state' is missing$"),
    (stored(robots=[]), "^p is not the record of a policy: AttributeError"),
    (broken(transforms={}), "^p: robots.arm: there are no transforms of action$"),
    (broken(action_limits=[[0], [1]]), "^p: robots.arm: unknown key 'action_limits'"),
    (broken(action_names=None), "^p is not the record of a policy: TypeError"),
    (
      stored(model={"kind": "policy", "robots": {"leg": {"action": 3, "state": 3}}}),
      "^p: robots.arm: action 3, state 3, but the model has None$",
    ),
  ],
)
def test_what_is_no_policy_is_named(values, message):
  with pytest.raises(errors.UserError, match=message):
    policy_spec.PolicySpec.from_json(values, where="p")


@pytest.mark.parametrize("content, message", [("{", "cannot be read"), ("[]", "no JSON object")])
def test_a_broken_file_is_named(tmp_path, content, message):
  (tmp_path / policy_spec.FILE).write_text(content)
  with pytest.raises(errors.UserError, match=f"policy.json.* {message}"):
    policy_spec.read(tmp_path)


def test_a_record_with_older_keys_gets_todays(tmp_path):
  values = stored()
  values["language"] = {"kind": "hash", "tokens": 4}
  (tmp_path / policy_spec.FILE).write_text(json.dumps(values))
  spec = policy_spec.read(tmp_path, upgrade=renames.upgrade)
  assert spec.language == {"kind": "hash", "num_tokens": 4}


def test_its_rows_are_those_of_the_model():
  spec = policy_upgrade.from_config(config(cameras=["a", "b"]))
  robots = {"leg": {"action": 2, "state": 1}, "arm": {"action": 3, "state": 2}}
  model = {**spec.model, "history": 4, "image_size": 16, "robots": robots}
  rows = dataclasses.replace(spec, model=model).row_builder()
  assert rows.robots == ("leg", "arm"), "in the model's order, which numbers them"
  assert (rows.history, rows.image_size, rows.num_cameras, rows.state_size) == (4, 16, 2, 2)
  assert rows.state_transforms == {
    name: robot.transforms.get("state", ()) for name, robot in spec.robots.items()
  }
