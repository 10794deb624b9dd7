"""Complete model sections as plain dicts: the published sizes, and a size for a laptop."""

import copy
from typing import Any

from como_jax import errors

MOTION: dict[str, dict[str, Any]] = {
  # CoMo as published: 121 M trainable parameters with VQ, 120.6 M without, beside the frozen
  # 303.3 M of ViT-L.
  "published": {
    "kind": "motion",
    "image_size": 224,
    "dtype": "bfloat16",
    "scan": True,
    "remat": "dots_no_batch",
    "attention_kernel": "auto",
    "fused_qkv": False,
    "token_multiple": 1,
    "encoder": {"kind": "mae_vit", "size": "L/16", "epsilon": 1e-12, "param_dtype": "float32"},
    "idm": {
      "inputs": "feature_diff",
      "width": 768,
      "depth": 4,
      "num_heads": 12,
      "mlp_dim": 3072,
      "num_queries": 8,
      "token_types": "legacy",
      "patch_order": "raster",
      "initializer": "vit",
      "components": 0,
      "components_pool": 1,
      "components_of": "features",
    },
    "bottleneck": {"kind": "continuous", "latent_dim": 16},
    "fdm": {
      "width": 768,
      "depth": 12,
      "num_heads": 12,
      "mlp_dim": 3072,
      "output": "direct",
      "condition": "add",
      "features": "none",
      "initializer": "vit",
    },
    "tcl_gradient": "all",
  },
  "debug": {
    "kind": "motion",
    "image_size": 64,
    "dtype": "float32",
    "scan": True,
    "remat": "none",
    "attention_kernel": "auto",
    "fused_qkv": False,
    "token_multiple": 1,
    "encoder": {"kind": "mae_vit", "size": "debug/8", "epsilon": 1e-12, "param_dtype": "float32"},
    "idm": {
      "inputs": "feature_diff",
      "width": 128,
      "depth": 2,
      "num_heads": 2,
      "mlp_dim": 512,
      "num_queries": 4,
      "token_types": "legacy",
      "patch_order": "raster",
      "initializer": "mae",
      "components": 0,
      "components_pool": 1,
      "components_of": "features",
    },
    "bottleneck": {"kind": "continuous", "latent_dim": 8},
    "fdm": {
      "width": 128,
      "depth": 3,
      "num_heads": 2,
      "mlp_dim": 512,
      "output": "residual",
      "condition": "add",
      "features": "none",
      "initializer": "mae",
    },
    "tcl_gradient": "all",
  },
}

# CoMo as published with what saves time or memory on accelerators. Only rounding differs.
MOTION["fast"] = {
  **copy.deepcopy(MOTION["published"]),
  "remat": "dots_attention",
  "encoder": {**MOTION["published"]["encoder"], "param_dtype": "bfloat16"},
}

MAE: dict[str, dict[str, Any]] = {
  "published": {
    "kind": "mae",
    "image_size": 224,
    "dtype": "bfloat16",
    "scan": True,
    "remat": "dots_no_batch",
    "attention_kernel": "auto",
    "encoder": {"kind": "mae_vit", "size": "L/16", "epsilon": 1e-12},
    "decoder": {"width": 512, "depth": 8, "num_heads": 16, "mlp_dim": 2048},
    "mask_ratio": 0.75,
    "normalize_target": True,
  },
  "debug": {
    "kind": "mae",
    "image_size": 64,
    "dtype": "float32",
    "scan": True,
    "remat": "none",
    "attention_kernel": "auto",
    "encoder": {"kind": "mae_vit", "size": "debug/8", "epsilon": 1e-12},
    "decoder": {"width": 96, "depth": 2, "num_heads": 4, "mlp_dim": 384},
    "mask_ratio": 0.75,
    "normalize_target": True,
  },
}


# Sizes for plans (configs/compile.py). A run has the robots of its data, which policy.json names.
_ROBOT = {"robot": {"action": 4, "state": 4}}

_DIFFUSION: dict[str, Any] = {
  "objective": "flow",
  "num_sampling_steps": 10,
  "flow": {"time": "beta", "alpha": 1.5, "cut": 0.999},
  "ddpm": {
    "num_train_timesteps": 100,
    "schedule": "cosine",
    "prediction": "v",
    "sampler": "ddim",
    "clip": 5.0,
  },
}

_POLICY = {
  # The sizes of CoMo's policies are not published: its DiT is given GPT's, and pi0's distribution
  # of times.
  "published": {
    "kind": "policy",
    "image_size": 224,
    "dtype": "bfloat16",
    "scan": True,
    "remat": "dots_no_batch",
    "attention_kernel": "auto",
    "encoder": {"kind": "mae_vit", "size": "L/16", "epsilon": 1e-12},
    "history": 1,
    "num_cameras": 2,
    "pool": 1,
    "language": {"width": 384, "num_tokens": 1},
    "robots": _ROBOT,
    "action_horizon": 16,
    "latent": {"num_queries": 8, "latent_dim": 16, "motion_horizon": 4},
    "language_dropout": 0.1,
  },
  "debug": {
    "kind": "policy",
    "image_size": 64,
    "dtype": "float32",
    "scan": True,
    "remat": "none",
    "attention_kernel": "auto",
    "encoder": {"kind": "mae_vit", "size": "debug/8", "epsilon": 1e-12},
    "history": 1,
    "num_cameras": 1,
    "pool": 2,
    "language": {"width": 384, "num_tokens": 1},
    "robots": _ROBOT,
    "action_horizon": 8,
    "latent": {"num_queries": 4, "latent_dim": 8, "motion_horizon": 2},
    "language_dropout": 0.1,
  },
}

_GPT = {
  "tokens": "query",
  "prefix": "causal",
  "position": "learned",
  "motion_dropout": 0.5,
  "inference": "hidden",
  "motion_head": "regression",
  "action_head": "regression",
  "loss": "smooth_l1",
  "gripper": {},
  "mixture": {"components": 5, "temperature": 1.0},
  **_DIFFUSION,
}

POLICY: dict[str, dict[str, Any]] = {
  "published": {
    **_POLICY["published"],
    "policy": "dit",
    "trunk": {"width": 768, "depth": 4, "num_heads": 12, "mlp_dim": 3072},
    "dit": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072, **_DIFFUSION},
  },
  # Moto-GPT: 12 x 768, ReLU, no trunk below it, two future motions, the action loss weighs 100.
  "published_gpt": {
    **_POLICY["published"],
    "policy": "gpt",
    "action_horizon": 5,
    "latent": {"num_queries": 8, "latent_dim": 16, "motion_horizon": 2},
    "trunk": {"width": 768, "depth": 0, "num_heads": 12, "mlp_dim": 3072},
    "gpt": {
      "width": 768,
      "depth": 12,
      "num_heads": 12,
      "mlp_dim": 3072,
      "activation": "relu",
      "initializer": "vit",
      "action_weight": 100.0,
      "denoiser": {"width": 1024, "depth": 3},
      **_GPT,
    },
  },
  "debug": {
    **_POLICY["debug"],
    "policy": "dit",
    "trunk": {"width": 128, "depth": 2, "num_heads": 4, "mlp_dim": 512},
    "dit": {"width": 128, "depth": 3, "num_heads": 4, "mlp_dim": 512, **_DIFFUSION},
  },
  "debug_gpt": {
    **_POLICY["debug"],
    "policy": "gpt",
    "trunk": {"width": 128, "depth": 0, "num_heads": 4, "mlp_dim": 512},
    "gpt": {
      "width": 128,
      "depth": 4,
      "num_heads": 4,
      "mlp_dim": 512,
      "activation": "gelu",
      "action_weight": 1.0,
      "denoiser": {"width": 128, "depth": 2},
      **_GPT,
    },
  },
}


def preset(kind: str, name: str) -> dict[str, Any]:
  """A fresh copy of a model section.

  Args:
    kind: "motion", "mae" or "policy".
    name: "published" or "debug"; a motion model also has "fast", a policy "published_gpt" and
      "debug_gpt".

  Raises:
    errors.UserError: unknown kind or name.
  """
  tables = {"motion": MOTION, "mae": MAE, "policy": POLICY}
  if kind not in tables:
    raise errors.UserError(f"model.kind {kind!r}: {errors.nearest(kind, tables)}")
  if name not in tables[kind]:
    raise errors.UserError(
      f"no preset {name!r} for model.kind {kind!r}: {errors.nearest(name, tables[kind])}"
    )
  return copy.deepcopy(tables[kind][name])
