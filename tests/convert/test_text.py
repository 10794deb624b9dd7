"""como_jax/convert/text.py: every leaf once, folders whole or not at all, errors that name the
key.
"""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

from como_jax import errors, trees, weights
from como_jax.convert import text
from tests.convert.text_folders import KINDS, same
from tests.models.text import tiny


@pytest.mark.parametrize("kind", KINDS)
def test_command_line_writes_a_weights_folder(tmp_path, kind, capsys):
  source = tiny.write(tmp_path / "source", kind)
  assert text.main([str(source), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
  assert "written" in capsys.readouterr().out
  params, config = weights.load(tmp_path / "out", None)
  assert all(leaf.dtype == ml_dtypes.bfloat16 for leaf in trees.flatten(params).values())
  assert config["kind"] == kind and config["dtype"] == "bfloat16" and config["source"] == "source"
  assert (
    config["sizes"]["width"] == 16 and config["sizes"]["heads"] == 2 and len(config["sha256"]) == 64
  )
  assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
    source / "tokenizer.json"
  ).read_bytes()
  assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
  assert text.main([str(source), str(tmp_path / "out")]) == 2
  assert "already exists" in capsys.readouterr().err
  assert text.main([str(source), str(tmp_path / "out"), "--overwrite"]) == 0
  same(weights.load(tmp_path / "out", None)[0], tiny.params(kind))
  assert (tmp_path / "out" / "tokenizer.json").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_other_spellings_and_parts_that_are_left_out(tmp_path, kind):
  leaves = tiny.tensors(kind)
  if kind == "bert":
    leaves = {
      f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
      ): leaf
      for name, leaf in leaves.items()
    }
    more = ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids")
  elif kind == "t5":
    leaves["encoder.embed_tokens.weight"] = leaves["shared.weight"]
    more = ("decoder.block.0.layer.0.layer_norm.weight", "lm_head.weight")
  else:
    leaves = {f"text_model.{name}": leaf for name, leaf in leaves.items()}
    more = ("vision_model.embeddings.class_embedding", "logit_scale", "visual_projection.weight")
  leaves |= {name: np.zeros((2,), np.float32) for name in more}
  same(text.from_folder(tiny.write(tmp_path, kind, leaves=leaves))[0], tiny.params(kind))


def test_shards(tmp_path):
  leaves = tiny.tensors("bert")
  tiny.write(tmp_path, "bert")
  (tmp_path / "model.safetensors").unlink()
  names = sorted(leaves)
  parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
  for file, part in parts.items():
    weights.write_safetensors(tmp_path / file, {name: leaves[name] for name in part})
  index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
  same(text.from_folder(tmp_path)[0], tiny.params("bert"))


def test_files_of_sentence_transformers(tmp_path):
  tiny.write(tmp_path, "bert")
  modules = [
    {"type": f"sentence_transformers.models.{name}"}
    for name in ("Transformer", "Pooling", "Normalize")
  ]
  (tmp_path / "modules.json").write_text(json.dumps(modules))
  (tmp_path / "sentence_bert_config.json").write_text(
    '{"max_seq_length": 7, "do_lower_case": false}'
  )
  (tmp_path / "1_Pooling").mkdir()
  pooling = tmp_path / "1_Pooling" / "config.json"
  pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
  facts = text.from_folder(tmp_path)[1]
  assert facts["sizes"]["pooling"] == "cls" and facts["length"] == 7
  pooling.write_text('{"pooling_mode_max_tokens": true}')
  with pytest.raises(errors.UserError, match="pools by pooling_mode_max_tokens"):
    text.from_folder(tmp_path)
  (tmp_path / "modules.json").write_text(
    json.dumps([*modules, {"type": "sentence_transformers.models.Dense"}])
  )
  with pytest.raises(errors.UserError, match="has a Dense module"):
    text.from_folder(tmp_path)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"model_type": "roberta"}, "model_type is 'roberta'; .*valid: bert, clip"),
    ({"model_type": None}, "model_type is None"),
    ({"hidden_size": "16"}, "'hidden_size' is '16', expected int"),
    ({"num_hidden_layers": None}, "'num_hidden_layers' is None"),
    ({"num_hidden_layers": 3}, r"query/kernel the shape \(2, 16, 16\), expected \(3, 16, 16\)"),
    ({"num_attention_heads": 3}, "width 16 cannot have 3 attention heads"),
    ({"num_attention_heads": 0}, "cannot have 0 attention heads"),
    ({"hidden_act": "gelu_fast"}, "'hidden_act' is 'gelu_fast'; .*valid: gelu"),
    ({"position_embedding_type": "relative_key"}, "only 'absolute' can be converted"),
    ({"is_decoder": True}, "only False can be converted"),
    (
      {"vocab_size": 25},
      r"word_embeddings.weight gives token the shape \(24, 16\), expected \(25, 16\)",
    ),
  ],
)
def test_a_config_that_is_not_ours(tmp_path, change, message):
  tiny.write(tmp_path, "bert")
  (tmp_path / "config.json").write_text(json.dumps({**tiny.CONFIGS["bert"], **change}))
  with pytest.raises(errors.UserError, match=message):
    text.from_folder(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_that_are_missing_or_left_over(tmp_path, kind):
  leaves = tiny.tensors(kind)
  name = sorted(leaves)[3]
  with pytest.raises(errors.UserError, match=f"1 missing: {name}"):
    text.from_folder(
      tiny.write(tmp_path, kind, leaves={key: leaf for key, leaf in leaves.items() if key != name})
    )
  with pytest.raises(errors.UserError, match="1 left over: encoder.extra"):
    text.from_folder(tiny.write(tmp_path, kind, leaves={**leaves, "encoder.extra": leaves[name]}))


def test_folders_that_are_not_whole(tmp_path, capsys):
  source = tiny.write(tmp_path / "source", "bert")
  with pytest.raises(errors.UserError, match="is not a folder of weights only"):
    text.convert(str(source), str(source), overwrite=True)
  for name, message in (
    ("tokenizer.json", "tokenizer.json does not exist; write it with transformers"),
    ("config.json", "cannot read .*config.json"),
    ("model.safetensors", "0 checkpoint files"),
  ):
    broken = tmp_path / f"without-{name}"
    shutil.copytree(source, broken)
    (broken / name).unlink()
    with pytest.raises(errors.UserError, match=message):
      text.convert(str(broken), str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()
  assert text.main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
  assert "nowhere is not a folder" in capsys.readouterr().err


def test_a_failed_copy_leaves_the_old_folder(tmp_path, monkeypatch):
  source = tiny.write(tmp_path / "source", "bert")
  text.convert(str(source), str(tmp_path / "out"))
  before = (tmp_path / "out" / "params.safetensors").read_bytes()

  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(text.shutil, "copyfile", full)
  with pytest.raises(errors.UserError, match="cannot write .*No space left"):
    text.convert(
      str(tiny.write(tmp_path / "other", "bert", seed=1)), str(tmp_path / "out"), overwrite=True
    )
  assert (tmp_path / "out" / "params.safetensors").read_bytes() == before
  assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "source"]
