"""CLIP's text encoder: parity with transformers."""

import numpy as np
import pytest

from como_jax.convert import text as convert
from tests.models.text import tiny
from tests.models.text.parity import apply, batch, compare, reference


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
