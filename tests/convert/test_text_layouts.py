"""Names and sizes of each kind of text encoder."""

import json

import numpy as np
import pytest

from como_jax.convert import mapping, text, text_layouts
from tests.convert.text_folders import KINDS, same
from tests.models.text import tiny


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_uses_every_leaf_once(tmp_path, kind):
  leaves = tiny.tensors(kind)
  params, facts = text.from_folder(tiny.write(tmp_path, kind, leaves=leaves))
  same(params, tiny.params(kind))
  assert facts["kind"] == kind and facts["length"] == (512 if kind == "t5" else 20)
  again = mapping.invert(
    text_layouts.LAYOUTS[tiny.CONFIGS[kind]["model_type"]].rules(facts["sizes"]), params
  )
  assert set(again) == set(leaves) and all(
    np.array_equal(again[name], leaves[name]) for name in leaves
  )


def test_t5_with_only_the_encoders_table(tmp_path):
  leaves = tiny.tensors("t5")
  leaves["encoder.embed_tokens.weight"] = leaves.pop("shared.weight")
  same(text.from_folder(tiny.write(tmp_path, "t5", leaves=leaves))[0], tiny.params("t5"))


def test_t5_without_a_gate(tmp_path):
  config = {**tiny.CONFIGS["t5"], "feed_forward_proj": "relu"}
  params, facts = text.from_folder(tiny.write(tmp_path, "t5", config=config))
  assert set(params["blocks"]["mlp"]) == {"up", "down"}
  assert facts["sizes"]["activation"] == "relu" and not facts["sizes"]["gated"]


def test_clip_projection_comes_from_the_tensor(tmp_path):
  params, facts = text.from_folder(tiny.write(tmp_path, "clip", projection=6))
  assert params["projection"]["kernel"].shape == (16, 6) and facts["sizes"]["projection"] == 6


def test_clip_config_of_both_towers(tmp_path):
  config = {"model_type": "clip", "text_config": tiny.CONFIGS["clip"], "vision_config": {}}
  tiny.write(tmp_path, "clip", leaves=tiny.tensors("clip"))
  (tmp_path / "config.json").write_text(json.dumps(config))
  assert text.from_folder(tmp_path)[1]["sizes"] == {**tiny.sizes("clip")}
