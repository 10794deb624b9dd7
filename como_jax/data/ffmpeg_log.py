"""Reads FFmpeg's log of errors after which it continues.

Some decoders and demuxers report damage only in this log.
"""

import contextlib
import threading
from collections.abc import Iterator

from como_jax.data.pyav import logging

# Words in messages that mean that pictures are wrong or missing.
_DAMAGE = (
  "crc mismatch",
  "reference picture missing",
  "missing reference picture",
  "pocs unavailable",
  "frame num gap",
  "could not find ref",
  "decode failed",
  "packet mismatch",
)
_DEMUXERS = ("matroska,webm",)  # for these, every error means that bytes were skipped
# The recording was killed. The frames in the file are complete.
_PREMATURE = "ended prematurely"

_lock = threading.Lock()
_open = 0
_before: tuple[int | None, bool] = (None, True)


@contextlib.contextmanager
def errors() -> Iterator[list[tuple[int, str, str]]]:
  """Context manager that collects the errors of FFmpeg in this thread: (level, name, message).

  Keep it open for one call only. It changes the log level of the process: while it is open, errors
  of other threads go to Python's logger "libav".
  """
  global _open, _before
  with _lock:
    if not _open:
      _before = logging.get_level(), logging.get_skip_repeated()
      logging.set_level(logging.ERROR)
      # Otherwise FFmpeg would not report the same error in the next file.
      logging.set_skip_repeated(False)
    _open += 1
  try:
    with logging.Capture() as lines:
      yield lines
  finally:
    with _lock:
      _open -= 1
      if not _open:
        logging.set_level(_before[0])
        logging.set_skip_repeated(_before[1])


def damage(lines: list[tuple[int, str, str]]) -> str:
  """The first message that means damage, "" when there is none.

  Args:
    lines: from `errors`.
  """
  for level, name, message in lines:
    text = message.strip()
    is_error = level <= logging.ERROR and _PREMATURE not in text.lower()
    if is_error and (name in _DEMUXERS or any(words in text.lower() for words in _DAMAGE)):
      return text
  return ""


def premature(lines: list[tuple[int, str, str]]) -> bool:
  """Whether a demuxer reports that the file is shorter than it declares.

  Args:
    lines: from `errors`.
  """
  return any(_PREMATURE in message.lower() for _, _, message in lines)
