r"""Converts published MAE and ViT weights to a weights-only folder.

    python -m como_jax.convert.mae SOURCE OUTPUT [--dtype float32|bfloat16] [--decoder] \
        [--heads N] [--overwrite]

SOURCE is a file or a folder in one of three layouts, which are detected by the names of the
tensors: Hugging Face (ViTMAEModel and ViTMAEForPreTraining, for example `facebook/vit-mae-large`),
timm (`vit_large_patch16_224.mae`) and the original release of MAE (He et al., arXiv 2111.06377).

Sources of the layouts: transformers (models/vit_mae), timm (models/vision_transformer),
facebookresearch/mae (models_mae).
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, trees, weights
from como_jax.convert import mae_layouts, mae_shapes, mapping, source

_SIZES = {
  (192, 12, 3): "Ti",
  (384, 12, 6): "S",
  (768, 12, 12): "B",
  (1024, 24, 16): "L",
  (1280, 32, 16): "H",
}
# Epsilon of LayerNorm, if there is no config.json.
_EPSILON = {"huggingface": 1e-12, "timm": 1e-6, "original": 1e-6}


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  *,
  config: Mapping[str, Any] | None = None,
  decoder: bool = False,
  heads: int | None = None,
  what: str = "checkpoint",
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts named arrays of any of the three layouts to our parameters.

  Args:
    tensors: {foreign name: array}.
    config: config.json of Hugging Face, from which the number of heads and the epsilon of LayerNorm
      are taken; {} or None: there is none.
    decoder: also convert the pixel decoder.
    heads: attention heads of the encoder; None: from `config`, else width / 64 (16 for ViT-H).
    what: name of the source in messages.

  Returns:
    ({"encoder": ..., with `decoder` also "decoder"}, facts: {"kind": "mae_encoder" or "mae",
    "size", "image_size", "layout", ...}).

  Raises:
    errors.UserError: names are missing or left over, shapes are wrong, or config.json disagrees.
  """
  config = config or {}
  layout = mae_layouts.detect(list(tensors), what=what)
  if decoder and layout == "timm":
    raise errors.UserError(
      f"{what} has no pixel decoder (no names starting with 'decoder_'); leave the decoder out"
    )
  tensors = mapping.rename(tensors, mae_layouts.SPELLINGS[layout], what=what)
  table = mae_layouts.rules(layout, decoder=decoder)
  ignore = mae_layouts.IGNORED[layout] + (() if decoder else (mae_layouts.DECODER[layout],))
  measured = mae_shapes.measure(tensors, layout)
  shapes = mae_shapes.expected(tensors, layout, measured, decoder=decoder) if measured else None
  params = mapping.apply(table, tensors, ignore=ignore, shapes=shapes, what=what)
  if measured is None:
    raise errors.UserError(
      f"{what}: positions or patch projection have an unexpected shape: "
      f"{params['encoder']['position'].shape}, {params['encoder']['patch']['kernel'].shape}"
    )
  num_heads: float = (
    heads
    if heads is not None
    else config.get("num_attention_heads")
    or (16 if measured.width == 1280 else measured.width / 64)
  )
  encoder = mae_shapes.of_params(params["encoder"], num_heads, what=f"{what}: encoder")
  patch, image_size = measured.patch, measured.grid * measured.patch
  _agree(config, encoder, patch, image_size, what=what)
  size_name = _SIZES.get(
    (encoder.width, encoder.depth, encoder.num_heads),
    f"{encoder.width}x{encoder.depth}x{encoder.num_heads}",
  )
  facts = {
    "kind": "mae" if decoder else "mae_encoder",
    "size": f"{size_name}/{patch}",
    "image_size": image_size,
    "layout": layout,
    "layer_norm_epsilon": float(config.get("layer_norm_eps", _EPSILON[layout])),
  }
  if decoder:
    width = params["decoder"]["norm"]["scale"].shape[0]
    decoder_shape = mae_shapes.of_params(
      params["decoder"],
      config.get("decoder_num_attention_heads") or width / 32,
      what=f"{what}: decoder",
    )
    facts["decoder"] = dataclasses.asdict(decoder_shape)
  return params, facts


def convert(
  path: str,
  output: str,
  *,
  dtype: str = "float32",
  decoder: bool = False,
  heads: int | None = None,
  overwrite: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads SOURCE and writes the weights-only folder OUTPUT.

  Args:
    path: SOURCE.
    output: OUTPUT.
    dtype: "float32" or "bfloat16".
    decoder: as for `from_tensors`.
    heads: as for `from_tensors`.
    overwrite: replace OUTPUT if it is a weights-only folder.

  Returns:
    (parameters, facts), as `weights.load` will return them.

  Raises:
    errors.UserError: OUTPUT cannot be written, or SOURCE cannot be read or converted.
  """
  weights.check_writable(output, overwrite=overwrite)
  source_path, output_path = pathlib.Path(path).resolve(), pathlib.Path(output).resolve()
  if output_path == source_path or output_path in source_path.parents:
    raise errors.UserError(f"{output} is, or holds, the source {path}; choose another output")
  checkpoint = source.read(path)
  params, facts = from_tensors(
    checkpoint.tensors, config=checkpoint.config, decoder=decoder, heads=heads, what=path
  )
  facts = {**facts, "dtype": dtype, "source": checkpoint.name, "sha256": checkpoint.sha256}
  params = trees.unflatten(
    {name: weights.cast(leaf, dtype) for name, leaf in trees.flatten(params).items()}
  )
  weights.save(output, params, facts, overwrite=overwrite)
  return params, facts


def summary(params: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
  """A table of the leaves, parameters and sizes of each part, followed by the facts."""
  flat = trees.flatten(params)
  parts: dict[str, list[np.ndarray]] = {}
  for name, leaf in flat.items():
    parts.setdefault("/".join(name.split("/")[:2]), []).append(leaf)
  rows = [("part", "leaves", "parameters", "MiB")]
  for name, leaves in [*parts.items(), ("total", list(flat.values()))]:
    rows.append(
      (
        name,
        str(len(leaves)),
        f"{sum(leaf.size for leaf in leaves):,}",
        f"{sum(leaf.nbytes for leaf in leaves) / 2**20:,.1f}",
      )
    )
  lines = [f"{name:<20}{leaves:>8}{count:>16}{size:>10}" for name, leaves, count, size in rows]
  return "\n".join(lines + [f"{key}: {value}" for key, value in facts.items()])


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code: 0 done, 2 bad input."""
  parser = argparse.ArgumentParser(
    prog="python -m como_jax.convert.mae",
    description="MAE or ViT weights -> a weights-only folder.",
  )
  parser.add_argument(
    "source", help="checkpoint file, or folder with one (Hugging Face, timm or original MAE)"
  )
  parser.add_argument("output", help="folder to write")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument(
    "--decoder", action="store_true", help="also convert the pixel decoder, to train on as an MAE"
  )
  parser.add_argument(
    "--heads", type=int, help="attention heads, if no config.json tells and they are not width / 64"
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace OUTPUT if it is a weights-only folder"
  )
  args = parser.parse_args(argv)
  try:
    params, facts = convert(
      args.source,
      args.output,
      dtype=args.dtype,
      decoder=args.decoder,
      heads=args.heads,
      overwrite=args.overwrite,
    )
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(summary(params, facts))
  print(f"written: {args.output}")
  return 0


def _agree(
  config: Mapping[str, Any], shape: mae_shapes.Shape, patch: int, image_size: int, *, what: str
) -> None:
  """Checks that the config.json of Hugging Face agrees with the tensors."""
  expected = {
    "hidden_size": shape.width,
    "num_hidden_layers": shape.depth,
    "intermediate_size": shape.mlp_dim,
    "patch_size": patch,
    "image_size": image_size,
    "hidden_act": "gelu",
    "qkv_bias": True,
  }
  differences = [
    f"{key} {config[key]!r} instead of {value!r}"
    for key, value in expected.items()
    if config.get(key, value) != value
  ]
  if differences:
    raise errors.UserError(
      f"{what}: the config.json beside it does not describe this ViT: {', '.join(differences)}"
    )


if __name__ == "__main__":
  sys.exit(main())
