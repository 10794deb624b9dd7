"""como_jax/convert/mae.py: three layouts to one tree, and parity with transformers."""

import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from como_jax import errors, trees, weights
from como_jax.convert import mae, mae_layouts, mapping
from como_jax.models import sizes, specs
from como_jax.models.backbones import mae_vit
from tests.convert import layouts

HEADS = dict(heads=2)


def _leaves(params):
  return dict(trees.flatten(params).items())


def _write(path, tensors):
  weights.write_safetensors(path, tensors)
  return path


@pytest.mark.parametrize("layout", ["huggingface", "timm", "original"])
def test_each_layout_gives_the_tree_of_our_encoder(layout):
  params, facts = mae.from_tensors(getattr(layouts, layout)(), **HEADS)
  size = sizes.parse(facts["size"])
  encoder = mae_vit.Encoder(size.stack(), size.patch, facts["image_size"])
  expected = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
  trees.merge(expected, params["encoder"], what=layout)
  assert (
    facts["kind"] == "mae_encoder" and facts["layout"] == layout and facts["size"] == "32x3x2/8"
  )
  assert facts["layer_norm_epsilon"] == (1e-12 if layout == "huggingface" else 1e-6)


@pytest.mark.parametrize("layout", ["huggingface", "original"])
def test_decoder_gives_the_tree_of_our_decoder(layout):
  from como_jax.models import mae as mae_model

  source = layouts.huggingface(decoder=True) if layout == "huggingface" else layouts.original()
  params, facts = mae.from_tensors(
    source, decoder=True, heads=2, config={"decoder_num_attention_heads": 2}
  )
  stack = specs.StackConfig(**facts["decoder"])
  decoder = mae_model.Decoder(stack, grid=layouts.GRID, patch=layouts.PATCH)
  expected = jax.eval_shape(
    decoder.init, jax.random.key(0), jnp.zeros((1, 3, layouts.WIDTH)), jnp.zeros((1, 4), jnp.int32)
  )
  trees.merge(expected["params"], params["decoder"], what=layout)
  assert facts["kind"] == "mae" and facts["decoder"] == {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 64,
  }


def test_the_layouts_agree():
  """The same weights written in two layouts become the same parameters."""
  params, _ = mae.from_tensors(
    layouts.original(), decoder=True, heads=2, config={"decoder_num_attention_heads": 2}
  )
  written = mapping.invert(mae_layouts.rules("huggingface", decoder=True), params)
  again, _ = mae.from_tensors(
    written, decoder=True, heads=2, config={"decoder_num_attention_heads": 2}
  )
  for name, leaf in _leaves(params).items():
    np.testing.assert_array_equal(_leaves(again)[name], leaf, err_msg=name)


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
  expected = _leaves(mae.from_tensors(source, decoder=True, **options)[0])
  for other, decoder in ((bare, False), (new, True), (saved, True)):
    found = _leaves(mae.from_tensors(other, decoder=decoder, **options)[0])
    assert set(found) == {name for name in expected if decoder or name.startswith("encoder/")}
    assert all(np.array_equal(leaf, expected[name]) for name, leaf in found.items())


def test_heads_of_classifiers_are_ignored_and_other_leftovers_are_not():
  head = {"head.weight": np.zeros((2, 32), np.float32), "fc_norm.weight": np.zeros(32, np.float32)}
  mae.from_tensors({**layouts.timm(), **head}, **HEADS)
  with pytest.raises(errors.UserError, match="1 left over: blocks.0.ls1.gamma"):
    mae.from_tensors({**layouts.timm(), "blocks.0.ls1.gamma": np.zeros(32)}, **HEADS)


@pytest.mark.parametrize(
  "layout, name",
  [
    ("huggingface", "vit.encoder.layer.1.attention.attention.key.bias"),
    ("huggingface", "vit.embeddings.cls_token"),
    ("huggingface", "vit.embeddings.position_embeddings"),
    ("timm", "blocks.2.attn.qkv.weight"),
    ("timm", "cls_token"),
    ("timm", "patch_embed.proj.weight"),
    ("original", "norm.bias"),
  ],
)
def test_missing_keys_are_named(layout, name):
  source = getattr(layouts, layout)()
  del source[name]
  with pytest.raises(errors.UserError, match=f"a.pth does not fit: 1 missing: {name}"):
    mae.from_tensors(source, what="a.pth", **HEADS)


@pytest.mark.parametrize(
  "change, options, message",
  [
    (
      lambda s: s.update(cls_token=np.zeros((1, 1, 31))),
      {},
      r"cls_token gives encoder/cls the shape \(1, 1, 31\), expected \(1, 1, 32\)",
    ),
    (lambda s: s.update(pos_embed=np.zeros((1, 6, 32))), {}, r"unexpected shape: \(1, 6, 32\)"),
    (
      lambda s: s.update({"patch_embed.proj.weight": np.zeros((32, 1, 8, 8))}),
      {},
      r"\(8, 8, 1, 32\), expected \(8, 8, 3, 32\)",
    ),
    (lambda s: s, {"heads": None}, "width 32 cannot have 0.5 attention heads; say how many"),
    (lambda s: s, {"heads": 3}, "width 32 cannot have 3 attention heads"),
    (lambda s: s, {"decoder": True}, "has no pixel decoder"),
    (
      lambda s: s,
      {"config": {"hidden_size": 1024, "patch_size": 16}},
      "hidden_size 1024 instead of 32, patch_size 16 instead of 8",
    ),
    (lambda s: s, {"config": {"hidden_act": "gelu_new"}}, "hidden_act 'gelu_new'"),
  ],
)
def test_what_does_not_fit_is_named(change, options, message):
  source = layouts.timm()
  change(source)
  with pytest.raises(errors.UserError, match=message):
    mae.from_tensors(source, **{**HEADS, **options})


def test_other_checkpoints_are_not_taken_for_ours():
  with pytest.raises(errors.UserError, match="not an MAE or ViT checkpoint.*conv1.weight"):
    mae.from_tensors({"conv1.weight": np.zeros(1), "fc.bias": np.zeros(1)})


@pytest.mark.parametrize(
  "width, depth, heads, size",
  [(1024, 24, 16, "L/16"), (1280, 32, 16, "H/16"), (768, 12, 12, "B/16")],
)
def test_named_sizes_are_those_of_the_models(width, depth, heads, size):
  assert mae._SIZES[(width, depth, heads)] == size.split("/")[0]
  assert (sizes.parse(size).width, sizes.parse(size).depth, sizes.parse(size).num_heads) == (
    width,
    depth,
    heads,
  )
  assert all(sizes.NAMED[name] == shape for shape, name in mae._SIZES.items())


def test_folder_with_shards_and_config(tmp_path):
  source, folder = layouts.huggingface(decoder=True), tmp_path / "hub"
  folder.mkdir()
  places = {
    name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(source)
  }
  for file in set(places.values()):
    _write(folder / file, {name: leaf for name, leaf in source.items() if places[name] == file})
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
  (folder / "config.json").write_text(
    json.dumps({"num_attention_heads": 4, "layer_norm_eps": 1e-5, "hidden_size": 32})
  )
  mae.convert(folder, tmp_path / "out")
  params, config = weights.load(tmp_path / "out")
  expected = mae.from_tensors(source, heads=4)[0]
  assert all(
    np.array_equal(leaf, _leaves(params)[name]) for name, leaf in _leaves(expected).items()
  )
  assert (
    config["size"] == "32x3x4/8"
    and config["layer_norm_epsilon"] == 1e-5
    and config["source"] == "hub"
  )
  os.remove(folder / "model-00002-of-00002.safetensors")
  with pytest.raises(errors.UserError, match="lists the shard 'model-00002"):
    mae.convert(folder, tmp_path / "other")


def test_torch_file_and_its_digest(tmp_path):
  path = layouts.torch_file(
    tmp_path / "mae.pth", layouts.original(), wrap=lambda tensors: {"model": tensors}
  )
  mae.convert(path, tmp_path / "out", dtype="bfloat16", heads=2)
  params, config = weights.load(tmp_path / "out", dtype=None)
  assert {leaf.dtype for leaf in _leaves(params).values()} == {np.dtype(ml_dtypes.bfloat16)}
  assert (
    config["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    and config["source"] == "mae.pth"
  )


def test_sources_that_cannot_be_read_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nowhere does not exist"):
    mae.convert(tmp_path / "nowhere", tmp_path / "out")
  with pytest.raises(errors.UserError, match="has 0 checkpoint files"):
    mae.convert(tmp_path, tmp_path / "out" / "w")
  for name in ("a.pth", "b.pth"):
    (tmp_path / name).write_bytes(b"hello, this is not a checkpoint")
  with pytest.raises(errors.UserError, match="has 2 checkpoint files: a.pth, b.pth"):
    mae.convert(tmp_path, tmp_path / "out" / "w")
  with pytest.raises(errors.UserError, match="a.pth is not a safetensors file"):
    mae.convert(tmp_path / "a.pth", tmp_path / "out")


def test_the_source_is_never_written_over(tmp_path):
  (tmp_path / "w").mkdir()
  path = _write(tmp_path / "w" / "params.safetensors", layouts.timm())
  content = path.read_bytes()
  with pytest.raises(errors.UserError, match="is, or holds, the source"):
    mae.convert(path, tmp_path / "w", heads=2, overwrite=True)
  assert path.read_bytes() == content


def test_command_line(tmp_path, capsys):
  path, out = _write(tmp_path / "timm.safetensors", layouts.timm()), tmp_path / "out"
  command = [sys.executable, "-m", "como_jax.convert.mae", str(path), str(out), "--heads", "2"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  total = sum(leaf.size for leaf in layouts.timm().values())
  assert (
    f"{total:,}" in done.stdout
    and "size: 32x3x2/8" in done.stdout
    and "encoder/blocks" in done.stdout
  )
  assert mae.main(command[3:]) == 2
  assert (
    capsys.readouterr().err
    == f"error: {out} already exists; choose another name or allow overwriting (--overwrite)\n"
  )
  assert mae.main([*command[3:], "--overwrite", "--dtype", "bfloat16"]) == 0
  assert weights.load(out)[1]["dtype"] == "bfloat16"
  assert (
    mae.main([str(tmp_path / "no"), str(tmp_path / "x")]) == 2 and not (tmp_path / "x").exists()
  )


def _parity(tmp_path, *, decoder, **fields):
  """Largest absolute differences of [encoder tokens, decoder patches if asked] from those of
  transformers.

  The tokens come out of a LayerNorm, so their scale is 1.
  """
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.ViTMAEConfig(**fields)
  model = transformers.ViTMAEForPreTraining(config).eval()
  with torch.no_grad():
    for name, parameter in model.named_parameters():  # so that every bias and scale matters
      if name.endswith("bias") or "layernorm" in name or "norm." in name or "token" in name:
        parameter.add_(0.1 * torch.randn_like(parameter))
  model.save_pretrained(tmp_path / "hub")
  params, facts = mae.convert(tmp_path / "hub", tmp_path / "ours", decoder=decoder)
  side, size = config.image_size, sizes.parse(facts["size"])
  frames = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)
  # transformers sorts patches by this noise even when it masks none: increasing noise keeps them in
  # raster order.
  noise = torch.arange(size.grid(side) ** 2, dtype=torch.float32)[None].repeat(2, 1)
  model.config.mask_ratio = model.vit.embeddings.config.mask_ratio = 0.0
  with torch.no_grad():
    result = model(torch.from_numpy(frames).permute(0, 3, 1, 2), noise=noise)
    expected = model.vit(
      torch.from_numpy(frames).permute(0, 3, 1, 2), noise=noise
    ).last_hidden_state
  epsilon = facts["layer_norm_epsilon"]
  encoder = mae_vit.Encoder(size.stack(epsilon=epsilon), size.patch, side)
  tokens = jax.jit(encoder.apply)({"params": params["encoder"]}, frames)
  assert 0.5 < expected.std() < 2 and tokens.shape == expected.shape
  apart = [float(np.abs(np.asarray(tokens) - expected.numpy()).max())]
  if decoder:
    from como_jax.models import mae as mae_model

    ours = mae_model.Decoder(
      specs.StackConfig(**facts["decoder"], epsilon=epsilon), grid=size.grid(side), patch=size.patch
    )
    restore = np.arange(size.grid(side) ** 2)[None].repeat(2, 0)
    patches = jax.jit(ours.apply)(
      {"params": params["decoder"]}, jnp.asarray(expected.numpy()), restore
    )
    assert result.logits.std() > 0.02
    apart.append(float(np.abs(np.asarray(patches) - result.logits.numpy()).max()))
  print("largest difference from transformers:", apart)
  return apart


@pytest.mark.reference
def test_parity_with_transformers_small(tmp_path):
  apart = _parity(
    tmp_path,
    decoder=True,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=32,
    patch_size=8,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=128,
  )
  assert max(apart) < 1e-5


@pytest.mark.slow
@pytest.mark.reference
def test_parity_with_transformers_full_size(tmp_path):
  apart = _parity(
    tmp_path,
    decoder=False,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
  )
  assert max(apart) < 1e-5
  assert (
    sum(leaf.size for leaf in _leaves(weights.load(tmp_path / "ours")[0]).values()) == 303_301_632
  )
