"""The smallest models that still have every part: 16 x 16 pixels, four patches, width 32."""

import copy
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from como_jax import models, trees

MOTION = {
  "kind": "motion",
  "image_size": 16,
  "dtype": "float32",
  "scan": True,
  "remat": "none",
  "encoder": {"kind": "mae_vit", "size": "32x2x2/8"},
  "idm": {
    "inputs": "feature_diff",
    "width": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 48,
    "num_queries": 3,
    "token_types": "legacy",
    "patch_order": "raster",
    "initializer": "mae",
  },
  "bottleneck": {"kind": "continuous", "latent_dim": 4},
  "fdm": {
    "width": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 64,
    "output": "direct",
    "condition": "add",
    "features": "none",
    "initializer": "mae",
  },
  "tcl_gradient": "all",
}
MAE = {
  "kind": "mae",
  "image_size": 32,
  "dtype": "float32",
  "scan": True,
  "remat": "none",
  "encoder": {"kind": "mae_vit", "size": "32x2x2/8"},
  "decoder": {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32},
  "mask_ratio": 0.75,
  "normalize_target": True,
}


def section(base, **changes):
  """A copy of a config section with dotted keys changed: section(MOTION, **{"idm.inputs":
  "none"}).
  """
  config = copy.deepcopy(base)
  for key, value in changes.items():
    *parents, last = key.split(".")
    node = config
    for parent in parents:
      node = node[parent]
    node[last] = value
  return config


@functools.cache
def _made(text, initialize):
  model = models.build(json.loads(text))
  if initialize:
    return model, jax.jit(model.init)(jax.random.key(0))
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def made(base, **changes):
  """(model, random parameters), built once for each config; nothing is compiled, and no bias or
  scale is trivial.
  """
  return _made(json.dumps(section(base, **changes)), False)


def initialized(base, **changes):
  """(model, parameters from `init`), built once for each config."""
  return _made(json.dumps(section(base, **changes)), True)


def fill(shapes):
  """Random parameters of the size training would give them; fixed positions and code books are
  random too.
  """
  rng = np.random.default_rng(5)

  def one(name, leaf):
    inputs = leaf.shape[1] if "blocks/" in name and leaf.ndim > 1 else np.prod(leaf.shape[:-1])
    deviation = 1 / np.sqrt(inputs) if name.endswith("kernel") else 0.1
    return jnp.asarray(deviation * rng.normal(size=leaf.shape) + name.endswith("scale"), leaf.dtype)

  return trees.unflatten({name: one(name, leaf) for name, leaf in trees.flatten(shapes).items()})


def batch_of(spec, seed=1):
  """Random uint8 frames for an `inputs_spec`."""
  rng = np.random.default_rng(seed)
  return {
    name: jnp.asarray(rng.integers(0, 256, leaf.shape, np.uint8)) for name, leaf in spec.items()
  }


def frames(shape, seed=2):
  """Random normalized frames [*shape, 3]."""
  return jax.random.normal(jax.random.key(seed), (*shape, 3))
