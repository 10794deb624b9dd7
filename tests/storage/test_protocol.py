"""The promises of a store, asked of each one."""

import threading

import pytest

from como_jax import storage
from como_jax.storage import protocol


def test_whole_objects_and_ranges(place):
  store, key = storage.open_store(storage.join(place, "a", "one"))
  data = bytes(range(256)) * 5
  store.write(key, data)
  assert store.read(key) == data and store.size(key) == len(data) and store.exists(key)
  assert store.read(key, 3, 7) == data[3:10] and store.read(key, 1000) == data[1000:]
  assert store.read(key, 1270, 100) == data[1270:]  # short at the end
  assert store.read(key, 1280, 10) == store.read(key, 5000, 1) == store.read(key, 0, 0) == b""
  store.write(key, b"new")
  assert store.read(key) == b"new" and store.read(key, 1, 5) == b"ew"
  if place.startswith("gs"):
    return  # the emulator fails at an empty body
  store.write(key, b"")
  assert store.read(key) == store.read(key, 0, 5) == b"" and store.size(key) == 0


def test_missing_objects(place):
  store, key = storage.open_store(storage.join(place, "none"))
  for ask in (
    lambda: store.read(key),
    lambda: store.read(key, 1, 1),
    lambda: store.size(key),
    lambda: store.stat(key),
    lambda: store.read_versioned(key),
  ):
    with pytest.raises(FileNotFoundError, match="none"):
      ask()
  assert not store.exists(key) and not store.list(key)
  store.remove(key)


def test_lists_a_folder_and_not_its_neighbour(place):
  store, key = storage.open_store(storage.join(place, "run1"))
  for name in ("run1/b", "run1/a/x y?", "run10/c"):
    store.write(f"{key[:-4]}{name}", name.encode())
  found = store.list(key)
  assert [entry.key[len(key) :] for entry in found] == ["/a/x y?", "/b"]
  assert [entry.size for entry in found] == [11, 6]
  assert found == store.list(f"{key}/") and found[1] == store.stat(f"{key}/b")
  assert storage.listdir(storage.join(place, "run1")) == ["a", "b"]
  assert storage.exists(storage.join(place, "run1")) and store.read(found[0].key) == b"run1/a/x y?"
  store.remove(found[0].key)
  assert storage.listdir(storage.join(place, "run1"))[-1] == "b"
  assert [entry.key for entry in store.list(key)] == [f"{key}/b"]


def test_conditional_writes(place):
  store, key = storage.open_store(storage.join(place, "lock"))
  first = store.write_if(key, b"one", None)
  assert store.read_versioned(key) == (b"one", first)
  with pytest.raises(storage.Conflict):
    store.write_if(key, b"two", None)
  second = store.write_if(key, b"two", first)
  assert second != first
  with pytest.raises(storage.Conflict):
    store.write_if(key, b"three", first)
  assert store.read(key) == b"two"
  store.remove(key)
  with pytest.raises(storage.Conflict):
    store.write_if(key, b"three", second)
  store.write_if(key, b"three", None)


def test_of_many_writers_one_wins(place):
  store, key = storage.open_store(storage.join(place, "race"))
  barrier, winners = threading.Barrier(6), []

  def take(number):
    barrier.wait()
    try:
      store.write_if(key, b"%d" % number, None)
      winners.append(number)
    except storage.Conflict:
      pass

  threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [b"%d" % number for number in winners] == [store.read(key)]


def test_files_come_and_go(place, tmp_path):
  store, key = storage.open_store(storage.join(place, "file"))
  source, target = tmp_path / "source", tmp_path / "target"
  source.write_bytes(b"content" * 1000)
  with storage.byte_counter() as counted:
    store.upload(source, key)
    store.download(key, target)
  assert target.read_bytes() == source.read_bytes()
  assert counted.bytes_written[store.name] == counted.bytes_read[store.name] == 7000
  with pytest.raises(FileNotFoundError):
    store.download(f"{key}2", tmp_path / "none")
  assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


def test_folder():
  assert protocol.folder("") == protocol.folder("/") == ""
  assert protocol.folder("a/b") == protocol.folder("a/b/") == "a/b/"
