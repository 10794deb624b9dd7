"""Settings of models that cannot be are named; those at their limits are built."""

import pytest

from como_jax import errors, models
from tests.models import tiny
from tests.models.policy import small


@pytest.mark.parametrize(
  "base, changes, message",
  [
    (tiny.MAE, {"mask_ratio": 1.0}, "^model.mask_ratio 1.0 must be at least 0 and below 1$"),
    (tiny.MAE, {"mask_ratio": -0.1}, "^model.mask_ratio -0.1"),
    (tiny.MAE, {"mask_ratio": 0.0}, None),
    (tiny.MAE, {"mask_ratio": 0.99}, None),
    (
      tiny.MAE,
      {"decoder.width": 18},
      r"^model.decoder.width 18 must be a multiple of 4 \(sin-cos positions\)$",
    ),
    (tiny.MAE, {"decoder.width": 12}, None),
    (
      tiny.MAE,
      {"attention_kernel": "fuzed"},
      "^model.attention_kernel is 'fuzed'; did you mean 'fused'",
    ),
    (tiny.MAE, {"attention_kernel": "xla"}, None),
    (tiny.MAE, {"dtype": "float16"}, "^model.dtype is 'float16'; did you mean 'bfloat16'"),
    (tiny.MAE, {"remat": "al"}, "^model.remat is 'al'"),
    (tiny.MAE, {"image_size": 36}, "^image_size 36 is not a multiple of the encoder's patch 8$"),
    (tiny.MAE, {"bottleneck": {}}, "^unknown key model.bottleneck"),
    (tiny.MOTION, {"tcl_gradient": "some"}, "^model.tcl_gradient is 'some'"),
    (tiny.MOTION, {"tcl_gradient": "released"}, None),
    (tiny.MOTION, {"encoder": {"kind": "mae_vit"}}, "^missing key model.encoder.size$"),
    (tiny.MOTION, {"bottleneck": {"kind": "vq"}}, "^missing key model.bottleneck.latent_dim$"),
    (
      tiny.MOTION,
      {"bottleneck.num_codes": 3},
      "^unknown key model.bottleneck.num_codes; .*for another kind give the section whole: ",
    ),
    (tiny.MOTION, {"encoder.kind": "vit"}, "^model.encoder.kind is 'vit'"),
    (tiny.MOTION, {"kind": "motoin"}, "^model.kind is 'motoin'; did you mean 'motion'"),
    (tiny.MOTION, {"bottleneck.initializer": "mae"}, None),
    (tiny.MOTION, {"attention_kernel": "fused"}, None),
    (tiny.MOTION, {"fused_qkv": True, "token_multiple": 8}, None),
    (tiny.MAE, {"fused_qkv": True}, "^unknown key model.fused_qkv"),
    (tiny.MOTION, {"dtype": "bfloat16", "encoder.param_dtype": "bfloat16"}, None),
    (
      tiny.MOTION,
      {"encoder.param_dtype": "bfloat16"},
      "^model.encoder.param_dtype=bfloat16 needs model.dtype=bfloat16, it is 'float32'$",
    ),
    (
      tiny.MAE,
      {"dtype": "bfloat16", "encoder.param_dtype": "bfloat16"},
      "^model.encoder.param_dtype=bfloat16 needs model.kind=motion, it is 'mae'$",
    ),
    (tiny.MOTION, {"encoder.param_dtype": "half"}, "^model.encoder.param_dtype is 'half'"),
    *(
      (tiny.MOTION, {f"{part}.{name}": "other"}, f"^model.{part}.{name} is 'other'")
      for part, names in (
        ("fdm", ("output", "condition", "features", "initializer")),
        ("idm", ("inputs", "token_types", "patch_order", "initializer")),
      )
      for name in names
    ),
  ],
)
def test_configs_at_their_limits(base, changes, message):
  if message is None:
    models.build(small.section(base, **changes))
    return
  with pytest.raises(errors.UserError, match=message):
    models.build(small.section(base, **changes))


def test_a_config_without_a_kind():
  with pytest.raises(errors.UserError, match="^missing key model.kind$"):
    models.build({})
