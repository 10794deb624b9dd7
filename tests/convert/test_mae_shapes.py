"""Shapes that a checkpoint must have."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.convert import mae
from tests.convert import layouts
from tests.convert.layouts import HEADS


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
