"""Models: tables of valid names, and `build`, which makes a model from a `model` section."""

from typing import Any

import jax.numpy as jnp

from como_jax import errors
from como_jax.models import attention, config_utils, mae, sizes, specs, stacks
from como_jax.models.backbones import mae_vit
from como_jax.models.motion import bottleneck, como, fdm, idm, linear_path
from como_jax.models.policy import build as build_policy
from como_jax.models.policy import policy

ENCODERS = {"mae_vit": mae_vit.Encoder}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# keys that every kind of model has
SHARED = ("kind", "image_size", "dtype", "scan", "remat", "encoder")
# and optional keys: older checkpoints do not have them
OPTIONAL = ("attention_kernel",)
# optional keys of a motion model alone
OF_MOTION = ("fused_qkv", "token_multiple")


def build(config: Any) -> Any:
  """The model that a config describes.

  Args:
    config: the whole `model` section, a dict or ConfigDict.

  Returns:
    `mae.MAEModel`, `motion.como.MotionModel` or `policy.policy.PolicyModel`, by `config.kind`.

  Raises:
    errors.UserError: a key or value that is unknown, with the nearest valid one.
  """
  config = config_utils.plain(config)
  if "kind" not in config:
    config_utils.check(config, "model", required=SHARED, optional=tuple(config))
  return config_utils.lookup(KINDS, config["kind"], "model.kind")(config)


def without_repetition(config: Any) -> dict[str, Any]:
  """The section of the same model that repeats no operation to save memory; to count operations.

  Without rematerialization, and without the backward pass of fused attention.

  Args:
    config: the whole `model` section, a dict or ConfigDict.
  """
  return {**config_utils.plain(config), "remat": "none", "attention_kernel": "xla"}


def _common(config: dict[str, Any]) -> dict[str, Any]:
  """The fields that every transformer of the model shares."""
  config_utils.lookup(stacks.REMAT, config["remat"], "model.remat")
  dtype = config_utils.lookup(DTYPES, config["dtype"], "model.dtype")
  kernel = config.get("attention_kernel", "auto")
  config_utils.choice(attention.KERNELS, kernel, "model.attention_kernel")
  return {
    "dtype": dtype,
    "scan": config["scan"],
    "remat": config["remat"],
    "attention_kernel": kernel,
    "fused_qkv": config.get("fused_qkv", False),
    "token_multiple": config.get("token_multiple", 1),
  }


def _encoder(config: dict[str, Any], common: dict[str, Any]) -> mae_vit.Encoder:
  section = dict(config["encoder"])
  config_utils.check(section, "model.encoder", required=("kind", "size"), optional=tuple(section))
  constructor = config_utils.lookup(ENCODERS, section.pop("kind"), "model.encoder.kind")
  _check_param_dtype(section.get("param_dtype", "float32"), config)
  size = sizes.parse(section.pop("size"))
  size.grid(config["image_size"])  # refuses an image size that does not fit
  return config_utils.instantiate(
    constructor,
    section,
    "model.encoder",
    stack=config_utils.StackFields(
      {
        **common,
        "width": size.width,
        "depth": size.depth,
        "num_heads": size.num_heads,
        "mlp_dim": size.mlp_dim,
      },
      {"initializer": "mae"},
    ),
    patch=size.patch,
    image_size=config["image_size"],
  )


def _check_param_dtype(param_dtype: Any, config: dict[str, Any]) -> None:
  """Refuses weights that would be less precise than their products, or that are trained."""
  config_utils.lookup(DTYPES, param_dtype, "model.encoder.param_dtype")
  for key, expected in (("kind", "motion"), ("dtype", param_dtype)):
    if param_dtype != "float32" and config[key] != expected:
      raise errors.UserError(
        f"model.encoder.param_dtype={param_dtype} needs model.{key}={expected}, it is "
        f"{config[key]!r}"
      )


def _mae(config: dict[str, Any]) -> mae.MAEModel:
  config_utils.check(
    config,
    "model",
    required=(*SHARED, "decoder", "mask_ratio", "normalize_target"),
    optional=OPTIONAL,
  )
  common = _common(config)
  encoder = _encoder(config, common)
  decoder = config_utils.instantiate(
    mae.Decoder,
    config["decoder"],
    "model.decoder",
    stack=config_utils.StackFields(common, {"initializer": "mae"}),
    grid=encoder.grid,
    patch=encoder.patch,
  )
  if decoder.stack.width % 4:
    raise errors.UserError(
      f"model.decoder.width {decoder.stack.width} must be a multiple of 4 (sin-cos positions)"
    )
  if not 0 <= config["mask_ratio"] < 1:
    raise errors.UserError(
      f"model.mask_ratio {config['mask_ratio']} must be at least 0 and below 1"
    )
  return mae.MAEModel(config, encoder, decoder, config["mask_ratio"], config["normalize_target"])


def _motion(config: dict[str, Any]) -> como.MotionModel:
  config_utils.check(
    config,
    "model",
    required=(*SHARED, "idm", "bottleneck", "fdm", "tcl_gradient"),
    optional=(*OPTIONAL, *OF_MOTION),
  )
  config_utils.choice(como.TCL_GRADIENTS, config["tcl_gradient"], "model.tcl_gradient")
  common = _common(config)
  encoder = _encoder(config, common)
  stack, image_size = config_utils.StackFields(common), config["image_size"]
  num_patches = encoder.grid**2
  idm_section = dict(config["idm"])
  path_settings = linear_path.pop_settings(idm_section)
  qformer = idm.check(
    config_utils.instantiate(
      idm.QFormer, idm_section, "model.idm", stack=stack, num_patches=num_patches
    )
  )
  section = dict(config["bottleneck"])
  config_utils.check(
    section, "model.bottleneck", required=("kind", "latent_dim"), optional=tuple(section)
  )
  constructor = config_utils.lookup(
    bottleneck.BOTTLENECKS, section["kind"], "model.bottleneck.kind"
  )
  kind = section.pop("kind")
  section.setdefault("initializer", qformer.stack.initializer)
  bottleneck_module = config_utils.instantiate(constructor, section, "model.bottleneck")
  latent = specs.LatentSpec(qformer.num_queries, bottleneck_module.latent_dim)
  path = None
  if path_settings:
    path = linear_path.LinearPath(latent=latent, num_patches=num_patches, **path_settings)
    linear_path.check(path, idm_section, kind, image_size)
    bottleneck_module = bottleneck_module.clone(zero=True)  # z starts as the components alone
  decoder = fdm.check(
    config_utils.instantiate(
      fdm.FDM,
      config["fdm"],
      "model.fdm",
      stack=stack,
      latent=latent,
      image_size=image_size,
      patch=encoder.patch,
      features_width=encoder.width,
    )
  )
  return como.MotionModel(
    config, encoder, qformer, bottleneck_module, decoder, config["tcl_gradient"], linear_path=path
  )


def _policy(config: dict[str, Any]) -> policy.PolicyModel:
  kind = config_utils.choice(build_policy.ACTION_HEADS, config.get("policy"), "model.policy")
  # may stay in a config that chose another action head
  others = tuple(name for name in build_policy.ACTION_HEADS if name != kind)
  config_utils.check(
    config, "model", required=(*SHARED, *build_policy.KEYS, kind), optional=(*OPTIONAL, *others)
  )
  common = _common(config)
  return build_policy.policy_model(config, _encoder(config, common), common)


KINDS = {"mae": _mae, "motion": _motion, "policy": _policy}
