"""como_jax/convert/mae.py: three layouts to one tree, and parity with transformers."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, trees, weights
from como_jax.convert import mae
from como_jax.models import sizes, specs
from como_jax.models.backbones import mae_vit
from tests.convert import layouts
from tests.convert.layouts import HEADS, flat_leaves, write_tensors


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


def test_the_source_is_never_written_over(tmp_path):
  (tmp_path / "w").mkdir()
  path = write_tensors(tmp_path / "w" / "params.safetensors", layouts.timm())
  content = path.read_bytes()
  with pytest.raises(errors.UserError, match="is, or holds, the source"):
    mae.convert(path, tmp_path / "w", heads=2, overwrite=True)
  assert path.read_bytes() == content


def test_command_line(tmp_path, capsys):
  path, out = write_tensors(tmp_path / "timm.safetensors", layouts.timm()), tmp_path / "out"
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
    sum(leaf.size for leaf in flat_leaves(weights.load(tmp_path / "ours")[0]).values())
    == 303_301_632
  )
