"""What is heard of FFmpeg, and what it means."""

import av
import pytest

from como_jax.data import ffmpeg_log


def state():
  return av.logging.get_level(), av.logging.get_skip_repeated()


def test_errors_are_heard_while_somebody_listens():
  before = state()
  try:
    av.logging.set_level(av.logging.FATAL)
    av.logging.set_skip_repeated(True)
    with ffmpeg_log.errors() as lines:
      assert state() == (av.logging.ERROR, False)
      with ffmpeg_log.errors():
        pass
      assert state() == (av.logging.ERROR, False)  # the other one still listens
      for _ in range(2):
        av.logging.log(av.logging.ERROR, "decoder", "the same")
    assert (
      state() == (av.logging.FATAL, True)
      and [line[1:] for line in lines] == [("decoder", "the same")] * 2
    )
    with pytest.raises(ValueError), ffmpeg_log.errors():
      raise ValueError
    assert state() == (av.logging.FATAL, True)
  finally:
    av.logging.set_level(before[0])
    av.logging.set_skip_repeated(before[1])


@pytest.mark.parametrize(
  "level, name, message, damage",
  [
    ("ERROR", "h264", " Frame num gap 3 1\n", "Frame num gap 3 1"),
    ("ERROR", "h264", "CRC mismatch in frame", "CRC mismatch in frame"),
    ("ERROR", "h264", "odd", ""),
    ("FATAL", "h264", "could not find ref with POC 3", "could not find ref with POC 3"),
    ("WARNING", "h264", "crc mismatch", ""),
    ("ERROR", "matroska,webm", "Invalid EBML", "Invalid EBML"),
    ("ERROR", "matroska,webm", "File ended prematurely", ""),
    ("INFO", "matroska,webm", "x", ""),
  ],
)
def test_words_that_mean_damage(level, name, message, damage):
  line = getattr(av.logging, level), name, message
  assert ffmpeg_log.damage([line]) == damage and ffmpeg_log.damage([]) == ""
  assert ffmpeg_log.damage(
    [(av.logging.ERROR, "h264", "nothing"), line, (av.logging.ERROR, "h264", "decode failed")]
  ) == (damage or "decode failed")
