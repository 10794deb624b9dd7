"""Complete model sections as plain dicts, to start a config from: the published numbers, and a size for a laptop."""

import copy
from typing import Any

from como_jax import errors

MOTION: dict[str, dict[str, Any]] = {
    # CoMo as published: 121 M trainable parameters with VQ, 120.6 M without, beside the frozen 303.3 M of ViT-L.
    "published": {
        "kind": "motion",
        "image_size": 224,
        "dtype": "bfloat16",
        "scan": True,
        "remat": "dots_no_batch",
        "encoder": {"kind": "mae_vit", "size": "L/16", "epsilon": 1e-12},
        "idm": {"inputs": "feature_diff", "width": 768, "depth": 4, "heads": 12, "mlp": 3072, "queries": 8,
                "token_types": "legacy", "patch_order": "raster", "initialiser": "vit"},
        "bottleneck": {"kind": "continuous", "dims": 16},
        "fdm": {"width": 768, "depth": 12, "heads": 12, "mlp": 3072, "output": "direct", "condition": "add",
                "features": "none", "initialiser": "vit"},
        "tcl_gradient": "all",
    },
    "debug": {
        "kind": "motion",
        "image_size": 64,
        "dtype": "float32",
        "scan": True,
        "remat": "none",
        "encoder": {"kind": "mae_vit", "size": "debug/8", "epsilon": 1e-12},
        "idm": {"inputs": "feature_diff", "width": 128, "depth": 2, "heads": 2, "mlp": 512, "queries": 4,
                "token_types": "legacy", "patch_order": "raster", "initialiser": "mae"},
        "bottleneck": {"kind": "continuous", "dims": 8},
        "fdm": {"width": 128, "depth": 3, "heads": 2, "mlp": 512, "output": "residual", "condition": "add",
                "features": "none", "initialiser": "mae"},
        "tcl_gradient": "all",
    },
}

MAE: dict[str, dict[str, Any]] = {
    "published": {
        "kind": "mae",
        "image_size": 224,
        "dtype": "bfloat16",
        "scan": True,
        "remat": "dots_no_batch",
        "encoder": {"kind": "mae_vit", "size": "L/16", "epsilon": 1e-12},
        "decoder": {"width": 512, "depth": 8, "heads": 16, "mlp": 2048},
        "mask_ratio": 0.75,
        "normalise_target": True,
    },
    "debug": {
        "kind": "mae",
        "image_size": 64,
        "dtype": "float32",
        "scan": True,
        "remat": "none",
        "encoder": {"kind": "mae_vit", "size": "debug/8", "epsilon": 1e-12},
        "decoder": {"width": 96, "depth": 2, "heads": 4, "mlp": 384},
        "mask_ratio": 0.75,
        "normalise_target": True,
    },
}


def preset(kind: str, name: str) -> dict[str, Any]:
  """A fresh copy of the model section `name` ("published", "debug") of a kind ("motion", "mae").

  Raises:
    errors.UserError: unknown kind or name.
  """
  tables = {"motion": MOTION, "mae": MAE}
  if kind not in tables:
    raise errors.UserError(f"model.kind {kind!r}: {errors.nearest(kind, tables)}")
  if name not in tables[kind]:
    raise errors.UserError(f"no preset {name!r} for model.kind {kind!r}: {errors.nearest(name, tables[kind])}")
  return copy.deepcopy(tables[kind][name])
