"""como_jax/models/text: parity with transformers to 1e-5, padding, short floats."""

import importlib.util

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, language, trees
from como_jax.convert import facts
from como_jax.convert import text as convert
from como_jax.language import frozen
from como_jax.models import text
from como_jax.models.text import layers, t5
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


@pytest.mark.parametrize("kind", text.KINDS)
def test_shapes_and_names(kind):
  encoder = text.build(kind, tiny.sizes(kind))
  ids, mask = batch(kind)
  spec = jax.eval_shape(encoder.init, jax.random.key(0), ids, mask)["params"]
  trees.merge(spec, tiny.params(kind), what=kind)
  tokens, pooled = jax.eval_shape(encoder.apply, {"params": spec}, ids, mask)
  chex.assert_shape((tokens, pooled), [(4, 9, encoder.width), (4, encoder.pooled_width)])


def test_layers_start_apart():
  made = jax.jit(text.build("clip", tiny.sizes("clip")).init)(jax.random.key(0), *batch("clip"))[
    "params"
  ]
  first, second = made["blocks"]["mlp"]["up"]["kernel"]
  assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", text.KINDS)
def test_padding_changes_nothing(kind):
  params, (ids, mask) = tiny.params(kind), batch(kind)
  tokens, pooled = apply(kind, tiny.sizes(kind), params, ids, mask)
  other = np.where(mask, ids, 7)
  again = apply(
    kind,
    tiny.sizes(kind),
    params,
    np.pad(other, ((0, 0), (0, 4)), constant_values=9),
    np.pad(mask, ((0, 0), (0, 4))),
  )
  np.testing.assert_allclose(np.asarray(again[0])[:, :9][mask], np.asarray(tokens)[mask], atol=1e-5)
  np.testing.assert_allclose(again[1], pooled, atol=1e-5)
  empty = apply(kind, tiny.sizes(kind), params, ids, np.zeros_like(mask))
  chex.assert_tree_all_finite(empty)


@pytest.mark.parametrize("kind", text.KINDS)
def test_bfloat16_is_close(kind):
  params, (ids, mask) = tiny.params(kind), batch(kind)
  expected = apply(kind, tiny.sizes(kind), params, ids, mask)
  short = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
  found = apply(kind, tiny.sizes(kind), short, ids, mask, jnp.bfloat16)
  chex.assert_type(found, jnp.float32)
  for ours, theirs in zip(found, expected, strict=True):
    difference = np.abs(np.asarray(ours - theirs))
    assert (
      difference.mean() < 0.03 * np.abs(np.asarray(theirs)).mean() + 0.02 and difference.max() > 0
    )


def test_bfloat16_t5_keeps_large_residuals():
  """Activations of published T5 reach 1e4 and more; small updates beside them must not be rounded
  away.
  """
  params, (ids, mask) = tiny.params("t5"), batch("t5")
  params["token"] = params["token"] * 1e4
  expected, _ = apply("t5", tiny.sizes("t5"), params, ids, mask)
  found, _ = apply("t5", tiny.sizes("t5"), params, ids, mask, jnp.bfloat16)
  np.testing.assert_allclose(np.asarray(found)[mask], np.asarray(expected)[mask], atol=0.02)


def test_unknown_settings_are_named():
  with pytest.raises(errors.UserError, match="bart.*valid: bert, clip, t5"):
    text.build("bart", {})
  with pytest.raises(errors.UserError, match="sizes.widht; did you mean 'width'"):
    text.build("bert", {"widht": 3})
  sizes = {**tiny.sizes("bert"), "activation": "gelo"}
  with pytest.raises(errors.UserError, match="activation is 'gelo'; did you mean 'gelu'"):
    jax.eval_shape(text.build("bert", sizes).init, jax.random.key(0), *batch("bert"))
  assert tuple(layers.ACTIVATIONS) == facts.ACTIVATIONS


# Parity. Everything below needs torch and transformers.


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


def mean_of(tokens, mask):
  return (tokens * mask[..., None]).sum(1) / mask.sum(1)[:, None]


@pytest.mark.reference
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_bert_parity(tmp_path, activation):
  model = reference("BertModel", {**tiny.CONFIGS["bert"], "hidden_act": activation})
  ids, mask = batch("bert")
  theirs, _, pooled = compare(model, "bert", tmp_path, ids, mask)
  np.testing.assert_allclose(pooled, mean_of(theirs.last_hidden_state.numpy(), mask), atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize(
  "name, projection", [("T5EncoderModel", "gated-gelu"), ("T5ForConditionalGeneration", "relu")]
)
def test_t5_parity(tmp_path, name, projection):
  model = reference(name, {**tiny.CONFIGS["t5"], "feed_forward_proj": projection})
  ids, mask = batch("t5", length=19)
  if name != "T5EncoderModel":  # with a decoder: saved whole, compared by its encoder
    encoder, save = model.get_encoder(), model.save_pretrained
    encoder.save_pretrained, model = save, encoder
  compare(model, "t5", tmp_path, ids, mask)


@pytest.mark.reference
@pytest.mark.parametrize("buckets, farthest", [(32, 128), (32, 64), (8, 10), (16, 100)])
def test_t5_buckets(buckets, farthest):
  torch = pytest.importorskip("torch")
  from transformers.models.t5 import modeling_t5

  distance = np.arange(-600, 601)
  theirs = modeling_t5.T5Attention._relative_position_bucket(
    torch.tensor(distance), True, buckets, farthest
  )
  np.testing.assert_array_equal(
    t5.bucket(distance, buckets=buckets, max_distance=farthest), theirs.numpy()
  )


@pytest.mark.reference
@pytest.mark.parametrize(
  "end, name, activation",
  [
    (2, "CLIPTextModel", "quick_gelu"),
    (22, "CLIPTextModel", "quick_gelu"),
    (23, "CLIPTextModelWithProjection", "gelu"),
  ],
)
def test_clip_parity(tmp_path, end, name, activation):
  """`end` 2 is the legacy rule; 22 is an end token that is not the largest number of the text."""
  config = {**tiny.CONFIGS["clip"], "eos_token_id": end, "hidden_act": activation}
  model = reference(name, config, {"bos_token_id": 0, "pad_token_id": 0}.items())
  ids, mask = batch("clip")
  if end == 22:
    ids = np.where(ids == 23, 22, ids)
    ids[0, 2] = 23
  theirs, _, pooled = compare(model, "clip", tmp_path, ids, mask)
  expected = theirs.text_embeds if name.endswith("Projection") else theirs.pooler_output
  np.testing.assert_allclose(pooled, expected.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.reference
def test_clip_with_an_image_tower(tmp_path):
  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  text_config = {
    key: value
    for key, value in tiny.CONFIGS["clip"].items()
    if key not in ("model_type", "projection_dim")
  }
  vision = dict(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=8,
    patch_size=4,
  )
  torch.manual_seed(0)
  model = transformers.CLIPModel(
    transformers.CLIPConfig(text_config=text_config, vision_config=vision, projection_dim=10)
  ).eval()
  model.save_pretrained(tmp_path)
  tiny.tokenizer("clip").save(str(tmp_path / "tokenizer.json"))
  params, facts = convert.from_folder(tmp_path)
  ids, mask = batch("clip")
  _, pooled = apply("clip", facts["sizes"], params, ids, mask)
  with torch.no_grad():
    theirs = model.text_projection(
      model.text_model(torch.tensor(ids), torch.tensor(mask.astype(int))).pooler_output
    )
  np.testing.assert_allclose(pooled, theirs.numpy(), atol=1e-5)


@pytest.mark.reference
@pytest.mark.skipif(
  importlib.util.find_spec(frozen.PACKAGE) is None, reason="requirements-text.txt is not installed"
)
def test_minilm_parity(tmp_path, monkeypatch):
  """The published weights through transformers' own model and tokenizer: tokens, and the sentence
  vector.
  """
  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  # an embedding of an earlier run would prove nothing
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path))
  folder = frozen.package_folder()
  texts = [
    "open the door",
    "close the door",
    "Put the red block, quickly, behind the 2nd unobtrusive mug!",
  ]
  inputs = transformers.AutoTokenizer.from_pretrained(folder)(
    texts, padding=True, return_tensors="pt"
  )
  with torch.no_grad():
    theirs = (
      transformers.BertModel.from_pretrained(folder).eval()(**inputs).last_hidden_state.numpy()
    )
  ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy().astype(bool)
  params, facts = convert.from_folder(folder)
  assert facts["sizes"]["pooling"] == "mean" and facts["length"] == 256
  tokens, _ = apply("bert", facts["sizes"], params, ids, mask)
  assert np.abs(np.asarray(tokens) - theirs)[mask].max() <= 1e-5
  sentence = mean_of(theirs, mask)
  sentence /= np.linalg.norm(sentence, axis=-1, keepdims=True)
  vectors, _ = language.build({"kind": "minilm"})(texts)
  np.testing.assert_allclose(vectors[:, 0], sentence, atol=1e-5)
