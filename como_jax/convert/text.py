r"""Published text encoders of Hugging Face -> our weights folder, with the tokenizer beside the
weights.

    python -m como_jax.convert.text SOURCE_FOLDER OUT_FOLDER [--dtype float32|bfloat16] \
        [--overwrite]

SOURCE_FOLDER holds config.json, tokenizer.json and safetensors or torch weights, whole or in
shards, of one of three kinds, told by "model_type" in config.json:

    bert BERT and what shares its body, MiniLM for example (sentence-transformers' pooling is read
    if it is there)
    t5    the encoder of T5, T5 1.1, Flan-T5 or mT5; a decoder is left out
    clip  the text tower of CLIP, alone or with an image tower, which is left out

Where the names come from: transformers (models/bert, models/t5, models/clip).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, trees, weights
from como_jax.convert import mae, mapping, source

Rule = mapping.Rule

TOKENIZER = "tokenizer.json"
# those of models.text.layers
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
_T5_LENGTH = 512  # tokens that T5 was trained with; it has no table of positions that would say


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one kind is stored. `sizes` reads config.json, `rules` and `shapes` are for those sizes."""

  kind: str
  sizes: Callable[["Facts", Mapping[str, np.ndarray]], dict[str, Any]]
  rules: Callable[[Mapping[str, Any]], list[Rule]]
  shapes: Callable[[Mapping[str, Any]], dict[str, tuple[int, ...]]]
  spellings: tuple[tuple[str, str], ...]
  ignore: tuple[str, ...]


class Facts:
  """A config.json whose entries are checked as they are read; `what` names it in messages."""

  def __init__(self, config: Mapping[str, Any], what: str):
    self._config, self.what = config, what

  def get(self, key: str, kind: type, default: Any = None) -> Any:
    value = self._config.get(key)
    value = default if value is None else value
    good = isinstance(value, (int, float) if kind is float else kind) and (
      kind is bool or not isinstance(value, bool)
    )
    if not good or kind is int and value < 0:
      raise errors.UserError(f"{self.what}: {key!r} is {value!r}, expected {kind.__name__}")
    return kind(value)

  def must(self, key: str, expected: Any) -> None:
    """Refuses a variant that is not built here."""
    if self._config.get(key, expected) != expected:
      raise errors.UserError(
        f"{self.what}: {key!r} is {self._config[key]!r}; only {expected!r} can be converted"
      )

  def activation(self, key: str, default: str | None = None) -> str:
    name = self.get(key, str, default)
    if name not in ACTIVATIONS:
      raise errors.UserError(
        f"{self.what}: {key!r} is {name!r}; {errors.nearest(name, ACTIVATIONS)}"
      )
    return name


def from_folder(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a folder of Hugging Face.

  Returns:
    (our parameters, {"kind", "sizes": fields of the class in models.text, "length": most tokens of
    a text, "source", "sha256"}).

  Raises:
    errors.UserError: a file is missing or broken, a kind or variant that is not built, names
      missing or left over.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise errors.UserError(
      f"{folder} is not a folder; expected one with config.json, {TOKENIZER} and weights"
    )
  config = weights.read_json(folder / weights.CONFIG)
  tokenizer(folder)
  name = config.get("model_type")
  if name not in LAYOUTS:
    raise errors.UserError(
      f"{folder / weights.CONFIG}: model_type is {name!r}; {errors.nearest(str(name), LAYOUTS)}"
    )
  layout = LAYOUTS[name]
  found = source.read(folder)
  spellings = layout.spellings
  if layout.kind == "t5" and "shared.weight" not in found.tensors:
    # tied: a file may have either or both
    spellings = ((r"^encoder\.embed_tokens\.weight$", "shared.weight"),)
  tensors = mapping.rename(found.tensors, spellings, what=str(folder))
  text = config.get("text_config") if name == "clip" else config
  sizes = layout.sizes(
    Facts(text if isinstance(text, dict) else {}, str(folder / weights.CONFIG)), tensors
  )
  if sizes["heads"] < 1 or layout.kind != "t5" and sizes["width"] % sizes["heads"]:
    raise errors.UserError(
      f"{folder / weights.CONFIG}: width {sizes['width']} cannot have {sizes['heads']} "
      "attention heads"
    )
  if layout.kind == "bert":
    sizes["pooling"] = _pooling(folder)
  params = mapping.apply(
    layout.rules(sizes),
    tensors,
    ignore=layout.ignore,
    shapes=layout.shapes(sizes),
    what=str(folder),
  )
  return params, {
    "kind": layout.kind,
    "sizes": sizes,
    "length": _length(folder, sizes),
    "source": found.name,
    "sha256": found.sha256,
  }


def tokenizer(folder: str | os.PathLike) -> pathlib.Path:
  """The folder's tokenizer.json, or errors.UserError."""
  path = pathlib.Path(folder) / TOKENIZER
  if not path.is_file():
    raise errors.UserError(
      f"{path} does not exist; write it with transformers: "
      f"AutoTokenizer.from_pretrained(NAME).save_pretrained({str(folder)!r})"
    )
  return path


def convert(
  path: str, output: str, *, dtype: str = "float32", overwrite: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads SOURCE_FOLDER and writes OUT_FOLDER, whole or not at all; returns what `weights.load`
  will.
  """
  weights.check_writable(output, overwrite=overwrite)
  here, there = pathlib.Path(path).resolve(), pathlib.Path(output).resolve()
  if there == here or there in here.parents:
    raise errors.UserError(f"{output} is, or holds, the source {path}; choose another output")
  params, facts = from_folder(path)
  facts = {**facts, "dtype": dtype}
  params = trees.unflatten(
    {name: weights.cast(leaf, dtype) for name, leaf in trees.flatten(params).items()}
  )
  unique = uuid.uuid4().hex[:8]
  new, old = (there.with_name(f".{there.name}.{kind}-{unique}") for kind in ("text", "old"))
  try:
    weights.save(new, params, facts)
    shutil.copyfile(tokenizer(path), new / TOKENIZER)
    if there.exists():
      os.replace(there, old)
    os.replace(new, there)
  except OSError as error:
    if old.exists() and not there.exists():
      os.replace(old, there)
    raise errors.UserError(f"cannot write {output}: {error.strerror or error}") from None
  finally:
    shutil.rmtree(new, ignore_errors=True)
    if there.exists():
      shutil.rmtree(old, ignore_errors=True)
  return params, facts


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; 0 done, 2 bad input."""
  parser = argparse.ArgumentParser(
    prog="python -m como_jax.convert.text",
    description="BERT, T5 or CLIP text weights -> a weights-only folder.",
  )
  parser.add_argument(
    "source", help="folder of Hugging Face: config.json, tokenizer.json and weights"
  )
  parser.add_argument("output", help="folder to write")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument(
    "--overwrite", action="store_true", help="replace OUTPUT if it is a weights-only folder"
  )
  args = parser.parse_args(argv)
  try:
    params, facts = convert(args.source, args.output, dtype=args.dtype, overwrite=args.overwrite)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(mae.summary(params, facts))
  print(f"written: {args.output}")
  return 0


def _pooling(folder: pathlib.Path) -> str:
  """How sentence-transformers makes one vector of a text: its files beside the weights, else the
  mean.
  """
  if (folder / "modules.json").is_file():
    try:
      types = [
        str(module["type"]).rpartition(".")[2]
        for module in json.loads((folder / "modules.json").read_text())
      ]
    except (ValueError, KeyError, TypeError):
      raise errors.UserError(
        f"{folder / 'modules.json'} is not a list of modules with types"
      ) from None
    other = [name for name in types if name not in ("Transformer", "Pooling", "Normalize")]
    if other:
      raise errors.UserError(
        f"{folder / 'modules.json'} has a {other[0]} module, which cannot be converted"
      )
  path = folder / "1_Pooling" / "config.json"
  if not path.is_file():
    return "mean"
  modes = [
    key
    for key, value in weights.read_json(path).items()
    if key.startswith("pooling_mode_") and value is True
  ]
  known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
  if len(modes) != 1 or modes[0] not in known:
    raise errors.UserError(
      f"{path} pools by {', '.join(modes) or 'nothing'}; expected one of {', '.join(known)}"
    )
  return known[modes[0]]


def _length(folder: pathlib.Path, sizes: Mapping[str, Any]) -> int:
  most = sizes.get("positions", _T5_LENGTH)
  path = folder / "sentence_bert_config.json"
  if not path.is_file():
    return most
  return min(most, Facts(weights.read_json(path), str(path)).get("max_seq_length", int, most))


def _linear(name: str, target: str, *, bias: bool = True) -> list[Rule]:
  rules = [Rule(f"{name}.weight", f"{target}/kernel", "o i -> i o")]
  return rules + [Rule(f"{name}.bias", f"{target}/bias")] if bias else rules


def _norm(name: str, target: str) -> list[Rule]:
  return [Rule(f"{name}.weight", f"{target}/scale"), Rule(f"{name}.bias", f"{target}/bias")]


def _dense_shapes(
  depth: int, dense: Mapping[str, tuple[int, int]], *, bias: bool
) -> dict[str, tuple[int, ...]]:
  shapes = {f"blocks/{name}/kernel": (depth, *shape) for name, shape in dense.items()}
  return shapes | (
    {f"blocks/{name}/bias": (depth, shape[1]) for name, shape in dense.items()} if bias else {}
  )


def _block_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Layers of BERT and CLIP, and the norm beside them."""
  depth, width, mlp = sizes["depth"], sizes["width"], sizes["mlp"]
  dense = {f"attention/{name}": (width, width) for name in ("query", "key", "value", "output")}
  shapes = _dense_shapes(
    depth, {**dense, "mlp/up": (width, mlp), "mlp/down": (mlp, width)}, bias=True
  )
  norms = {
    f"blocks/{name}/{leaf}": (depth, width)
    for name in ("norm_attention", "norm_mlp")
    for leaf in ("scale", "bias")
  }
  return {**shapes, **norms, "norm/scale": (width,), "norm/bias": (width,)}


def _bert_sizes(config: Facts, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  config.must("position_embedding_type", "absolute")
  config.must("is_decoder", False)
  config.must("add_cross_attention", False)
  return {
    "vocabulary": config.get("vocab_size", int),
    "positions": config.get("max_position_embeddings", int),
    "types": config.get("type_vocab_size", int, 2),
    "width": config.get("hidden_size", int),
    "depth": config.get("num_hidden_layers", int),
    "heads": config.get("num_attention_heads", int),
    "mlp": config.get("intermediate_size", int),
    "epsilon": config.get("layer_norm_eps", float, 1e-12),
    "activation": config.activation("hidden_act", "gelu"),
  }


def _bert_rules(sizes: Mapping[str, Any]) -> list[Rule]:
  layer, attention = f"encoder.layer.{mapping.LAYER}.", f"encoder.layer.{mapping.LAYER}.attention."
  return [
    Rule("embeddings.word_embeddings.weight", "token"),
    Rule("embeddings.position_embeddings.weight", "position"),
    Rule("embeddings.token_type_embeddings.weight", "type"),
    *_norm("embeddings.LayerNorm", "norm"),
    *(
      rule
      for part in ("query", "key", "value")
      for rule in _linear(f"{attention}self.{part}", f"blocks/attention/{part}")
    ),
    *_linear(attention + "output.dense", "blocks/attention/output"),
    *_norm(attention + "output.LayerNorm", "blocks/norm_attention"),
    *_linear(layer + "intermediate.dense", "blocks/mlp/up"),
    *_linear(layer + "output.dense", "blocks/mlp/down"),
    *_norm(layer + "output.LayerNorm", "blocks/norm_mlp"),
  ]


def _bert_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  width = sizes["width"]
  return {
    "token": (sizes["vocabulary"], width),
    "position": (sizes["positions"], width),
    "type": (sizes["types"], width),
    **_block_shapes(sizes),
  }


def _t5_sizes(config: Facts, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  projection = config.get("feed_forward_proj", str, "relu")
  gated = projection.startswith("gated-")
  name = {"gated-gelu": "gelu_new"}.get(projection, projection.removeprefix("gated-"))
  return {
    "vocabulary": config.get("vocab_size", int),
    "width": config.get("d_model", int),
    "depth": config.get("num_layers", int),
    "heads": config.get("num_heads", int),
    "head_width": config.get("d_kv", int),
    "mlp": config.get("d_ff", int),
    "activation": Facts({"feed_forward_proj": name}, config.what).activation("feed_forward_proj"),
    "gated": gated,
    "buckets": config.get("relative_attention_num_buckets", int, 32),
    "max_distance": config.get("relative_attention_max_distance", int, 128),
    "epsilon": config.get("layer_norm_epsilon", float, 1e-6),
  }


def _t5_rules(sizes: Mapping[str, Any]) -> list[Rule]:
  attention = f"encoder.block.{mapping.LAYER}.layer.0."
  mlp = f"encoder.block.{mapping.LAYER}.layer.1."
  ups = {"wi_0": "gate", "wi_1": "up"} if sizes["gated"] else {"wi": "up"}
  names = {"q": "query", "k": "key", "v": "value", "o": "output"}
  return [
    Rule("shared.weight", "token"),
    Rule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "relative"),
    Rule(attention + "layer_norm.weight", "blocks/norm_attention/scale"),
    Rule(mlp + "layer_norm.weight", "blocks/norm_mlp/scale"),
    Rule("encoder.final_layer_norm.weight", "norm/scale"),
    *(
      rule
      for name, ours in names.items()
      for rule in _linear(
        f"{attention}SelfAttention.{name}", f"blocks/attention/{ours}", bias=False
      )
    ),
    *(
      rule
      for name, ours in {**ups, "wo": "down"}.items()
      for rule in _linear(f"{mlp}DenseReluDense.{name}", f"blocks/mlp/{ours}", bias=False)
    ),
  ]


def _t5_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  depth, width, mlp, inner = (
    sizes["depth"],
    sizes["width"],
    sizes["mlp"],
    sizes["heads"] * sizes["head_width"],
  )
  dense = {f"attention/{name}": (width, inner) for name in ("query", "key", "value")}
  dense |= {f"mlp/{name}": (width, mlp) for name in (("gate", "up") if sizes["gated"] else ("up",))}
  dense |= {"attention/output": (inner, width), "mlp/down": (mlp, width)}
  return {
    "token": (sizes["vocabulary"], width),
    "relative": (sizes["buckets"], sizes["heads"]),
    "norm/scale": (width,),
    **{f"blocks/{name}/scale": (depth, width) for name in ("norm_attention", "norm_mlp")},
    **_dense_shapes(depth, dense, bias=False),
  }


def _clip_sizes(config: Facts, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  # The width of the projection is the tensor's: config.json has a number even where there is no
  # projection.
  projection = tensors.get("text_projection.weight")
  return {
    "vocabulary": config.get("vocab_size", int, 49408),
    "width": config.get("hidden_size", int, 512),
    "positions": config.get("max_position_embeddings", int, 77),
    "mlp": config.get("intermediate_size", int, 2048),
    "depth": config.get("num_hidden_layers", int, 12),
    "heads": config.get("num_attention_heads", int, 8),
    "end": config.get("eos_token_id", int, 49407),
    "projection": 0 if projection is None else len(projection),
    "epsilon": config.get("layer_norm_eps", float, 1e-5),
    "activation": config.activation("hidden_act", "quick_gelu"),
  }


def _clip_rules(sizes: Mapping[str, Any]) -> list[Rule]:
  layer = f"encoder.layers.{mapping.LAYER}."
  names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
  return [
    Rule("embeddings.token_embedding.weight", "token"),
    Rule("embeddings.position_embedding.weight", "position"),
    *_norm(layer + "layer_norm1", "blocks/norm_attention"),
    *(
      rule
      for name, ours in names.items()
      for rule in _linear(f"{layer}self_attn.{name}", f"blocks/attention/{ours}")
    ),
    *_norm(layer + "layer_norm2", "blocks/norm_mlp"),
    *_linear(layer + "mlp.fc1", "blocks/mlp/up"),
    *_linear(layer + "mlp.fc2", "blocks/mlp/down"),
    *_norm("final_layer_norm", "norm"),
    *(_linear("text_projection", "projection", bias=False) if sizes["projection"] else ()),
  ]


def _clip_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  width, projection = sizes["width"], sizes["projection"]
  return {
    "token": (sizes["vocabulary"], width),
    "position": (sizes["positions"], width),
    **_block_shapes(sizes),
    **({"projection/kernel": (width, projection)} if projection else {}),
  }


_BERT = Layout(
  "bert",
  _bert_sizes,
  _bert_rules,
  _bert_shapes,
  (
    (r"^bert\.", ""),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
  ),
  (r"embeddings\.position_ids", r"pooler\..*", r"cls\..*", r"classifier\..*"),
)
_T5 = Layout(
  "t5",
  _t5_sizes,
  _t5_rules,
  _t5_shapes,
  (),
  (r"decoder\..*", r"lm_head\..*", r"encoder\.embed_tokens\.weight"),
)
_CLIP = Layout(
  "clip",
  _clip_sizes,
  _clip_rules,
  _clip_shapes,
  ((r"^text_model\.", ""),),
  (r"embeddings\.position_ids", r"vision_model\..*", r"visual_projection\..*", r"logit_scale"),
)
LAYOUTS = {"bert": _BERT, "t5": _T5, "mt5": _T5, "clip": _CLIP, "clip_text_model": _CLIP}

if __name__ == "__main__":
  sys.exit(main())
