"""como_jax/weights: weights-only folders, whole or not at all."""

import os

import ml_dtypes
import numpy as np
import pytest

from como_jax import errors, weights

PARAMS = {
  "encoder": {
    "norm": {"scale": np.arange(6, dtype=np.float32).reshape(2, 3) / 7},
    "cls": np.float32(1.5),
  },
  "steps": np.arange(3),
  "odd": np.ones((3, 1), np.uint8),
  "empty": np.zeros((0, 2), np.float32),
}


def test_round_trip_keeps_values_dtypes_and_config(tmp_path):
  folder = weights.save(tmp_path / "a" / "w", PARAMS, {"kind": "x", "n": 1})
  params, config = weights.load(folder)
  assert config == {"kind": "x", "n": 1} and sorted(os.listdir(folder)) == [
    "config.json",
    "params.safetensors",
  ]
  np.testing.assert_array_equal(
    params["encoder"]["norm"]["scale"], PARAMS["encoder"]["norm"]["scale"]
  )
  assert params["encoder"]["cls"].shape == () and params["encoder"]["cls"] == 1.5
  assert (
    params["steps"].dtype == np.int64
    and params["odd"].dtype == np.uint8
    and params["empty"].shape == (0, 2)
  )
  assert os.listdir(tmp_path / "a") == ["w"]


def test_bfloat16_on_disk_float32_in_hand(tmp_path):
  weights.save(tmp_path / "w", PARAMS, {}, dtype="bfloat16")
  stored, _ = weights.load(tmp_path / "w", dtype=None)
  loaded, _ = weights.load(tmp_path / "w")
  assert (
    stored["encoder"]["norm"]["scale"].dtype == ml_dtypes.bfloat16
    and stored["steps"].dtype == np.int64
  )
  expected = PARAMS["encoder"]["norm"]["scale"].astype(ml_dtypes.bfloat16).astype(np.float32)
  np.testing.assert_array_equal(loaded["encoder"]["norm"]["scale"], expected)


def test_existing_folders_are_only_replaced_when_asked_and_only_ours(tmp_path):
  weights.save(tmp_path / "w", PARAMS, {"n": 1})
  with pytest.raises(errors.UserError, match="already exists"):
    weights.save(tmp_path / "w", PARAMS, {"n": 2})
  weights.save(tmp_path / "w", {"x": np.zeros(1, np.float32)}, {"n": 2}, overwrite=True)
  assert weights.load(tmp_path / "w")[1] == {"n": 2} and os.listdir(tmp_path) == ["w"]
  (tmp_path / "w" / "notes.txt").write_text("mine")
  with pytest.raises(errors.UserError, match="not a folder of weights only .*notes.txt"):
    weights.save(tmp_path / "w", PARAMS, {}, overwrite=True)
  with pytest.raises(errors.UserError, match="not a folder;"):
    weights.save(tmp_path / "w" / "notes.txt", PARAMS, {}, overwrite=True)
  assert weights.load(tmp_path / "w")[1] == {"n": 2}


def test_nothing_is_left_behind_when_saving_fails(tmp_path):
  with pytest.raises(errors.UserError, match="cannot save 'a': dtype complex64"):
    weights.save(tmp_path / "w", {"a": np.zeros(2, np.complex64)}, {})
  with pytest.raises(errors.UserError, match="not JSON"):
    weights.save(tmp_path / "w", PARAMS, {"a": np.zeros(1)})
  with pytest.raises(errors.UserError, match="did you mean 'bfloat16'"):
    weights.save(tmp_path / "w", PARAMS, {}, dtype="bfloat")
  assert os.listdir(tmp_path) == []
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="cannot write .*file"):
    weights.save(tmp_path / "file" / "w", PARAMS, {})


def test_missing_things_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nothing does not exist"):
    weights.load(tmp_path / "nothing")
  weights.save(tmp_path / "w", PARAMS, {})
  for name in ("config.json", "params.safetensors"):
    content = (tmp_path / "w" / name).read_bytes()
    os.remove(tmp_path / "w" / name)
    with pytest.raises(errors.UserError, match=f"cannot read .*{name}"):
      weights.load(tmp_path / "w")
    (tmp_path / "w" / name).write_bytes(content)
  (tmp_path / "w" / "config.json").write_text("{")
  with pytest.raises(errors.UserError, match="config.json is not JSON"):
    weights.load(tmp_path / "w")
  (tmp_path / "w" / "config.json").write_text("[]")
  with pytest.raises(errors.UserError, match="holds a JSON list"):
    weights.load(tmp_path / "w")


def test_a_name_that_is_both_leaf_and_group_is_refused(tmp_path):
  weights.save(tmp_path / "w", {}, {})
  weights.write_safetensors(
    tmp_path / "w" / "params.safetensors", {"a": np.zeros(1), "a/b": np.zeros(1)}
  )
  with pytest.raises(errors.UserError, match="'a' is both"):
    weights.load(tmp_path / "w")
