"""The Hugging Face Hub as a read-only store: hf://datasets/OWNER/NAME[@REVISION]/PATH.

Without datasets/ or spaces/ it is a model repository. HF_ENDPOINT names another server; the token
is HF_TOKEN or the one that `hf auth login` stored.
"""

import hashlib
import os
import pathlib
import urllib.parse
from typing import Never

import requests

from como_jax import errors
from como_jax.storage import counting, http, protocol

_KINDS = ("datasets", "spaces")
_PART = 64 << 20


class HfStore:
  """The hub. A key is what comes after hf://, with the repository."""

  name = "hf://"

  def __init__(self):
    self._host = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    self._client = http.Client(self._sign)

  @staticmethod
  def _sign(method: str, url: str, headers: dict[str, str]) -> None:
    del method, url
    token = os.environ.get("HF_TOKEN", "")
    if not token:
      home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
      path = pathlib.Path(os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token"))
      token = path.read_text().strip() if path.is_file() else ""
    if token:
      headers["Authorization"] = f"Bearer {token}"

  def _parts(self, key: str) -> tuple[str, str, str, str]:
    """("datasets/" or "", "OWNER/NAME", revision, path) of a key."""
    words = key.strip("/").split("/")
    kind = words.pop(0) if words[0] in _KINDS else ""
    if len(words) < 2:
      raise errors.UserError(f"hf://{key}: expected hf://[datasets/]OWNER/NAME[@REVISION]/PATH")
    name, _, revision = words[1].partition("@")
    return kind, f"{words[0]}/{name}", revision or "main", "/".join(words[2:])

  def _url(self, key: str) -> str:
    kind, repository, revision, path = self._parts(key)
    revision = urllib.parse.quote(revision, safe="")
    start = f"{self._host}/{kind}/{repository}" if kind else f"{self._host}/{repository}"
    return f"{start}/resolve/{revision}/{urllib.parse.quote(path)}"

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """See `protocol.Store`."""
    if size == 0:
      return b""
    answer, _ = self._client.request("GET", self._url(key), headers=http.byte_range(start, size))
    if answer.status_code == 416:
      counting.add(self.name)
      return b""
    self._check(answer, key)
    data = answer.content
    counting.add(self.name, read=len(data))
    if answer.status_code == 200 and (start or size is not None):
      data = data[start : None if size is None else start + size]
    return data

  def stat(self, key: str) -> protocol.Entry:
    """See `protocol.Store`."""
    entry, _ = self._stat(key)
    return entry

  def _stat(self, key: str) -> tuple[protocol.Entry, str]:
    """(Entry, SHA-256 of the content or "")."""
    answer, _ = self._client.request("HEAD", self._url(key))
    counting.add(self.name)
    self._check(answer, key)
    first = answer.history[0].headers if answer.history else answer.headers
    every = {**answer.headers, **first}
    tag = (every.get("X-Linked-Etag") or every.get("ETag") or "").strip('"')
    size = int(every.get("X-Linked-Size") or answer.headers["Content-Length"])
    return protocol.Entry(key, size, tag), tag if len(tag) == 64 else ""

  def size(self, key: str) -> int:
    """See `protocol.Store`."""
    return self.stat(key).size

  def exists(self, key: str) -> bool:
    """See `protocol.Store`."""
    try:
      self.stat(key)
    except FileNotFoundError:
      return False
    return True

  def list(self, prefix: str) -> list[protocol.Entry]:
    """See `protocol.Store`."""
    kind, repository, revision, path = self._parts(prefix)
    base = prefix.strip("/").removesuffix(path).rstrip("/")
    quoted = f"{urllib.parse.quote(revision, safe='')}/{urllib.parse.quote(path)}".rstrip("/")
    url = f"{self._host}/api/{kind or 'models'}/{repository}/tree/{quoted}"
    found, params = [], {"recursive": "true"}
    while url:
      answer, _ = self._client.request("GET", url, params=params)
      counting.add(self.name)
      if answer.status_code == 404:
        return []
      self._check(answer, prefix)
      found += [
        protocol.Entry(
          f"{base}/{one['path']}", int(one["size"]), (one.get("lfs") or one).get("oid", "")
        )
        for one in answer.json()
        if one["type"] == "file"
      ]
      url, params = answer.links.get("next", {}).get("url", ""), {}
    return sorted(found, key=lambda entry: entry.key)

  def download(self, key: str, local_file: protocol.Path) -> None:
    """See `protocol.Store`."""
    entry, sha256 = self._stat(key)
    target = pathlib.Path(local_file)
    temporary = protocol.temporary(target)
    digest = hashlib.sha256()
    try:
      with temporary.open("wb") as file:
        for start in range(0, entry.size, _PART):
          data = self.read(key, start, _PART)
          digest.update(data)
          file.write(data)
      complete = temporary.stat().st_size == entry.size
      if not complete or (sha256 and digest.hexdigest() != sha256):
        raise errors.TransientError(f"hf://{key} arrived damaged, or was replaced meanwhile")
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)

  def _refuse(self, key: str) -> Never:
    raise errors.UserError(f"hf://{key} can only be read: choose a local folder, gs:// or s3://")

  def read_versioned(self, key: str) -> tuple[bytes, protocol.Version]:
    """See `protocol.Store`."""
    return self.read(key), self.stat(key).version

  def write(self, key: str, data: bytes) -> None:
    """Refuses: the hub is only read here."""
    del data
    self._refuse(key)

  def write_if(self, key: str, data: bytes, expected: protocol.Version | None) -> protocol.Version:
    """Refuses: the hub is only read here."""
    del data, expected
    self._refuse(key)

  def remove(self, key: str) -> None:
    """Refuses: the hub is only read here."""
    self._refuse(key)

  def upload(self, local_file: protocol.Path, key: str) -> None:
    """Refuses: the hub is only read here."""
    del local_file
    self._refuse(key)

  def _check(self, answer: requests.Response, key: str) -> None:
    """Converts a status to the errors of `protocol.Store`."""
    status = answer.status_code
    if status < 300:
      return
    if status == 404:
      raise FileNotFoundError(2, "no such object", f"hf://{key}")
    raise errors.UserError(
      f"hf://{key}: cannot read: status {status} (a wrong name, or a repository for which HF_TOKEN "
      "has no rights)"
    )
