"""Single frames of shards: a record is a whole clip, megabytes of which a window needs a few frames."""

import collections
import contextlib
import dataclasses
import os
import struct
import threading

import numpy as np

from como_jax.data import episode as episodes
from como_jax.data.sources import shards

_BLOCK, _HEAD = 2**16, 24  # ArrayRecord files are Riegeli files: every block begins with so many bytes that are not data
_OPEN_FILES = 256
_KNOWN = 2**15  # records of a process whose frames' places are kept, about 2 KB each


class RecordFile:
  """Bytes of an ArrayRecord file by their place in its data, without check sums; safe to share between threads.

  Attributes:
    ends: where each record ends, if every record is a chunk of its own and not compressed. Compare before you trust it.
  """

  def __init__(self, path: str):
    self._file, self.ends, at = open(path, "rb", buffering=0), [], 0
    size = os.fstat(self._file.fileno()).st_size
    while at < size and len(head := self.read(at, 40)) == 40:  # of a chunk: its length stands at 8, its kind at 24
      at += 40 + struct.unpack_from("<Q", head, 8)[0]
      self.ends += [at] if head[24:25] == b"r" else []

  def read(self, at: int, size: int) -> bytes:
    """Fewer bytes at the end of the file. The heads of blocks in between are left out."""
    block, inside = divmod(at, _BLOCK - _HEAD)
    last, end = divmod(at + size - 1, _BLOCK - _HEAD)
    first = block * _BLOCK + _HEAD + inside
    raw = os.pread(self._file.fileno(), last * _BLOCK + _HEAD + end + 1 - first, first)
    if last == block:
      return raw
    cut = _BLOCK - _HEAD - inside
    return b"".join([raw[:cut], *(raw[i + _HEAD : i + _BLOCK] for i in range(cut, len(raw), _BLOCK))])


class Reader:
  """Clips whose frames are read one by one.

  The first time a record is met it is read whole, with its check sums, and compared with the bytes at the place computed for it; from
  then on only the wanted frames are read from there. Where the bytes differ (a compressed file, say) it is always read whole.
  """

  def __init__(self, path: str):
    self.__setstate__(path)

  def __getstate__(self):
    return self._path

  def __setstate__(self, path):
    self._path, self._whole, self._lock = path, shards.Reader(path), threading.Lock()
    self._known: collections.OrderedDict[tuple[int, int], episodes.Clip] = collections.OrderedDict()
    self._files: collections.OrderedDict[int, RecordFile] = collections.OrderedDict()

  def clip(self, shard: int, record: int) -> episodes.Clip:
    """As `shards.Reader.clip`, without the arrays."""
    place = int(shard), int(record)
    with self._lock:
      clip = self._known.get(place)
      if clip is not None:
        self._known.move_to_end(place)
        return clip
    clip, known = self._whole.clip(*place), None
    with contextlib.suppress(OSError):
      known = self._find(clip, *place)
    if known:
      with self._lock:
        self._known[place] = known
        if len(self._known) > _KNOWN:
          self._known.popitem(last=False)
    return clip

  def _find(self, clip: episodes.Clip, shard: int, record: int) -> episodes.Clip | None:
    """The clip with frames that are read when asked for; None where they are not found."""
    data = next(iter(clip.frames.values())).blobs[0].obj  # the whole record
    file = self.file(shard)
    end = file.ends[record] if record < len(file.ends) else 0
    if end < len(data) or file.read(end - len(data), len(data)) != data:
      return None
    frames, at = {}, end - sum(len(blob) for one in clip.frames.values() for blob in one.blobs)  # the last of a record
    for name, one in clip.frames.items():
      edges = np.cumsum([at, *map(len, one.blobs)])
      frames[name], at = dataclasses.replace(one, blobs=_Blobs(self, shard, edges)), int(edges[-1])
    return dataclasses.replace(clip, frames=frames, arrays={})

  def file(self, shard: int) -> RecordFile:
    with self._lock:
      if shard not in self._files:
        self._files[shard] = RecordFile(os.path.join(self._path, shards.shard_name(shard)))
        if len(self._files) > _OPEN_FILES:
          self._files.popitem(last=False)  # closed when the last thread using it lets go
      self._files.move_to_end(shard)
      return self._files[shard]


@dataclasses.dataclass(frozen=True, eq=False)
class _Blobs:
  """The encoded frames of one camera of one clip, read one at a time; `edges` are where they begin and end in the shard's data."""

  reader: Reader
  shard: int
  edges: np.ndarray

  def __len__(self) -> int:
    return len(self.edges) - 1

  def __getitem__(self, i: int) -> bytes:
    return self.reader.file(self.shard).read(int(self.edges[i]), int(self.edges[i + 1] - self.edges[i]))
