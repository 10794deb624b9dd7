"""Names of three layouts and of their spellings."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.convert import mae, mae_layouts, mapping
from tests.convert import layouts
from tests.convert.layouts import HEADS, flat_leaves


def test_the_layouts_agree():
  """The same weights written in two layouts become the same parameters."""
  params, _ = mae.from_tensors(
    layouts.original(), decoder=True, heads=2, config={"decoder_num_attention_heads": 2}
  )
  written = mapping.invert(mae_layouts.rules("huggingface", decoder=True), params)
  again, _ = mae.from_tensors(
    written, decoder=True, heads=2, config={"decoder_num_attention_heads": 2}
  )
  for name, leaf in flat_leaves(params).items():
    np.testing.assert_array_equal(flat_leaves(again)[name], leaf, err_msg=name)


def test_spellings_of_transformers_agree():
  source = layouts.huggingface(decoder=True)
  bare = {name.removeprefix("vit."): leaf for name, leaf in layouts.huggingface().items()}
  spellings = {
    "vit.encoder.layer.": "vit.layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    ".output.dense": ".mlp.fc2",
  }
  new = source
  for old, spelling in spellings.items():
    new = {name.replace(old, spelling): leaf for name, leaf in new.items()}
  saved = {
    name.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer."): leaf
    for name, leaf in source.items()
  }
  options = dict(heads=2, config={"decoder_num_attention_heads": 2})
  expected = flat_leaves(mae.from_tensors(source, decoder=True, **options)[0])
  for other, decoder in ((bare, False), (new, True), (saved, True)):
    found = flat_leaves(mae.from_tensors(other, decoder=decoder, **options)[0])
    assert set(found) == {name for name in expected if decoder or name.startswith("encoder/")}
    assert all(np.array_equal(leaf, expected[name]) for name, leaf in found.items())


def test_heads_of_classifiers_are_ignored_and_other_leftovers_are_not():
  head = {"head.weight": np.zeros((2, 32), np.float32), "fc_norm.weight": np.zeros(32, np.float32)}
  mae.from_tensors({**layouts.timm(), **head}, **HEADS)
  with pytest.raises(errors.UserError, match="1 left over: blocks.0.ls1.gamma"):
    mae.from_tensors({**layouts.timm(), "blocks.0.ls1.gamma": np.zeros(32)}, **HEADS)


def test_other_checkpoints_are_not_taken_for_ours():
  with pytest.raises(errors.UserError, match="not an MAE or ViT checkpoint.*conv1.weight"):
    mae.from_tensors({"conv1.weight": np.zeros(1), "fc.bias": np.zeros(1)})
