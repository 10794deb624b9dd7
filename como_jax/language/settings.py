"""The section `language` of a config."""

import dataclasses

import jax.numpy as jnp

# `language.kind` -> kind of model in the weights folder
KINDS = {"minilm": "bert", "t5": "t5", "clip": "clip", "hash": ""}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Settings:
  """The `language` section of a config.

  Attributes:
    kind: a key of KINDS.
    weights: folder written by `python -m como_jax.convert.text`; "" means the installed package
      (only for "minilm").
    pooled: True: one unit vector per text (L = 1). False: one vector per token, padded and cut to
      `num_tokens`.
    num_tokens: L if not pooled, including start and end tokens.
    width: E of "hash"; the other kinds have the width of their model.
    dtype: "float32", or "bfloat16" for encoders that are too large for the device.
  """

  kind: str
  weights: str = ""
  pooled: bool = True
  num_tokens: int = 32
  width: int = 64
  dtype: str = "float32"
