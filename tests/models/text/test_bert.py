"""BERT: parity with transformers."""

import importlib.util

import numpy as np
import pytest

from como_jax import language
from como_jax.convert import text as convert
from como_jax.language import frozen
from tests.models.text import tiny
from tests.models.text.parity import apply, batch, compare, reference


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
