"""The options of labeling, as a config gives them."""

import dataclasses
import types

import jax
import pytest

from como_jax import errors
from como_jax.inference import label_options
from como_jax.parallel import mesh as mesh_lib
from tests.tasks.small_labels import command


def text_of(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def mesh_of(config):
  return label_options.make_mesh(label_options.from_config(config))


def test_every_option_is_that_of_the_config(tmp_path):
  config = command(
    tmp_path, "--config.data.path=D", "--config.data.cameras=['a','b']", "--config.offset_seconds=1"
  ).config
  options = label_options.from_config(config)
  values = config.to_dict()
  del values["task"]
  assert dataclasses.asdict(options) == {**values, "data": {**values["data"]}}
  assert options.data.cameras == ("a", "b") and options.offset_seconds == 1.0
  with pytest.raises(dataclasses.FrozenInstanceError):
    options.batch_size = 3


def test_a_type_that_models_do_not_have(tmp_path):
  config = command(tmp_path).config
  for config.dtype in ("", "bfloat16"):
    assert label_options.from_config(config).dtype == config.dtype
  config.dtype = "bfloat"
  line = text_of(errors.UserError, lambda: label_options.from_config(config))
  assert line.startswith("config.dtype='bfloat': did you mean 'bfloat16'?") and line.endswith(
    ', or "" for the model\'s own'
  )


def test_the_mesh_of_a_process_and_its_batches(tmp_path):
  config = command(tmp_path, "--config.mesh.data=2", "--config.mesh.fsdp=4").config
  config.batch_size, config.pairs_batch = 16, 0
  assert dict(mesh_of(config).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
  for key in ("batch_size", "pairs_batch"):
    before, config[key] = config[key], 12
    assert (
      text_of(errors.UserError, lambda: mesh_of(config))
      == f"config.{key}=12 is not divisible by the 8 devices of config.mesh"
    )
    config[key] = before
  config.mesh.fsdp, config.mesh.tensor = 2, 2
  config.batch_size = 12
  assert mesh_of(config).shape["tensor"] == 2, "4 devices share a batch"
  config.mesh.data = 3
  line = text_of(errors.UserError, lambda: mesh_of(config))
  assert "config.mesh" in line and "config.train.mesh" not in line


def test_the_mesh_is_that_of_this_process_alone(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    mesh_lib,
    "make",
    lambda **settings: (
      asked.append(settings) or types.SimpleNamespace(shape={"data": 1, "fsdp": 1})
    ),
  )
  monkeypatch.setattr(jax, "local_devices", lambda: ["mine"])
  mesh_of(command(tmp_path).config)
  assert asked[0]["devices"] == ["mine"]
