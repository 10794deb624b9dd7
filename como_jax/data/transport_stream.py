"""MPEG transport streams (.ts, .mts, .m2ts) packet by packet: what is lost, and whether the file
ends inside a packet.

FFmpeg tells of lost packets only sometimes: with HEVC every picture after one may be wrong without
a word.
"""

import dataclasses
import functools
import os

import numpy as np

from como_jax.data.images import Unreadable

# Bytes of a packet -> those before it: plain, with a time stamp in front, with a checksum behind.
_SIZES = {188: 0, 192: 4, 204: 0}
# first byte of a packet; packets that tell the size; packets read at once
_SYNC, _LOOK, _CHUNK = 0x47, 32, 1 << 16


@dataclasses.dataclass(frozen=True)
class Packets:
  """What is known of the packets of a program's part.

  Attributes:
    lost: places where packets are missing, are marked as damaged, or where none begins.
    first: byte of the first such place, -1 = there is none.
    rest: bytes of a packet that is cut at the end of the file.
    size: bytes of a whole one.
    behind: bytes at the end of the file that are no packets: padding, or what a recorder writes
      there.
  """

  lost: int
  first: int
  rest: int
  size: int
  behind: int = 0


def check(path: str, pid: int, notes: list[str]) -> None:
  """Notes a file that ends inside a packet.

  Args:
    path: the file.
    pid: the number of the stream that is read.
    notes: receives the line.

  Raises:
    Unreadable: packets of the stream are missing or marked as damaged.
  """
  stat = os.stat(path)
  found = look(path, pid, stat.st_size, stat.st_mtime_ns)
  if found is None:
    notes.append(
      "the packets of the transport stream have no usual size: it is not known whether any are "
      "missing"
    )
    return
  if found.lost:
    where = f"in {found.lost} places, first at byte {found.first}"
    raise Unreadable(f"damaged: packets of the video are missing or broken {where}")
  if found.behind:
    notes.append(
      f"the last {found.behind} bytes of the file are no packets of the transport stream and "
      "not read"
    )
  if found.rest:
    notes.append(
      f"the file ends inside a packet ({found.rest} of {found.size} bytes): what came after is "
      "missing"
    )


@functools.lru_cache(8)
def look(path: str, pid: int, length: int, changed: int) -> Packets | None:
  """Reads the whole file, of `length` bytes and `changed` then; None where its packets have none of
  the usual sizes.
  """
  with open(path, "rb") as file:
    layout = _layout(np.frombuffer(file.read(204 * (_LOOK + 1)), np.uint8))
    if layout is None:
      return None
    size, begin = layout
    file.seek(begin)
    places, counter, at, end = [], None, begin, begin  # end: of the last packet
    while len(data := file.read(size * _CHUNK)) >= size:
      rows = np.frombuffer(data, np.uint8)[: len(data) // size * size].reshape(-1, size)
      bad, counter = _broken(rows[:, _SIZES[size] :], pid, counter)
      places += (at + bad * size).tolist()
      packets = np.flatnonzero(rows[:, _SIZES[size]] == _SYNC)
      end = at + (int(packets[-1]) + 1) * size if len(packets) else end
      at += len(rows) * size
    file.seek(at)
    rest = file.read(size)
    file.seek(end)
    # else packets go on elsewhere
    if _layout(np.frombuffer(file.read(204 * (_LOOK + 1)), np.uint8)) is None:
      # what no packet follows is not of the stream
      places = [place for place in places if place < end]
  cut = rest[_SIZES[size] : _SIZES[size] + 1] == bytes([_SYNC]) and at == end
  lost, first = len(places), min(places, default=-1)
  return Packets(
    lost, first, len(rest) if cut else 0, size, 0 if cut or first >= end else length - end
  )


def _layout(head: np.ndarray) -> tuple[int, int] | None:
  """(bytes of a packet, byte at which the first one begins), by where most packets begin as they
  should.
  """
  best, found = 0.5, None
  for size, inside in _SIZES.items():
    for begin in range(min(size, len(head) - inside)):
      starts = head[begin + inside :: size][:_LOOK] == _SYNC
      if len(starts) > 1 and starts.mean() > best:
        best, found = starts.mean(), (size, begin)
  return found


def _broken(rows: np.ndarray, pid: int, counter: int | None) -> tuple[np.ndarray, int | None]:
  """Numbers of the packets [N, 188] before or in which something is missing, and the counter after
  them.
  """
  astray = rows[:, 0] != _SYNC
  mine = ((rows[:, 1] & 0x1F).astype(int) << 8 | rows[:, 2]) == pid
  # only those with a payload are counted
  own = np.flatnonzero(mine & (rows[:, 0] == _SYNC) & (rows[:, 3] & 0x10 != 0))
  counters = rows[own, 3].astype(int) & 0x0F
  before = (
    np.concatenate([[counters[0] - 1 if counter is None else counter], counters[:-1]])
    if len(own)
    else counters
  )
  step = (counters - before) % 16  # 0: a packet that is sent twice
  restarts = (rows[own, 3] & 0x20 != 0) & (rows[own, 4] > 0) & (rows[own, 5] & 0x80 != 0)
  gaps = own[(step > 1) & ~restarts]
  marked = np.flatnonzero(mine & (rows[:, 1] & 0x80 != 0) & (rows[:, 0] == _SYNC))
  bad = np.unique(np.concatenate([gaps, marked, np.flatnonzero(astray)]))
  return bad, int(counters[-1]) if len(own) else counter
