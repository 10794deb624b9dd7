"""Texts as hashed words: vectors that need no weights.

Legend: l words of a text, E language width. Source: Weinberger et al., arXiv 0902.2206.
"""

import re
from collections.abc import Sequence

import numpy as np
import xxhash


def hash_words(texts: Sequence[str], *, width: int, num_tokens: int | None) -> list[np.ndarray]:
  """Signed feature hashing of words and of pairs of adjacent words.

  Args:
    texts: the texts.
    width: E.
    num_tokens: None: one unit vector per text. Else one unit vector per word, for the first
      `num_tokens` words: the hash of the word and of its pair with the previous word.
  """
  out = []
  for text in texts:
    words = re.findall(r"\w+", text.lower())
    rows = np.zeros((len(words), width), np.float32)
    for row, word in enumerate(words):
      for gram in (word, f"{words[row - 1]} {word}")[: 2 if row else 1]:
        number = xxhash.xxh64_intdigest(gram.encode("utf-8", "replace"))
        rows[row, (number >> 1) % width] += 1.0 if number & 1 else -1.0
    out.append(
      normalize_rows(rows.sum(axis=0, keepdims=True) if words else rows)
      if num_tokens is None
      else normalize_rows(rows[:num_tokens])
    )
  return out


def normalize_rows(rows: np.ndarray) -> np.ndarray:
  """Scales the rows [l, E] to length 1; rows of 0 stay 0."""
  norm = np.linalg.norm(rows, axis=-1, keepdims=True)
  return (rows / np.where(norm > 0, norm, 1)).astype(np.float32)
