"""What an encoder remembers."""

from como_jax import language
from como_jax.language import encoder as encoder_lib
from tests.language.small import TEXTS
from tests.language.small import cache as cache  # a fixture


def test_memory_is_bounded(monkeypatch):
  monkeypatch.setattr(encoder_lib, "_REMEMBERED", 2)
  encoder = language.build({"kind": "hash"})
  tokens, _ = encoder([*TEXTS, "lift it"])
  assert list(encoder._memory) == [TEXTS[3], "lift it"] and tokens[:, 0].any(axis=-1).sum() == 4
