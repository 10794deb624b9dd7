"""What FFmpeg reports as errors and goes on from: some decoders and demuxers tell of damage only
there.
"""

import contextlib
import threading
from collections.abc import Iterator

import av

# Words of messages after which pictures are not the ones that were encoded, or some are missing.
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
_DEMUXERS = ("matroska,webm",)  # those whose every error means that bytes were skipped
# a recording that was stopped the hard way; what it holds is whole
_PREMATURE = "ended prematurely"

_lock = threading.Lock()
_open = 0
_before: tuple[int | None, bool] = (None, True)


@contextlib.contextmanager
def errors() -> Iterator[list[tuple[int, str, str]]]:
  """Collects (level, name, message) of errors that FFmpeg reports in this thread; keep it open for
  one call only.

  The log level belongs to the process: while one is open, errors of other threads go to Python's
  log "libav".
  """
  global _open, _before
  with _lock:
    if not _open:
      _before = av.logging.get_level(), av.logging.get_skip_repeated()
      av.logging.set_level(av.logging.ERROR)
      av.logging.set_skip_repeated(False)  # else the same error of the next file would not be heard
    _open += 1
  try:
    with av.logging.Capture() as lines:
      yield lines
  finally:
    with _lock:
      _open -= 1
      if not _open:
        av.logging.set_level(_before[0])
        av.logging.set_skip_repeated(_before[1])


def damage(lines: list[tuple[int, str, str]]) -> str:
  """The first message that means damage, "" when none does."""
  for level, name, message in lines:
    text = message.strip()
    heard = level <= av.logging.ERROR and _PREMATURE not in text.lower()
    if heard and (name in _DEMUXERS or any(words in text.lower() for words in _DAMAGE)):
      return text
  return ""


def premature(lines: list[tuple[int, str, str]]) -> bool:
  """Whether a demuxer says that the file ends before what it declares."""
  return any(_PREMATURE in message.lower() for _, _, message in lines)
