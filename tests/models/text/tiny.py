"""Tiny text encoders as folders of Hugging Face, made without torch: config.json,
model.safetensors, tokenizer.json.
"""

import json

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from como_jax import trees, weights
from como_jax.convert import mapping, text_layouts

CONFIGS = {
  "bert": {
    "model_type": "bert",
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
  },
  "t5": {
    "model_type": "t5",
    "vocab_size": 24,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
  },
  "clip": {
    "model_type": "clip_text_model",
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "hidden_act": "quick_gelu",
    "eos_token_id": 23,
    "projection_dim": 10,
  },
}
ENDS = {"bert": ("[CLS]", "[SEP]"), "t5": ("", "</s>"), "clip": ("<start>", "<end>")}
WORDS = (
  "open",
  "close",
  "the",
  "door",
  "drawer",
  "window",
  "push",
  "pull",
  "block",
  "to",
  "goal",
  "and",
  "lift",
  "it",
)


def sizes(kind, config=None, tensors=None):
  config = config or CONFIGS[kind]
  return text_layouts.LAYOUTS[config["model_type"]].sizes(
    text_layouts.Facts(config, kind), tensors or {}
  )


def params(kind, config=None, seed=0, **more):
  """Random parameters in our names, each leaf of size one or so."""
  rng = np.random.default_rng(seed)
  shapes = text_layouts.LAYOUTS[(config or CONFIGS[kind])["model_type"]].shapes(
    {**sizes(kind, config), **more}
  )
  return trees.unflatten(
    {
      name: (
        rng.normal(size=shape) * (0.3 if len(shape) > 1 else 0.1) + name.endswith("scale")
      ).astype(np.float32)
      for name, shape in shapes.items()
    }
  )


def tensors(kind, config=None, seed=0, **more):
  """The same in the names of Hugging Face."""
  rules = text_layouts.LAYOUTS[(config or CONFIGS[kind])["model_type"]].rules(
    {**sizes(kind, config), **more}
  )
  return mapping.invert(rules, params(kind, config, seed, **more))


def tokenizer(kind, *, pad_to=12):
  """Words are tokens; like the published ones it truncates and pads of its own, which must be
  undone.
  """
  start, end = ENDS[kind]
  vocabulary = ["<pad>", end if kind == "t5" else "<1>", "<unk>", *WORDS]
  vocabulary += [f"<{i}>" for i in range(len(vocabulary), 22)] + [
    start or "<22>",
    "<23>" if kind == "t5" else end,
  ]
  made = tokenizers.Tokenizer(
    models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
  )
  made.normalizer = normalizers.Lowercase()
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  special = [(word, vocabulary.index(word)) for word in (start, end) if word]
  made.post_processor = processors.TemplateProcessing(
    single=f"{start} $A {end}".strip(), special_tokens=special
  )
  made.enable_truncation(5)
  made.enable_padding(length=pad_to, pad_token="<pad>")
  return made


def write(folder, kind, *, config=None, leaves=None, **more):
  """A folder to convert; returns its path."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config or CONFIGS[kind]))
  weights.write_safetensors(folder / "model.safetensors", leaves or tensors(kind, config, **more))
  tokenizer(kind).save(str(folder / "tokenizer.json"))
  return folder
