"""Google Cloud Storage, through its JSON API.

Credentials are the application default ones of Google's clients. STORAGE_EMULATOR_HOST names
another server, which is asked without credentials.
"""

import base64
import hashlib
import os
import pathlib
import threading
import urllib.parse

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
import requests

from como_jax import errors
from como_jax.storage import counting, http, protocol

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_PART = 32 << 20  # bytes of a request; a multiple of 256 KiB


class GcsStore:
  """A bucket."""

  def __init__(self, bucket: str):
    self.name = f"gs://{bucket}"
    self._bucket = bucket
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if host and "://" not in host:
      host = f"http://{host}"
    self._host = host or "https://storage.googleapis.com"
    self._lock = threading.Lock()
    self._credentials = None
    self._client = http.Client(None if host else self._sign)
    if not host:
      self._sign("GET", self._host, {})  # says early what is missing

  def _sign(self, method: str, url: str, headers: dict[str, str]) -> None:
    try:
      with self._lock:
        if self._credentials is None:
          self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        self._credentials.before_request(
          google.auth.transport.requests.Request(), method, url, headers
        )
    except google.auth.exceptions.TransportError as error:
      raise errors.TransientError(f"{self.name}: no credentials yet: {error}") from error
    except google.auth.exceptions.GoogleAuthError as error:
      raise errors.UserError(
        f"{self.name}: {error}: run 'gcloud auth application-default login', or set "
        "GOOGLE_APPLICATION_CREDENTIALS"
      ) from error

  def _object(self, key: str) -> str:
    return f"{self._host}/storage/v1/b/{self._bucket}/o/{urllib.parse.quote(key, safe='')}"

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """See `protocol.Store`."""
    if size == 0:
      return b""
    answer, _ = self._client.request(
      "GET", self._object(key), params={"alt": "media"}, headers=http.byte_range(start, size)
    )
    if answer.status_code == 416:  # the object ends before `start`
      counting.add(self.name)
      return b""
    self._check(answer, key, "read")
    data = answer.content
    if answer.status_code == 200 and (start or size is not None):  # the range was ignored
      data = data[start : None if size is None else start + size]
    counting.add(self.name, read=len(answer.content))
    return data

  def stat(self, key: str) -> protocol.Entry:
    """See `protocol.Store`."""
    facts = self._facts(key)
    return protocol.Entry(key, int(facts["size"]), str(facts["generation"]))

  def _facts(self, key: str) -> dict:
    answer, _ = self._client.request("GET", self._object(key))
    counting.add(self.name)
    self._check(answer, key, "read")
    return answer.json()

  def size(self, key: str) -> int:
    """See `protocol.Store`."""
    return self.stat(key).size

  def exists(self, key: str) -> bool:
    """See `protocol.Store`."""
    try:
      self._facts(key)
    except FileNotFoundError:
      return False
    return True

  def list(self, prefix: str) -> list[protocol.Entry]:
    """See `protocol.Store`."""
    found, params = [], {"prefix": protocol.folder(prefix)}
    while True:
      answer, _ = self._client.request(
        "GET", f"{self._host}/storage/v1/b/{self._bucket}/o", params=params
      )
      counting.add(self.name)
      if answer.status_code == 404:
        raise errors.UserError(f"{self.name}: there is no bucket {self._bucket!r}")
      self._check(answer, prefix, "list")
      page = answer.json()
      found += [
        protocol.Entry(one["name"], int(one["size"]), str(one["generation"]))
        for one in page.get("items", [])
        if not one["name"].endswith("/")  # a folder made by a web console
      ]
      if not page.get("nextPageToken"):
        return sorted(found, key=lambda entry: entry.key)
      params["pageToken"] = page["nextPageToken"]

  def write(self, key: str, data: bytes) -> None:
    """See `protocol.Store`."""
    self._put(key, data, {})

  def _put(self, key: str, data: bytes, condition: dict[str, str]) -> protocol.Version:
    answer, tries = self._client.request(
      "POST",
      f"{self._host}/upload/storage/v1/b/{self._bucket}/o",
      params={"uploadType": "media", "name": key, **condition},
      headers={"Content-Type": "application/octet-stream"},
      data=data,
    )
    counting.add(self.name, written=len(data))
    if answer.status_code == 412 and tries > 1:  # by this very request, whose answer was lost?
      found, version = self.read_versioned(key)
      if found == data:
        return version
    if answer.status_code == 404:
      raise errors.UserError(f"{self.name}/{key}: there is no bucket {self._bucket!r}")
    self._check(answer, key, "write")
    return str(answer.json()["generation"])

  def read_versioned(self, key: str) -> tuple[bytes, protocol.Version]:
    """See `protocol.Store`."""
    while True:
      version = self.stat(key).version
      answer, _ = self._client.request(
        "GET", self._object(key), params={"alt": "media", "generation": version}
      )
      counting.add(self.name, read=len(answer.content))
      if answer.status_code == 404:  # replaced or removed since
        continue
      self._check(answer, key, "read")
      return answer.content, version

  def write_if(self, key: str, data: bytes, expected: protocol.Version | None) -> protocol.Version:
    """See `protocol.Store`."""
    return self._put(key, data, {"ifGenerationMatch": expected or "0"})

  def remove(self, key: str) -> None:
    """See `protocol.Store`."""
    answer, _ = self._client.request("DELETE", self._object(key))
    counting.add(self.name)
    if answer.status_code != 404:
      self._check(answer, key, "remove")

  def upload(self, local_file: protocol.Path, key: str) -> None:
    """See `protocol.Store`; in parts, where the file is large."""
    size = os.path.getsize(local_file)
    if size <= _PART:
      self._put(key, pathlib.Path(local_file).read_bytes(), {})
      return
    answer, _ = self._client.request(
      "POST",
      f"{self._host}/upload/storage/v1/b/{self._bucket}/o",
      params={"uploadType": "resumable", "name": key},
      headers={"Content-Type": "application/json"},
      data=b"{}",
    )
    self._check(answer, key, "write")
    with open(local_file, "rb") as file:
      for start in range(0, size, _PART):
        data = file.read(_PART)
        part, _ = self._client.request(
          "PUT",
          answer.headers["Location"],
          headers={"Content-Range": f"bytes {start}-{start + len(data) - 1}/{size}"},
          data=data,
        )
        counting.add(self.name, written=len(data))
        if part.status_code != 308:  # 308: more is expected
          self._check(part, key, "write")

  def download(self, key: str, local_file: protocol.Path) -> None:
    """See `protocol.Store`; in parts, where the object is large."""
    facts = self._facts(key)
    target = pathlib.Path(local_file)
    temporary = protocol.temporary(target)
    digest = hashlib.md5(usedforsecurity=False)
    try:
      with temporary.open("wb") as file:
        for start in range(0, int(facts["size"]), _PART):
          data = self.read(key, start, _PART)
          digest.update(data)
          file.write(data)
      same = temporary.stat().st_size == int(facts["size"])
      if "md5Hash" in facts:  # a composed object has none
        same = same and base64.b64decode(facts["md5Hash"]) == digest.digest()
      if not same:
        raise errors.TransientError(f"{self.name}/{key} arrived damaged, or was replaced meanwhile")
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)

  def _check(self, answer: requests.Response, key: str, what: str) -> None:
    """Converts a status to the errors of `protocol.Store`."""
    status, url = answer.status_code, f"{self.name}/{key}"
    if status < 300:
      return
    if status == 404:
      raise FileNotFoundError(2, "no such object", url)
    if status == 412:
      raise protocol.Conflict(f"{url} has changed or exists")
    raise errors.UserError(
      f"{url}: cannot {what}: status {status}" + (" (rights are missing)" if status < 500 else "")
    )
