"""Checks MPEG transport streams (.ts, .mts, .m2ts) for lost packets and a truncated end.

FFmpeg does not report all lost packets. With HEVC, every picture after a lost packet may be wrong
without any error.
"""

import dataclasses
import functools
import os

import numpy as np

from como_jax.data.images import UnreadableError

# Size of a packet in bytes -> offset of its first byte: plain; with a time stamp before it; with a
# checksum after it.
_SIZES = {188: 0, 192: 4, 204: 0}
_SYNC = 0x47  # first byte of a packet
_TESTED = 32  # packets that are used to detect the size
_CHUNK = 1 << 16  # packets that are read at a time


@dataclasses.dataclass(frozen=True)
class Packets:
  """Facts about the packets of one stream.

  Attributes:
    lost: number of places where packets are missing or damaged, or where no packet begins.
    first: byte of the first such place, -1 = there is none.
    rest: number of bytes of a packet that is truncated at the end of the file.
    size: number of bytes of a whole packet.
    behind: number of bytes at the end of the file that are not packets: padding, or data of a
      recorder.
  """

  lost: int
  first: int
  rest: int
  size: int
  behind: int = 0


def check(path: str, pid: int, notes: list[str]) -> None:
  """Checks the packets of a stream.

  Args:
    path: the file.
    pid: number of the stream.
    notes: receives a remark when the file ends inside a packet.

  Raises:
    UnreadableError: packets of the stream are missing or marked as damaged.
  """
  stat = os.stat(path)
  packets = scan(path, pid, stat.st_size, stat.st_mtime_ns)
  if packets is None:
    notes.append(
      "the packets of the transport stream have no usual size: it is not known whether any are "
      "missing"
    )
    return
  if packets.lost:
    where = f"in {packets.lost} places, first at byte {packets.first}"
    raise UnreadableError(f"damaged: packets of the video are missing or broken {where}")
  if packets.behind:
    notes.append(
      f"the last {packets.behind} bytes of the file are no packets of the transport stream and "
      "not read"
    )
  if packets.rest:
    notes.append(
      f"the file ends inside a packet ({packets.rest} of {packets.size} bytes): what came after is "
      "missing"
    )


@functools.lru_cache(8)
def scan(path: str, pid: int, length: int, changed: int) -> Packets | None:
  """Reads the whole file and returns facts about its packets.

  Args:
    path: the file.
    pid: number of the stream.
    length: size of the file in bytes.
    changed: time of its last change; it makes the cache read a changed file again.

  Returns:
    None when its packets do not have a usual size.
  """
  with open(path, "rb") as file:
    layout = _layout(np.frombuffer(file.read(204 * (_TESTED + 1)), np.uint8))
    if layout is None:
      return None
    size, start = layout
    file.seek(start)
    lost_at, counter, position, end = [], None, start, start  # end: of the last packet
    while len(data := file.read(size * _CHUNK)) >= size:
      rows = np.frombuffer(data, np.uint8)[: len(data) // size * size].reshape(-1, size)
      bad, counter = _broken(rows[:, _SIZES[size] :], pid, counter)
      lost_at += (position + bad * size).tolist()
      packets = np.flatnonzero(rows[:, _SIZES[size]] == _SYNC)
      end = position + (int(packets[-1]) + 1) * size if len(packets) else end
      position += len(rows) * size
    file.seek(position)
    rest = file.read(size)
    file.seek(end)
    # Otherwise packets continue at another offset.
    if _layout(np.frombuffer(file.read(204 * (_TESTED + 1)), np.uint8)) is None:
      # Bytes after the last packet do not belong to the stream.
      lost_at = [byte for byte in lost_at if byte < end]
  cut = rest[_SIZES[size] : _SIZES[size] + 1] == bytes([_SYNC]) and position == end
  lost, first = len(lost_at), min(lost_at, default=-1)
  return Packets(
    lost, first, len(rest) if cut else 0, size, 0 if cut or first >= end else length - end
  )


def _layout(head: np.ndarray) -> tuple[int, int] | None:
  """(size of a packet, offset of the first packet) in bytes, None when there are no packets.

  It is the size and offset at which most packets begin with the sync byte.
  """
  best, result = 0.5, None
  for size, inside in _SIZES.items():
    for start in range(min(size, len(head) - inside)):
      starts = head[start + inside :: size][:_TESTED] == _SYNC
      if len(starts) > 1 and starts.mean() > best:
        best, result = starts.mean(), (size, start)
  return result


def _broken(rows: np.ndarray, pid: int, counter: int | None) -> tuple[np.ndarray, int | None]:
  """Finds missing and damaged packets.

  Args:
    rows: packets, uint8 [N, 188].
    pid: number of the stream.
    counter: continuity counter of the last packet before these, None at the start.

  Returns:
    (numbers of the packets that are damaged or come after a gap, counter of the last packet).
  """
  astray = rows[:, 0] != _SYNC
  of_stream = ((rows[:, 1] & 0x1F).astype(int) << 8 | rows[:, 2]) == pid
  # Only packets with a payload are counted.
  own = np.flatnonzero(of_stream & (rows[:, 0] == _SYNC) & (rows[:, 3] & 0x10 != 0))
  counters = rows[own, 3].astype(int) & 0x0F
  before = (
    np.concatenate([[counters[0] - 1 if counter is None else counter], counters[:-1]])
    if len(own)
    else counters
  )
  step = (counters - before) % 16  # 0: the packet was sent twice
  restarts = (rows[own, 3] & 0x20 != 0) & (rows[own, 4] > 0) & (rows[own, 5] & 0x80 != 0)
  gaps = own[(step > 1) & ~restarts]
  marked = np.flatnonzero(of_stream & (rows[:, 1] & 0x80 != 0) & (rows[:, 0] == _SYNC))
  bad = np.unique(np.concatenate([gaps, marked, np.flatnonzero(astray)]))
  return bad, int(counters[-1]) if len(own) else counter
