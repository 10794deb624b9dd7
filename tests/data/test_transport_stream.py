"""Transport streams: a lost packet is never passed over."""

import os
import pathlib

import av
import numpy as np
import pytest

from como_jax.data import transport_stream, video
from tests.data import makers
from tests.data.test_video import KEEP, shown

HEVC = {"x265-params": "log-level=none:bframes=0:keyint=4:min-keyint=4"}


def make(path, **arguments):
  """(path, its packets [N, 188], number of the video's stream)."""
  path = makers.write_video(path, makers.noise(12), **arguments)
  with av.open(path) as container:
    pid = container.streams.video[0].id
  size = 192 if path.endswith("m2ts") else 188
  return path, np.fromfile(path, np.uint8).reshape(-1, size), pid


def look(path, data, pid):
  with open(path, "wb") as file:
    file.write(data.tobytes() if isinstance(data, np.ndarray) else data)
  transport_stream.scan.cache_clear()
  return transport_stream.scan(str(path), pid, os.path.getsize(path), 0)


def payloads(rows, pid, inside=0):
  """Numbers of the packets that hold data of a stream."""
  own = ((rows[:, inside + 1].astype(int) & 31) << 8 | rows[:, inside + 2]) == pid
  return np.flatnonzero(own & (rows[:, inside + 3] & 0x10 != 0))


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts"])
def test_every_missing_packet_of_the_video_is_found(tmp_path, name):
  path, rows, pid = make(tmp_path / name, options={"crf": "30"})
  size = rows.shape[1]
  assert look(path, rows, pid) == transport_stream.Packets(0, -1, 0, size)
  own = payloads(rows, pid, size - 188)
  for k in own[1:-1]:
    after = own[own > k][0] - 1  # the first one that shows it
    assert look(path, np.delete(rows, k, 0), pid) == transport_stream.Packets(
      1, after * size, 0, size
    )
  for k in set(range(len(rows))) - set(own):
    assert look(path, np.delete(rows, k, 0), pid).lost == 0


def test_a_gap_between_two_parts_that_are_read_apart(tmp_path, monkeypatch):
  path, rows, pid = make(tmp_path / "a.ts")
  monkeypatch.setattr(transport_stream, "_CHUNK", 7)
  assert look(path, rows, pid).lost == 0
  own = payloads(rows, pid)
  for k in own[20:30]:
    after = own[own > k][0] - 1
    assert look(path, np.delete(rows, k, 0), pid) == transport_stream.Packets(
      1, after * 188, 0, 188
    )


def test_what_is_no_loss_and_what_is(tmp_path):
  path, rows, pid = make(tmp_path / "a.ts")
  own = payloads(rows, pid)
  k = own[25]
  plain = next(k for k in own[50:] if not rows[k, 3] & 0x20)
  checked = np.concatenate([rows, np.full((len(rows), 16), 0x47, np.uint8)], 1)
  assert look(path, checked, pid) == transport_stream.Packets(0, -1, 0, 204)
  assert look(path, rows.reshape(-1)[100:], pid).lost == 0  # begins inside a packet
  assert look(path, np.insert(rows, k, rows[k], 0), pid).lost == 0  # sent twice
  for behind in (bytes(188 * 40), bytes(1000), b"\xff" * 1000, b"written by a recorder " * 20):
    assert look(path, rows.tobytes() + behind, pid) == transport_stream.Packets(
      0, -1, 0, 188, len(behind)
    )
  restart = np.delete(rows, k, 0)
  after = payloads(restart, pid)[payloads(restart, pid) >= k][0]
  restart[after, 3] |= 0x20
  restart[after, 4:6] = 7, 0x80  # it says itself that the count begins anew
  assert look(path, restart, pid).lost == 0
  marked = rows.copy()
  marked[plain, 1] |= 0x80
  assert look(path, marked, pid) == transport_stream.Packets(1, plain * 188, 0, 188)
  data = rows.tobytes()
  assert (
    look(path, data[: plain * 188 + 50] + data[plain * 188 + 90 :], pid).first == plain * 188 + 188
  )
  # where most packets begin
  assert look(path, data[: 5 * 188 + 50] + data[5 * 188 + 90 :], pid).lost == 5
  assert look(path, b"no transport stream" * 100, pid) is None


@pytest.mark.parametrize(
  "codec,options", [("libx265", HEVC), ("libx264", None), ("mpeg2video", None)]
)
def test_a_lost_packet_is_refused(tmp_path, codec, options):
  path, rows, pid = make(tmp_path / "a.ts", codec=codec, options=options)
  own = payloads(rows, pid)
  for k in (own[6], own[len(own) // 2]):
    np.delete(rows, k, 0).tofile(path)
    with pytest.raises(
      video.UnreadableError,
      match="^damaged: packets of the video are missing or broken in 1 places",
    ):
      shown(path)
    with pytest.raises(video.UnreadableError, match="^damaged: packets"):
      list(video.read_at(path, [0.9, 1.0], KEEP))


def test_what_stands_behind_the_last_packet_is_told(tmp_path):
  path, rows, _ = make(tmp_path / "a.ts")
  pathlib.Path(path).write_bytes(rows.tobytes() + b"\xff" * 1000)
  _, numbers, notes = shown(path)
  assert len(numbers) == 12 and notes == [
    "the last 1000 bytes of the file are no packets of the transport stream and not read"
  ]


def test_a_file_that_ends_inside_a_packet_is_told(tmp_path):
  path = makers.write_video(tmp_path / "a.ts", 12, options={"bf": "0", "crf": "10"})
  with av.open(path) as container:
    last = [packet.pos for packet in container.demux(video=0) if packet.size][-1]
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[: last + 60])
  _, numbers, notes = shown(path)
  assert numbers == list(range(11))
  assert notes == ["the file ends inside a packet (60 of 188 bytes): what came after is missing"]
