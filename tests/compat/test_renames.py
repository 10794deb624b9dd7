"""Configs stored before keys were renamed become today's.

`configs_2026_11` holds resolved configs as that version of the program wrote them.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, models, weights
from como_jax.inference import fingerprints
from como_jax.settings import renames
from como_jax.train import checkpoint, config_changes

HERE = pathlib.Path(__file__).parent
STORED = sorted((HERE / "configs_2026_11").glob("*.json"))
GOLDEN = HERE.parent / "golden" / "configs"


def has(config, key):
  """Whether a config has a dotted key."""
  *parents, last = key.split(".")
  for part in parents:
    config = config.get(part, {})
  return last in config


def without_newer(config, old):
  """A config of today without the keys that came later, which an old one lacks."""
  return {
    key: without_newer(value, old[key]) if isinstance(value, dict) else value
    for key, value in config.items()
    if key in old
  }


def size(config):
  """How many values a config has."""
  return sum(size(value) if isinstance(value, dict) else 1 for value in config.values())


def today(name):
  """Today's resolved config of the same settings: (ConfigDict, the same as JSON)."""
  variant = name.replace("-", ":", 1).replace("-", ",")
  config = config_lib.parse(["main", f"--config={variant}"]).config
  return config, json.loads(config_lib.to_json(config))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_a_stored_config_becomes_todays_config_of_the_same_settings(file, tmp_path):
  old = json.loads(file.read_text())
  before = json.dumps(old)
  config, expected = today(file.stem)
  upgraded = renames.upgrade(old)
  assert upgraded == without_newer(expected, upgraded) and old != upgraded
  assert size(upgraded) == size(old), "nothing is lost"
  assert json.dumps(old) == before, "the argument is not changed"
  assert renames.upgrade(upgraded) == upgraded
  if "model" in upgraded:
    known = without_newer(expected["model"], upgraded["model"])
    assert models.build(upgraded["model"]).config == models.build(known).config
  (tmp_path / "config.json").write_text(before)
  filled, changed = config_changes.changes(tmp_path, config)
  assert changed == {}, "such a run is resumed as it was"
  assert len(filled) == size(expected) - size(old), "but for the keys that came later"


def test_the_stored_configs_have_every_old_key():
  stored = [json.loads(file.read_text()) for file in STORED]
  missing = {
    name
    for name in renames.RENAMED
    if not any(has(config, name.rpartition(":")[2]) for config in stored)
  }
  optional = ("decoder", "trunk", "dit", "gpt", "encoder", "bottleneck")
  assert missing == {
    *(f"model.{section}.initialiser" for section in optional),
    # those of checkpoints and of converted weights
    "normalisation",
    "decoder.heads",
    "decoder.mlp",
  }


def test_todays_configs_are_not_changed():
  files = sorted(GOLDEN.glob("*.json"))
  assert files
  for file in files:
    config = json.loads(file.read_text())
    assert renames.upgrade(config) == config, file.name
  new = {
    "model": {"kind": "policy", "robots": {"heads": {"action": 1}}, "gpt": {"tokens": "query"}}
  }
  assert renames.upgrade(new) == new, "robots have the names that they have"
  both = {"model": {"idm": {"heads": 2, "num_heads": 4}}}
  assert renames.upgrade(both) == both, "a new key is never replaced"


def test_every_reader_of_a_stored_config_upgrades_it(tmp_path):
  run = pathlib.Path(shutil.copytree(HERE / "run_version_0", tmp_path / "run"))
  old = json.loads((HERE / "configs_2026_11" / "policy-debug.json").read_text())
  old = {**old, "normalisation": {"mode": "standard"}}
  (run / "config.json").write_text(json.dumps(old))
  newest = without_newer(today("policy-debug")[1], renames.upgrade(old))
  expected = {**newest, "normalization": {"mode": "standard"}}
  assert checkpoint.load(run)[1] == expected
  folder = weights.save(tmp_path / "weights", {"x": np.zeros(1)}, old)
  assert weights.load(folder)[1] == expected
  assert checkpoint.load(folder)[1] == expected
  before = fingerprints.of_policy(str(folder))
  weights.save(folder, {"x": np.zeros(1)}, expected, overwrite=True)
  assert fingerprints.of_policy(str(folder)) == before, "a started rollout goes on"
  converted = {"kind": "mae", "decoder": {"width": 8, "depth": 1, "heads": 2, "mlp": 16}}
  folder = weights.save(tmp_path / "converted", {"x": np.zeros(1)}, converted)
  assert weights.load(folder)[1]["decoder"] == {
    "width": 8,
    "depth": 1,
    "num_heads": 2,
    "mlp_dim": 16,
  }


def test_an_old_key_in_a_config_file_is_refused_with_its_new_name(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(
    "from como_jax import config as c\ndef get_config(arg=None):\n  config = "
    "c.load('policy:debug')[0].copy_and_resolve_references()\n  config.unlock()\n"
    "  config.model.gpt = {'hide_motion': 0.5}\n  return config\n"
  )
  with pytest.raises(errors.UserError, match="has no 'hide_motion': it was renamed to 'motion_dro"):
    config_lib.parse(["main", f"--config={file}"])
