"""Addresses: "scheme://bucket/key" names an object of a store, anything else a local path."""

import os
import posixpath
import re

from como_jax import errors

# scheme -> (what it is, the module it needs, the extra that installs it)
SCHEMES = {
  "gs": ("Google Cloud Storage", "google.auth", "gcs"),
  "hf": ("Hugging Face Hub, read-only", "requests", "hf"),
  "memory": ("memory of this process", "", ""),
  "s3": ("S3 and what speaks its protocol", "boto3", "s3"),
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_MANGLED = re.compile(rf"({'|'.join(SCHEMES)}):/+[^/]")


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether a path names a place in a store, supported or not."""
  return _URL.match(os.fspath(path)) is not None


def split(path: str | os.PathLike[str]) -> tuple[str, str, str]:
  """(Scheme, bucket, key) of an address; ("", "", path) of a local path.

  Raises:
    errors.UserError: the scheme is unknown, or there is no bucket.
  """
  text = os.fspath(path)
  match = _URL.match(text)
  if not match:
    if mangled := _MANGLED.match(text):
      raise errors.UserError(f"{text}: an address begins with {mangled[1]}://, with two slashes")
    return "", "", text
  scheme, rest = match[1], match[2]
  if scheme == "file":
    raise errors.UserError(f"{text}: give the path alone, without file://")
  if scheme not in SCHEMES:
    raise errors.UserError(
      f"{text}: no store for {scheme}://: {errors.nearest(scheme, SCHEMES)}; or download or mount "
      "it and give the local path"
    )
  bucket, _, key = rest.partition("/")
  if not bucket:
    raise errors.UserError(f"{text}: no bucket, expected {scheme}://BUCKET/KEY")
  return scheme, bucket, key


def join(path: str | os.PathLike[str], *parts: str) -> str:
  """A path below another one."""
  text = os.fspath(path)
  return posixpath.join(text, *parts) if is_remote(text) else os.path.join(text, *parts)


def name(path: str | os.PathLike[str]) -> str:
  """The last part of a path."""
  return posixpath.basename(os.fspath(path).rstrip("/"))


def parent(path: str | os.PathLike[str]) -> str:
  """The folder of a path; that of a bucket is the bucket."""
  text = os.fspath(path)
  if not is_remote(text):
    return os.path.dirname(text.rstrip("/"))
  scheme, _, rest = text.partition("://")
  rest = rest.rstrip("/")
  return f"{scheme}://{posixpath.dirname(rest) or rest}"
