"""Parameter tables: published counts, golden names and shapes. Run as a module to rewrite them."""

import json
import pathlib

import jax
import pytest

from como_jax import model_presets, models, trees

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = [
  ("motion", "published"),
  ("motion", "fast"),
  ("motion", "debug"),
  ("mae", "published"),
  ("mae", "debug"),
  ("policy", "published"),
  ("policy", "published_gpt"),
  ("policy", "debug"),
  ("policy", "debug_gpt"),
]


def table(config):
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))
  return {name: list(leaf.shape) for name, leaf in trees.flatten(params).items()}


def count(shapes, *prefixes):
  total = 0
  for name, shape in shapes.items():
    if name.startswith(prefixes):
      size = 1
      for axis in shape:
        size *= axis
      total += size
  return total


@pytest.mark.parametrize("kind, name", CASES)
def test_golden(kind, name):
  golden = json.loads((GOLDEN / f"parameters_{kind}_{name}.json").read_text())
  assert table(model_presets.preset(kind, name)) == golden


def test_published_counts():
  shapes = table(model_presets.preset("motion", "published"))
  assert count(shapes, "encoder/") == 303_301_632
  assert count(shapes, "idm/qformer/") == 29_458_176
  assert count(shapes, "fdm/") - count(shapes, "fdm/up_") == 91_107_072
  assert shapes["idm/qformer/position"] == [1, 403, 768] and shapes["fdm/pool/kernel"] == [
    6144,
    768,
  ]


def test_fast_is_published_but_for_speed():
  fast, published = (model_presets.preset("motion", name) for name in ("fast", "published"))
  assert {key for key in fast if fast[key] != published[key]} == {"remat", "encoder"}
  assert fast["encoder"] == {**published["encoder"], "param_dtype": "bfloat16"}
  assert table(fast) == table(published)
  params = jax.eval_shape(models.build(fast).init, jax.random.key(0))
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params["encoder"]))
  assert size < 0.51 * 4 * 303_301_632


def test_published_count_with_vq():
  config = model_presets.preset("motion", "published")
  config["bottleneck"] = {"kind": "vq", "latent_dim": 32}
  assert count(table(config), "idm/", "fdm/") == 121_210_944


def test_mae_encoder_count():
  assert count(table(model_presets.preset("mae", "published")), "encoder/") == 303_301_632


def test_only_the_scanned_layers_have_many_leaves():
  assert len(table(model_presets.preset("motion", "published"))) < 80


if __name__ == "__main__":
  for kind, name in CASES:
    shapes = table(model_presets.preset(kind, name))
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    (GOLDEN / f"parameters_{kind}_{name}.json").write_text("{\n" + lines + "\n}\n")
