import multiprocessing
import os

import pytest

from como_jax import errors, storage
from como_jax.storage import cache as cache_lib


@pytest.fixture
def objects():
  store, _ = storage.open_store("memory://cache")
  for name in "abc":
    store.write(name, name.encode() * 100)
  return store


def test_the_least_recently_used_goes_first(objects, tmp_path):
  cache = storage.Cache(tmp_path, limit=250)
  first, second = cache.fetch(objects, "a"), cache.fetch(objects, "b")
  os.utime(first, (1, 1))
  os.utime(second, (2, 2))
  assert cache.fetch(objects, "a") == first  # used again
  cache.fetch(objects, "c")
  assert sorted(path.name for path, _, _ in cache.files()) == ["a", "c"]
  assert sum(size for _, size, _ in cache.files()) <= 250 and not second.parent.exists()


def test_a_known_version_needs_no_request(objects, tmp_path):
  cache = storage.Cache(tmp_path)
  version = objects.stat("a").version
  with storage.byte_counter() as counted:
    assert cache.fetch(objects, "a", version) == cache.fetch(objects, "a", version)
  assert counted.bytes_read == {"memory://cache": 100}


def test_what_is_open_stays_readable(objects, tmp_path):
  cache = storage.Cache(tmp_path, limit=100)
  with cache.open(objects, "a") as file:
    cache.fetch(objects, "b")
    assert [path.name for path, _, _ in cache.files()] == ["b"] and file.read() == b"a" * 100
  with pytest.raises(FileNotFoundError), cache.open(objects, "none"):
    pass


def test_limit_and_clear(objects, tmp_path):
  cache = storage.Cache(tmp_path)
  assert cache.limit == cache_lib.DEFAULT_LIMIT
  cache.fetch(objects, "a")
  cache.fetch(objects, "b")
  cache.set_limit(150)
  assert storage.Cache(tmp_path).limit == 150 and len(cache.files()) == 1
  with pytest.raises(errors.UserError, match="big has 151 bytes, .* may hold 150: como-jax cache"):
    objects.write("big", b"x" * 151)
    cache.fetch(objects, "big")
  assert cache.clear() == 100 and not cache.files() and storage.Cache(tmp_path).limit == 150
  (tmp_path / "limit.json").write_text("{")
  with pytest.raises(errors.UserError, match="limit.json is damaged"):
    storage.Cache(tmp_path).fetch(objects, "a")


@pytest.mark.parametrize(
  "text, size", [("200GB", 200 * 10**9), ("1.5 GiB", 3 << 29), ("7", 7), ("2kb", 2000)]
)
def test_sizes(text, size):
  assert cache_lib.parse_size(text) == size


def test_no_size():
  with pytest.raises(errors.UserError, match="size '3 apples': expected a number with one of KB"):
    cache_lib.parse_size("3 apples")


def _fetch(folder, path, queue):
  with storage.byte_counter() as counted:
    copy = storage.local_copy(path, cache=storage.Cache(folder))
  queue.put((copy.read_bytes() == b"x" * 100_000, counted.bytes_read["s3://bucket"]))


@pytest.mark.usefixtures("s3_environment")
def test_processes_download_once(tmp_path):
  storage.write_bytes("s3://bucket/shared", b"x" * 100_000)
  context = multiprocessing.get_context("spawn")
  queue = context.Queue()
  arguments = (tmp_path, "s3://bucket/shared", queue)
  processes = [context.Process(target=_fetch, args=arguments) for _ in range(3)]
  for process in processes:
    process.start()
  results = [queue.get() for _ in processes]
  for process in processes:
    process.join()
  assert all(same for same, _ in results) and sum(size for _, size in results) == 100_000
