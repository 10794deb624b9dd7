"""The smallest policies that still have every part: two robots (one without state), two cameras,
two frames, 16 px.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from tests.models import tiny

_BASE = {
  "kind": "policy",
  "image_size": 16,
  "dtype": "float32",
  "scan": True,
  "remat": "none",
  "encoder": {"kind": "mae_vit", "size": "16x1x2/8"},
  "history": 2,
  "num_cameras": 2,
  "pool": 2,
  "language": {"width": 6, "num_tokens": 3},
  "robots": {"hand": {"action": 5, "state": 0}, "arm": {"action": 3, "state": 2}},
  "action_horizon": 4,
  "latent": {"num_queries": 2, "latent_dim": 3, "motion_horizon": 2},
  "language_dropout": 0.0,
  "trunk": {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32},
}
DIT = {
  **_BASE,
  "policy": "dit",
  "dit": {
    "width": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
    "objective": "flow",
    "num_sampling_steps": 2,
  },
}
GPT = {
  **_BASE,
  "policy": "gpt",
  "gpt": {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
    "inference": "decoded",
    "num_sampling_steps": 2,
  },
}
BASES = {"dit": DIT, "gpt": GPT}
HAND, ARM = 0, 1  # as in batch["robot"]

made, section = tiny.made, tiny.section
# These programs run for milliseconds: compiling them well costs more than it saves.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def batch(model, size=4, seed=1):
  """Everything there but what robots lack; of four examples 0 is the hand's, 1 the arm's, 2 a video
  (one camera), 3 has no motion.
  """
  rng = np.random.default_rng(seed)
  out = {}
  for name, leaf in model.inputs_spec(size).items():
    if leaf.dtype == jnp.uint8:
      out[name] = rng.integers(0, 256, leaf.shape, np.uint8)
    elif leaf.dtype == bool:
      out[name] = np.ones(leaf.shape, bool)
    else:
      out[name] = rng.normal(size=leaf.shape).astype(leaf.dtype)
  out["robot"] = np.array([HAND, ARM, HAND, ARM], np.int32)[:size]
  out["actions_mask"] &= (
    np.arange(model.action_size)[None] < np.where(out["robot"] == ARM, 3, 5)[:, None]
  )[:, None]
  out["state_mask"] &= out["robot"] == ARM
  if size == 4:
    out["actions_mask"][2], out["latents_mask"][3] = False, False
    out["language_mask"][2], out["images_mask"][2, 1:] = False, False
    out["actions_mask"][1, 2:], out["latents_mask"][1, 1], out["language_mask"][1, 2] = (
      False,
      False,
      False,
    )
  return {name: jnp.asarray(value) for name, value in out.items()}


def junk(batch):
  """The same batch with other numbers, some not finite, wherever a mask says that there is
  nothing.
  """
  rng = np.random.default_rng(9)
  out = {name: np.array(value) for name, value in batch.items()}

  def spoil(name, mask, value):
    out[name] = np.where(mask, out[name], value).astype(out[name].dtype)

  spoil("actions", out["actions_mask"], np.nan)
  spoil("latents", out["latents_mask"][..., None], np.inf)
  spoil("language", out["language_mask"][..., None], 1e3)
  spoil("state", out["state_mask"][:, None], -7)
  spoil(
    "images",
    out["images_mask"][:, None, :, None, None, None],
    rng.integers(0, 256, out["images"].shape),
  )
  return {name: jnp.asarray(value) for name, value in out.items()}


def functions(kind, **changes):
  """(model, parameters, jitted losses and gradients of action x weights[0] + latent x weights[1]);
  compiled once.
  """
  return _functions(kind, json.dumps(changes))


@functools.cache
def _functions(kind, changes):
  model, params = made(BASES[kind], **json.loads(changes))

  def weighted(params, batch, key, weights):
    terms = model.losses(params, batch, key)
    return sum(weights[i] * terms[name][0] for i, name in enumerate(("action", "latent"))), terms

  return model, params, jit(jax.value_and_grad(weighted, has_aux=True))
