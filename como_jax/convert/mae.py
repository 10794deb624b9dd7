r"""Published MAE and ViT weights -> our weights-only folder.

    python -m como_jax.convert.mae SOURCE OUTPUT [--dtype float32|bfloat16] [--decoder] \
        [--heads N] [--overwrite]

SOURCE is a file or a folder in one of three layouts, told apart by their names: Hugging Face
(ViTMAEModel and ViTMAEForPreTraining, for example `facebook/vit-mae-large`), timm
(`vit_large_patch16_224.mae`) and the original release of MAE (He et al., arXiv 2111.06377). Where
the layouts come from: transformers (models/vit_mae), timm (models/vision_transformer),
facebookresearch/mae (models_mae).
"""

import argparse
import dataclasses
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, trees, weights
from como_jax.convert import mapping, source

Rule = mapping.Rule

_SIZES = {
  (192, 12, 3): "Ti",
  (384, 12, 6): "S",
  (768, 12, 12): "B",
  (1024, 24, 16): "L",
  (1280, 32, 16): "H",
}
# of LayerNorm, where no config.json tells
_EPSILON = {"huggingface": 1e-12, "timm": 1e-6, "original": 1e-6}
_IGNORED = {  # heads of other tasks
  "huggingface": (r"vit\.(classifier|pooler|layernorm_pool)\..*",),
  "timm": (r"(head|fc_norm|head_drop)\..*",),
  "original": (r"(head|fc_norm)\..*",),
}
_DECODER = {"huggingface": r"decoder\..*", "timm": r"(?!)", "original": r"decoder_.*|mask_token"}

# transformers 5 has new names in memory, saves the encoder under the old ones, and the decoder
# under a third spelling.
_SPELLINGS = {
  "huggingface": (
    (r"^(?!vit\.|decoder\.)", "vit."),
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
  ),
  "timm": (),
  "original": (),
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """A transformer's sizes: width, layers, attention heads, width of the MLP."""

  width: int
  depth: int
  heads: int
  mlp: int


def detect(names: Sequence[str], *, what: str = "checkpoint") -> str:
  """The format, "huggingface", "timm" or "original", by the names of a checkpoint's tensors."""

  def some(*starts: str) -> bool:
    return any(name.startswith(starts) for name in names)

  if some("embeddings.", "encoder.layer.", "vit.", "layers."):
    return "huggingface"
  if some("blocks.", "patch_embed."):
    return "original" if some("decoder_") else "timm"
  raise errors.UserError(
    f"{what} is not an MAE or ViT checkpoint: no 'embeddings.', 'blocks.' or 'patch_embed.' among "
    f"its {len(names)} names ({', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''})"
  )


def rules(layout: str, *, decoder: bool = False) -> list[Rule]:
  """The table of a layout; with `decoder` also the pixel decoder."""
  if layout == "huggingface":
    table = _huggingface("vit.", "encoder.layer", "encoder") + [
      Rule("vit.embeddings.cls_token", "encoder/cls"),
      Rule("vit.embeddings.position_embeddings", "encoder/position"),
      *_patch("vit.embeddings.patch_embeddings.projection"),
      *_norm("vit.layernorm", "encoder/norm"),
    ]
    more = _huggingface("decoder.", "decoder_layers", "decoder") + _decoder(
      "decoder.decoder_", "decoder.mask_token"
    )
  else:
    table = _timm("blocks", "encoder") + [
      Rule("cls_token", "encoder/cls"),
      Rule("pos_embed", "encoder/position"),
      *_patch("patch_embed.proj"),
      *_norm("norm", "encoder/norm"),
    ]
    more = _timm("decoder_blocks", "decoder") + _decoder("decoder_", "mask_token")
  return table + (more if decoder else [])


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  *,
  config: Mapping[str, Any] | None = None,
  decoder: bool = False,
  heads: int | None = None,
  what: str = "checkpoint",
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Named arrays of any of the three layouts -> our parameters and what they are.

  Args:
    tensors: {foreign name: array}.
    config: Hugging Face's config.json, {} or None without one: heads and LayerNorm's epsilon are
      taken from it.
    decoder: also convert the pixel decoder.
    heads: attention heads of the encoder; None: from `config`, else width / 64 (16 for ViT-H).
    what: names the source in messages.

  Returns:
    ({"encoder": ..., "decoder" if asked}, {"kind": "mae_encoder" or "mae", "size", "image_size",
    "layout", ...}).

  Raises:
    errors.UserError: names missing or left over, wrong shapes, a config.json that says otherwise.
  """
  config = config or {}
  layout = detect(list(tensors), what=what)
  if decoder and layout == "timm":
    raise errors.UserError(
      f"{what} has no pixel decoder (no names starting with 'decoder_'); leave the decoder out"
    )
  tensors = mapping.rename(tensors, _SPELLINGS[layout], what=what)
  table = rules(layout, decoder=decoder)
  ignore = _IGNORED[layout] + (() if decoder else (_DECODER[layout],))
  measured = _measure(tensors, layout)
  shapes = _shapes(tensors, layout, decoder=decoder, **measured) if measured else None
  params = mapping.apply(table, tensors, ignore=ignore, shapes=shapes, what=what)
  if measured is None:
    raise errors.UserError(
      f"{what}: positions or patch projection have an unexpected shape: "
      f"{params['encoder']['position'].shape}, {params['encoder']['patch']['kernel'].shape}"
    )
  if heads is None:
    heads = config.get("num_attention_heads") or (
      16 if measured["width"] == 1280 else measured["width"] / 64
    )
  encoder = _shape(params["encoder"], heads, what=f"{what}: encoder")
  patch, image_size = measured["patch"], measured["grid"] * measured["patch"]
  _agree(config, encoder, patch, image_size, what=what)
  named = _SIZES.get(
    (encoder.width, encoder.depth, encoder.heads),
    f"{encoder.width}x{encoder.depth}x{encoder.heads}",
  )
  facts = {
    "kind": "mae" if decoder else "mae_encoder",
    "size": f"{named}/{patch}",
    "image_size": image_size,
    "layout": layout,
    "layer_norm_epsilon": float(config.get("layer_norm_eps", _EPSILON[layout])),
  }
  if decoder:
    width = params["decoder"]["norm"]["scale"].shape[0]
    found = _shape(
      params["decoder"],
      config.get("decoder_num_attention_heads") or width / 32,
      what=f"{what}: decoder",
    )
    facts["decoder"] = dataclasses.asdict(found)
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
  """Reads SOURCE and writes our folder OUTPUT; returns what `weights.load` will.

  Raises errors.UserError.
  """
  weights.check_writable(output, overwrite=overwrite)
  here, there = pathlib.Path(path).resolve(), pathlib.Path(output).resolve()
  if there == here or there in here.parents:
    raise errors.UserError(f"{output} is, or holds, the source {path}; choose another output")
  found = source.read(path)
  params, facts = from_tensors(
    found.tensors, config=found.config, decoder=decoder, heads=heads, what=path
  )
  facts = {**facts, "dtype": dtype, "source": found.name, "sha256": found.sha256}
  params = trees.unflatten(
    {name: weights.cast(leaf, dtype) for name, leaf in trees.flatten(params).items()}
  )
  weights.save(output, params, facts, overwrite=overwrite)
  return params, facts


def summary(params: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
  """A table of leaves, parameters and size for each part, and the facts below it."""
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
  """The command line; 0 done, 2 bad input."""
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


def _linear(name: str, target: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{target}/kernel", "o i -> i o"),
    Rule(f"{name}.bias", f"{target}/bias"),
  ]


def _norm(name: str, target: str) -> list[Rule]:
  return [Rule(f"{name}.weight", f"{target}/scale"), Rule(f"{name}.bias", f"{target}/bias")]


def _patch(name: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", "encoder/patch/kernel", "d c p q -> p q c d"),
    Rule(f"{name}.bias", "encoder/patch/bias"),
  ]


def _decoder(prefix: str, mask_token: str) -> list[Rule]:
  return [
    Rule(mask_token, "decoder/mask_token"),
    Rule(f"{prefix}pos_embed", "decoder/position"),
    *_linear(f"{prefix}embed", "decoder/embed"),
    *_norm(f"{prefix}norm", "decoder/norm"),
    *_linear(f"{prefix}pred", "decoder/head"),
  ]


def _huggingface(prefix: str, stack: str, ours: str) -> list[Rule]:
  layer, blocks = f"{prefix}{stack}.{mapping.LAYER}.", f"{ours}/blocks/"
  return [
    *_norm(layer + "layernorm_before", blocks + "norm_attention"),
    *(
      rule
      for part in ("query", "key", "value")
      for rule in _linear(f"{layer}attention.attention.{part}", f"{blocks}attention/{part}")
    ),
    *_linear(layer + "attention.output.dense", blocks + "attention/output"),
    *_norm(layer + "layernorm_after", blocks + "norm_mlp"),
    *_linear(layer + "intermediate.dense", blocks + "mlp/up"),
    *_linear(layer + "output.dense", blocks + "mlp/down"),
  ]


def _timm(stack: str, ours: str) -> list[Rule]:
  layer, blocks = f"{stack}.{mapping.LAYER}.", f"{ours}/blocks/"
  heads = tuple(f"{blocks}attention/{part}" for part in ("query", "key", "value"))
  return [
    *_norm(layer + "norm1", blocks + "norm_attention"),
    Rule(
      layer + "attn.qkv.weight", tuple(f"{part}/kernel" for part in heads), "(part o) i -> part i o"
    ),
    Rule(layer + "attn.qkv.bias", tuple(f"{part}/bias" for part in heads), "(part o) -> part o"),
    *_linear(layer + "attn.proj", blocks + "attention/output"),
    *_norm(layer + "norm2", blocks + "norm_mlp"),
    *_linear(layer + "mlp.fc1", blocks + "mlp/up"),
    *_linear(layer + "mlp.fc2", blocks + "mlp/down"),
  ]


def _measure(tensors: Mapping[str, np.ndarray], layout: str) -> dict[str, int] | None:
  """Width, patch and patches a side, from the patch projection and the positions; None if those are
  absent or odd.
  """
  foreign = {rule.target: rule.source for rule in rules(layout)}
  kernel, position = (
    np.shape(tensors.get(foreign[f"encoder/{part}"], 0.0)) for part in ("patch/kernel", "position")
  )
  if len(kernel) != 4 or len(position) != 3:
    return None
  grid = math.isqrt(max(position[1] - 1, 0))
  return (
    {"width": kernel[0], "patch": kernel[2], "grid": grid}
    if grid and grid * grid + 1 == position[1]
    else None
  )


def _shapes(
  tensors: Mapping[str, np.ndarray],
  layout: str,
  *,
  decoder: bool,
  width: int,
  patch: int,
  grid: int,
) -> dict[str, tuple]:
  """Our names and the shapes they must have for an encoder of this width, patch and grid, as deep
  as it is.
  """

  def stack(part: str, width: int) -> dict[str, tuple]:
    first = next(
      rule for rule in rules(layout, decoder=decoder) if rule.target == f"{part}/blocks/mlp/up/bias"
    )
    before, after = first.source.split(mapping.LAYER)
    depth = sum(name.startswith(before) and name.endswith(after) for name in tensors)
    blocks = {
      "norm_attention/scale": (width,),
      "norm_attention/bias": (width,),
      "norm_mlp/scale": (width,),
      "norm_mlp/bias": (width,),
      "mlp/up/kernel": (width, 4 * width),
      "mlp/up/bias": (4 * width,),
      "mlp/down/kernel": (4 * width, width),
      "mlp/down/bias": (width,),
    }
    for head in ("query", "key", "value", "output"):
      blocks |= {f"attention/{head}/kernel": (width, width), f"attention/{head}/bias": (width,)}
    return {
      "norm/scale": (width,),
      "norm/bias": (width,),
      "position": (1, grid * grid + 1, width),
      **{f"blocks/{name}": (depth, *shape) for name, shape in blocks.items()},
    }

  encoder = {
    **stack("encoder", width),
    "cls": (1, 1, width),
    "patch/kernel": (patch, patch, 3, width),
    "patch/bias": (width,),
  }
  shapes = {f"encoder/{name}": shape for name, shape in encoder.items()}
  if decoder:
    token = next(
      rule.source for rule in rules(layout, decoder=True) if rule.target == "decoder/mask_token"
    )
    inner = np.shape(tensors.get(token, 0.0))[-1:] or (0,)
    pixels = 3 * patch * patch
    ours = {
      **stack("decoder", inner[0]),
      "embed/kernel": (width, *inner),
      "embed/bias": inner,
      "mask_token": (1, 1, *inner),
      "head/kernel": (*inner, pixels),
      "head/bias": (pixels,),
    }
    shapes |= {f"decoder/{name}": shape for name, shape in ours.items()}
  return shapes


def _shape(params: Mapping[str, Any], heads: float, *, what: str) -> Shape:
  depth, width, mlp = params["blocks"]["mlp"]["up"]["kernel"].shape
  if heads != int(heads) or heads < 1 or width % int(heads):
    raise errors.UserError(
      f"{what} of width {width} cannot have {heads:g} attention heads; say how many (--heads)"
    )
  return Shape(width, depth, int(heads), mlp)


def _agree(
  config: Mapping[str, Any], found: Shape, patch: int, image_size: int, *, what: str
) -> None:
  """What Hugging Face's config.json says must be what the tensors are."""
  expected = {
    "hidden_size": found.width,
    "num_hidden_layers": found.depth,
    "intermediate_size": found.mlp,
    "patch_size": patch,
    "image_size": image_size,
    "hidden_act": "gelu",
    "qkv_bias": True,
  }
  wrong = [
    f"{key} {config[key]!r} instead of {value!r}"
    for key, value in expected.items()
    if config.get(key, value) != value
  ]
  if wrong:
    raise errors.UserError(
      f"{what}: the config.json beside it does not describe this ViT: {', '.join(wrong)}"
    )


if __name__ == "__main__":
  sys.exit(main())
