"""What a resumed run may change in its config, and the keys that came after it."""

import json

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.train import config_changes
from tests.refusals import text_of


def stored(folder, config):
  """The config of a run that is resumed."""
  (folder / "config.json").write_text(config_lib.to_json(config))


def changes(folder, config):
  return config_changes.changes(folder, config_lib.ConfigDict(config))


def test_a_resumed_run_may_change_how_it_is_computed_and_not_what(tmp_path):
  before = {"task": "motion", "model": {"dtype": "float32"}, "data": {"workers": 0}, "seed": 0}
  stored(tmp_path, before)
  assert changes(tmp_path, before) == ({}, {})
  assert changes(tmp_path, dict(before, data={"workers": 2})) == ({}, {"data.workers": (0, 2)})
  with pytest.raises(errors.UserError, match="seed: 0 before, 1 now"):
    changes(tmp_path, dict(before, seed=1))
  with pytest.raises(errors.UserError, match="model.dtype: 'float32' before, None now"):
    changes(tmp_path, dict(before, model={}))


def test_a_key_is_free_by_its_whole_name(tmp_path):
  stored(tmp_path, {"task": "x", "train": {"steps_between": 1}})
  with pytest.raises(errors.UserError, match="train.steps_between: 1 before, 2 now"):
    changes(tmp_path, {"task": "x", "train": {"steps_between": 2}})


def test_five_of_the_keys_that_must_not_change_are_named(tmp_path):
  before = {"task": "motion", **{f"key{i}": i for i in range(7)}}
  stored(tmp_path, before)
  after = {"task": "motion", **{f"key{i}": i + 10 for i in range(7)}}
  listed = "; ".join(f"key{i}: {i} before, {i + 10} now" for i in range(5))
  assert (
    text_of(lambda: changes(tmp_path, after))
    == f"--resume: the config is not the one {tmp_path} was started with: {listed}"
  )
  assert changes(tmp_path, dict(before, lerobot="x")) == ({}, {"lerobot": (None, "x")})
  for section in ("train", "mesh"):
    assert section in text_of(lambda section=section: changes(tmp_path, {**before, section: 3}))


def without(config, *keys):
  """A config as JSON without some dotted keys or sections."""
  config = json.loads(config_lib.to_json(config))
  for key in keys:
    *sections, last = key.split(".")
    node = config
    for section in sections:
      node = node[section]
    del node[last]
  return config


def of(variant):
  return config_lib.load(variant)[0]


def test_a_run_of_before_there_was_a_key_goes_on_as_it_was(tmp_path):
  config = of("motion:debug")
  stored(tmp_path, without(config, "objectives.contrastive.gate", "data.source", "data.workers"))
  filled, changed = config_changes.changes(tmp_path, config)
  assert changed == {} and filled["objectives.contrastive.gate"] == 0.0
  assert {key for key in filled if not key.startswith("data.source.")} == {
    "objectives.contrastive.gate",
    "data.workers",
  }, "a whole section too"
  stored(tmp_path, without(config, "objectives.contrastive.gate", "model.idm.components_pool"))
  assert config_changes.lines(tmp_path, config) == [
    f"resume: {tmp_path} was started before there were these keys, and goes on with "
    "model.idm.components_pool=1, objectives.contrastive.gate=0.0"
  ]
  stored(tmp_path, without(config, "data.workers"))
  assert config_changes.lines(tmp_path, config) == [], "it decides nothing"
  config.data.workers = 3
  assert config_changes.lines(tmp_path, config) == ["resume: data.workers: -1 before, 3 now"]


def test_a_new_key_with_another_value_is_a_change(tmp_path):
  # the variant has a linear path, of which the config without a variant says that it is off
  config = of("motion:small")
  stored(tmp_path, without(config, "model.idm.components"))
  components = config.model.idm.components
  with pytest.raises(errors.UserError, match=f"model.idm.components: 0 before, {components} now$"):
    config_changes.changes(tmp_path, config)
  stored(tmp_path, config)
  config.model.idm.components = 0
  with pytest.raises(errors.UserError, match=f"model.idm.components: {components} before, 0 now$"):
    config_changes.changes(tmp_path, config)


def test_a_new_key_of_a_users_own_config_is_a_change(tmp_path):
  config = of("motion:debug")
  stored(tmp_path, config)
  config.objectives.mine = {"weight": 0.5}
  with pytest.raises(errors.UserError, match="objectives.mine.weight: None before, 0.5 now"):
    config_changes.changes(tmp_path, config)


def test_a_new_key_in_a_section_that_an_option_brings(tmp_path):
  config = of("policy:debug,policy=gpt")
  assert "gpt" not in of("policy").model, "what the options are asked for"
  stored(tmp_path, without(config, "model.gpt.action_weight", "model.gpt.motion_dropout"))
  published = of("policy:policy=gpt").model.gpt
  config.model.gpt.action_weight = published.action_weight
  filled, changed = config_changes.changes(tmp_path, config)
  assert not changed and filled == {
    f"model.gpt.{key}": published[key] for key in ("action_weight", "motion_dropout")
  }
  config.model.gpt.action_weight = published.action_weight + 1
  with pytest.raises(errors.UserError, match="model.gpt.action_weight: "):
    config_changes.changes(tmp_path, config)


def test_what_an_option_turns_on_is_a_change(tmp_path):
  config = of("motion:debug,bottleneck=vq")
  # as if there had been no such objective and no such key: nothing says that the run had them
  stored(tmp_path, without(config, "objectives.quantization", "model.bottleneck.num_codes"))
  with pytest.raises(
    errors.UserError,
    match="num_codes: None before, 128 now; objectives.quantization.beta: None before",
  ):
    config_changes.changes(tmp_path, config)


def test_entries_of_a_mixture_are_compared_as_they_are(tmp_path):
  config = of("policy:debug")
  config.data.mixture = ({"path": "a", "robot": "arm"},)
  stored(tmp_path, config)
  assert config_changes.changes(tmp_path, config) == ({}, {})
  config.data.mixture = ({"path": "a", "robot": "arm", "views": "each"},)
  with pytest.raises(errors.UserError, match="data.mixture: "):
    config_changes.changes(tmp_path, config)
