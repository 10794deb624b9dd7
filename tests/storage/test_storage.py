import subprocess
import sys

import pytest

from como_jax import errors, storage


def test_conveniences(place):
  path = storage.join(place, "x.json")
  storage.write_json(path, {"a": "ü"})
  assert storage.read_json(path) == {"a": "ü"} and storage.exists(path)
  assert (
    storage.size(path) == len(storage.read_bytes(path)) == len(storage.read_text(path).encode())
  )
  storage.write_text(path, "{")
  with pytest.raises(errors.UserError, match="x.json is no JSON"):
    storage.read_json(path)
  assert not storage.exists(storage.join(place, "none"))


def test_local_copy(place, tmp_path):
  path = storage.join(place, "weights.bin")
  storage.write_bytes(path, b"one")
  cache = storage.Cache(tmp_path / "cache")
  copy = storage.local_copy(path, cache=cache)
  assert copy.read_bytes() == b"one" and copy.name == "weights.bin"
  assert (str(copy) == path) == (not storage.is_remote(path))
  storage.write_bytes(path, b"two")
  assert storage.local_copy(path, cache=cache).read_bytes() == b"two"


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(storage.SCHEMES, "s3", ("S3", "no_such.module", "s3"))
  with pytest.raises(errors.UserError, match=r"s3://b/x: .*pip install 'como-jax\[s3\]'"):
    storage.open_store("s3://b/x")


def test_the_hub_is_not_written():
  with pytest.raises(errors.UserError, match="only be read"):
    storage.check("hf://datasets/a/b", write=True)


def test_local_use_imports_no_client(tmp_path):
  code = (
    "import sys\nfrom como_jax import storage\n"
    f"storage.write_text({str(tmp_path / 'x')!r}, 'a'); storage.check('s3://b/k')\n"
    "found = {'boto3', 'botocore', 'requests', 'fsspec'} & set(sys.modules)\n"
    "found |= {name for name in sys.modules if name.startswith('google.auth')}\n"
    "assert not found, found"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
