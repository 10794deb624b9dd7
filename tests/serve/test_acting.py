"""What a policy makes of observations, around a model that only counts: arrays, sizes, seeds, units
and messages.
"""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.data import policy_spec, policy_upgrade
from como_jax.observations import STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from tests.serve import test_policy
from tests.serve.counting import acting, observation, stored
from tests.serve.counting import counting as counting  # a fixture


def test_facts_for_clients():
  one = acting(
    stored(instructions={"count": 1, "empty": False, "examples": ["go"]}, unused_cameras=["wrist"]),
    name="runs/arm/weights",
  )
  assert (
    json.loads(json.dumps(one.metadata))
    == one.metadata
    == {
      "robot": "arm",
      "cameras": ["front"],
      "image_size": 16,
      "history": 2,
      "chunk": 4,
      "action_dim": 3,
      "action_names": ["action 0", "action 1", "action 2"],
      "state_dim": 2,
      "step_seconds": 0.5,
      "steps": None,
      "guidance": 1.0,
      "checkpoint": "weights",
      "instructions": {"count": 1, "empty": False, "examples": ["go"]},
      "unused_cameras": ["wrist"],
    }
  )
  plain = acting(
    stored(action_names=["x", "y", "z"], cameras=["", "top"], settings={"guidance_scale": 2.5}),
    num_sampling_steps=7,
  )
  assert plain.metadata["action_names"] == ["x", "y", "z"] and plain.cameras == ("top",)
  assert (plain.metadata["guidance"], plain.metadata["steps"], plain.metadata["checkpoint"]) == (
    2.5,
    7,
    "policy",
  )
  assert (
    plain.metadata["instructions"] == {"count": 0, "empty": True, "examples": []}
    and plain.metadata["unused_cameras"] == []
  )
  assert plain._encode._cache is None, "clients may send any number of instructions"
  assert (
    acting(stored(settings={"guidance_scale": 2.5}), guidance_scale=0.0).metadata["guidance"] == 0.0
  )


def test_the_robot_is_named_unless_there_is_one():
  assert acting(stored(("arm",)), robot="").robot == "arm"
  with pytest.raises(
    errors.UserError, match="^checkpoint c knows several robots: choose one of hand, arm$"
  ):
    acting(robot="", name="c")
  with pytest.raises(
    errors.UserError, match="^checkpoint c knows no robot 'am': did you mean 'arm'"
  ):
    acting(robot="am", name="c")


def test_a_path_is_needed_and_names_the_policy(monkeypatch, tmp_path):
  with pytest.raises(
    errors.UserError,
    match="^config.checkpoint is empty: give the run directory or weights folder of a policy$",
  ):
    serving.Policy.load("")
  params = {"network": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  monkeypatch.setattr(policy_checkpoint.checkpoint, "read", lambda location: (params, stored()))
  found = types.SimpleNamespace(config=tmp_path / "config.json")
  monkeypatch.setattr(policy_checkpoint.checkpoint, "find", lambda path: found)
  assert serving.Policy.load("runs/one", robot="arm").metadata["checkpoint"] == "one"


def test_policy_json_is_all_that_serving_needs(monkeypatch, tmp_path):
  """A config that says other things, or nothing, changes nothing."""
  spec = policy_upgrade.from_config(stored())
  (tmp_path / "policy.json").write_text(policy_spec.text(spec))
  params = {"network": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  monkeypatch.setattr(policy_checkpoint.checkpoint, "read", lambda location: (params, {}))
  found = types.SimpleNamespace(config=tmp_path / "config.json")
  monkeypatch.setattr(policy_checkpoint.checkpoint, "find", lambda path: found)
  loaded, given = serving.Policy.load("runs/one", robot="arm"), acting(name="one")
  assert loaded.metadata == given.metadata
  history = [[observation(5.0)]]
  for name, array in given.batch(history).items():
    np.testing.assert_array_equal(loaded.batch(history)[name], array)
  np.testing.assert_array_equal(loaded.infer(history), given.infer(history))


def test_an_example_is_that_of_training():
  """The oldest observation stands in for those before it; a slot without camera is black and
  masked.
  """
  batch = acting(batch_size=2).batch(
    [[observation(7.0)], [observation(5.0, **{STATE: [3, 4], TASK: "wait"}), observation(6.0)]]
  )
  assert batch["images"].shape == (2, 2, 2, 16, 16, 3) and batch["images"].dtype == np.uint8
  np.testing.assert_array_equal(batch["images"][:, :, 0, 0, 0, 0], [[7, 7], [5, 6]])
  assert not batch["images"][:, :, 1].any()
  np.testing.assert_array_equal(batch["images_mask"], [[True, False]] * 2)
  rows = test_policy.ROWS[:, 0]
  assert batch["state"].shape == (2, 2) and batch["state"].dtype == np.float32
  np.testing.assert_allclose(
    batch["state"][:, 0], (np.float32([7, 6]) - rows.mean()) / rows.std(), rtol=1e-4
  )
  assert batch["state_mask"].tolist() == [True, True] and batch["state_mask"].dtype == bool
  assert batch["robot"].tolist() == [1, 1] and batch["robot"].dtype == np.int32
  assert batch["language"].shape == (2, 3, 6) and batch["language_mask"].sum() == 2
  np.testing.assert_array_equal(batch["language"][0], batch["language"][1])
  hand = acting(robot="hand").batch([[observation(7.0, **{STATE: None, TASK: None})]])
  assert (
    hand["state"].tolist() == [[0, 0]]
    and hand["state_mask"].tolist() == [False]
    and hand["robot"].tolist() == [0]
  )
  assert not hand["language_mask"].any()


@pytest.mark.parametrize("count", [0, 3])
def test_histories_have_1_to_T_observations(count):
  with pytest.raises(
    errors.UserError, match=f"^a history of {count} observations, expected 1 to 2$"
  ):
    acting().batch([[observation()] * count])


def test_batches_are_padded_to_few_sizes_with_their_first_row():
  sizes = {most: acting(batch_size=most)._sizes() for most in (1, 2, 3, 4, 6)}
  assert sizes == {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 4], 6: [1, 2, 4, 6]}
  one = acting(batch_size=6)
  images = one.batch([[observation(float(i))] for i in range(3)])["images"]
  assert images[:, 0, 0, 0, 0, 0].tolist() == [0, 1, 2, 0]


def test_every_batch_has_a_seed_of_its_own(monkeypatch):
  one, keys = acting(batch_size=2), []
  assert one.infer([]).shape == (0, 4, 3) and one.infer([]).dtype == np.float32
  sample = one.sample
  monkeypatch.setattr(one, "sample", lambda batch, key: keys.append(key) or sample(batch, key))
  found = one.infer([[observation(float(i))] for i in range(5)], seed=3)
  assert [jax.random.key_data(key).tolist() for key in keys] == [
    jax.random.key_data(jax.random.key(seed)).tolist() for seed in (3, 5, 7)
  ]
  assert found.shape == (5, 4, 3) and found.dtype == np.float32
  first, second = one.infer([[observation(0.0)], [observation(1.0)]])[:, :, 0]
  # in the state's units, which are those of the first action here
  np.testing.assert_allclose(second - first, 1.0, atol=1e-4)
  keys.clear(), one.infer([[observation()]])
  assert jax.random.key_data(keys[0]).tolist() == jax.random.key_data(jax.random.key(0)).tolist(), (
    "0 unless given"
  )
  assert one._model.seen == [
    {"rows": rows, "robot": "arm", "steps": None, "guidance": 1.0, "dtype": jnp.bfloat16}
    for rows in (2, 1)
  ]


def test_warming_up_compiles_every_size_with_an_instruction_of_the_data(monkeypatch):
  one = acting(
    stored(instructions={"count": 2, "empty": False, "examples": ["wave", "stack"]}), batch_size=3
  )
  warm, texts, infer = [], [], one.infer
  monkeypatch.setattr(one._encode, "warm_up", lambda: warm.append(True))
  monkeypatch.setattr(
    one,
    "infer",
    lambda histories: texts.extend(history[0][TASK] for history in histories) or infer(histories),
  )
  one.warm_up()
  assert (
    warm == [True]
    and texts == ["wave"] * 6
    and [seen["rows"] for seen in one._model.seen] == [1, 2, 3]
  )
  plain = acting()
  plain.warm_up()
  assert [seen["rows"] for seen in plain._model.seen] == [1]
