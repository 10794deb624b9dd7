import pathlib

import pytest

from como_jax import errors
from como_jax.storage import addresses


def test_split():
  assert addresses.split("s3://bucket/a/b") == ("s3", "bucket", "a/b")
  assert addresses.split("gs://bucket") == ("gs", "bucket", "")
  assert addresses.split(pathlib.Path("a/b")) == ("", "", "a/b")
  assert addresses.split("/a:b//c") == ("", "", "/a:b//c")


@pytest.mark.parametrize(
  "path, says",
  [
    ("s4://b/k", "did you mean 's3'"),
    ("https://host/k", r"no store for https://.*valid: gs, hf, memory, s3"),
    ("file:///data/x", "give the path alone"),
    ("s3://", "no bucket, expected s3://BUCKET/KEY"),
    ("gs:/bucket/run", "two slashes"),
  ],
)
def test_refuses_in_one_line(path, says):
  with pytest.raises(errors.UserError, match=says) as info:
    addresses.split(path)
  assert "\n" not in str(info.value) and path in str(info.value)


def test_parts():
  assert addresses.join("s3://b/run", "x", "y.json") == "s3://b/run/x/y.json"
  assert addresses.join("s3://b", "x") == "s3://b/x" and addresses.join("a", "b") == "a/b"
  assert addresses.name("s3://b/run/x.json") == "x.json" and addresses.name("a/b/") == "b"
  assert addresses.parent("s3://b/run/x") == "s3://b/run" and addresses.parent("a/b") == "a"
  assert addresses.parent("s3://b/x") == addresses.parent("s3://b") == "s3://b"
  assert addresses.is_remote("s3://b") and not addresses.is_remote("s3:/b")
