"""Text encoders beside those of transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.convert import text as convert
from como_jax.models import text
from tests.models.text import tiny

END = {"bert": 23, "t5": 1, "clip": 23}


def batch(kind, seed=0, rows=4, length=9, low=3, high=22):
  """Random token numbers with the end token and padding behind it; the first row has none."""
  rng = np.random.default_rng(seed)
  lengths = np.array([length, *rng.integers(2, length, size=rows - 1)])
  ids = rng.integers(low, high, size=(rows, length))
  ids[np.arange(rows), lengths - 1] = END[kind]
  mask = np.arange(length)[None] < lengths[:, None]
  return np.where(mask, ids, 0), mask


def apply(kind, sizes, params, ids, mask, dtype=jnp.float32):
  with jax.default_matmul_precision("highest"):
    return jax.jit(text.build(kind, sizes, dtype=dtype).apply)({"params": params}, ids, mask)


def reference(name, config, fields=()):
  """A model of transformers with random weights, none of them trivial."""
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  torch.manual_seed(0)
  kept = {key: value for key, value in config.items() if key != "model_type"}
  model = getattr(transformers, name)(
    getattr(transformers, config_class(config))(**kept, **dict(fields))
  ).eval()
  with torch.no_grad():
    for leaf in model.parameters():
      leaf += 0.2 * torch.randn_like(leaf)
  return model


def config_class(config):
  return {"bert": "BertConfig", "t5": "T5Config", "clip_text_model": "CLIPTextConfig"}[
    config["model_type"]
  ]


def run(model, ids, mask):
  import torch

  with torch.no_grad():
    return model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64)))


def compare(model, kind, folder, ids, mask):
  """Saves with transformers, converts, runs both. Returns (theirs, our tokens, our pooled)."""
  model.save_pretrained(folder)
  tiny.tokenizer(kind).save(str(folder / "tokenizer.json"))
  params, facts = convert.from_folder(folder)
  theirs = run(model, ids, mask)
  tokens, pooled = apply(facts["kind"], facts["sizes"], params, ids, mask)
  np.testing.assert_allclose(
    np.asarray(tokens)[mask], theirs.last_hidden_state.numpy()[mask], atol=1e-5, rtol=1e-5
  )
  return theirs, tokens, pooled
