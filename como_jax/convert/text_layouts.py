"""How text encoders of Hugging Face are stored: sizes, conversion rules and shapes of each kind."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from como_jax.convert import mapping
from como_jax.convert.facts import Facts as Facts

Rule = mapping.Rule


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one kind of model is stored.

  Attributes:
    kind: "bert", "t5" or "clip".
    sizes: (config.json, tensors) -> sizes of the model.
    rules: sizes -> conversion rules.
    shapes: sizes -> shapes of our parameters.
    spellings: as for `mapping.rename`.
    ignore: as for `mapping.apply`.
  """

  kind: str
  sizes: Callable[[Facts, Mapping[str, np.ndarray]], dict[str, Any]]
  rules: Callable[[Mapping[str, Any]], list[Rule]]
  shapes: Callable[[Mapping[str, Any]], dict[str, tuple[int, ...]]]
  spellings: tuple[tuple[str, str], ...]
  ignore: tuple[str, ...]


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
  """Shapes of the layers of BERT and CLIP, and of the norm outside the layers."""
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
      for name, target in names.items()
      for rule in _linear(
        f"{attention}SelfAttention.{name}", f"blocks/attention/{target}", bias=False
      )
    ),
    *(
      rule
      for name, target in {**ups, "wo": "down"}.items()
      for rule in _linear(f"{mlp}DenseReluDense.{name}", f"blocks/mlp/{target}", bias=False)
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
  # The width of the projection is taken from the tensor, because config.json has a width even if
  # there is no projection.
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
      for name, target in names.items()
      for rule in _linear(f"{layer}self_attn.{name}", f"blocks/attention/{target}")
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
