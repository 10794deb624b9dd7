"""S3, and servers that speak its protocol (AWS_ENDPOINT_URL), through boto3.

Credentials and region come from where every AWS client takes them.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import threading
import time
from typing import Any

import boto3
import boto3.exceptions
import botocore.config
import botocore.exceptions

from como_jax import errors
from como_jax.storage import counting, protocol

_TRIES = 5
_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Store:
  """A bucket."""

  def __init__(self, bucket: str):
    self.name = f"s3://{bucket}"
    self._bucket = bucket
    self._conditional = False  # whether the store was seen to obey a condition
    self._lock = threading.Lock()
    with self._explained("", "open"):
      self._client: Any = boto3.Session().client(
        "s3",
        config=botocore.config.Config(
          connect_timeout=10,
          read_timeout=60,
          max_pool_connections=64,
          retries={"mode": "standard", "max_attempts": _TRIES},
        ),
      )

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """See `protocol.Store`."""
    return b"" if size == 0 else self._get(key, start, size)[0]

  def _get(self, key: str, start: int = 0, size: int | None = None) -> tuple[bytes, str]:
    """(Bytes of a range, version of the object)."""
    asked = {}
    if start or size is not None:
      asked["Range"] = f"bytes={start}-" + ("" if size is None else str(start + size - 1))
    data, answer = b"", {}
    with self._explained(key, "read"):
      for attempt in range(_TRIES):
        try:
          answer = self._client.get_object(Bucket=self._bucket, Key=key, **asked)
          data = answer["Body"].read()
          break
        except botocore.exceptions.ClientError as error:
          if _status(error) != 416:  # the object ends before `start`
            raise
          counting.add(self.name)
          return b"", ""
        except (
          botocore.exceptions.HTTPClientError,
          botocore.exceptions.IncompleteReadError,
        ):  # cut off in the middle of the body, which boto3 does not try again
          if attempt == _TRIES - 1:
            raise
          time.sleep(0.1 * 2**attempt)
    counting.add(self.name, read=len(data))
    return data, answer["ETag"].strip('"')

  def stat(self, key: str) -> protocol.Entry:
    """See `protocol.Store`."""
    answer = self._head(key)
    return protocol.Entry(key, answer["ContentLength"], answer["ETag"].strip('"'))

  def _head(self, key: str) -> dict:
    with self._explained(key, "read"):
      answer = self._client.head_object(Bucket=self._bucket, Key=key)
    counting.add(self.name)
    return answer

  def size(self, key: str) -> int:
    """See `protocol.Store`."""
    return self.stat(key).size

  def exists(self, key: str) -> bool:
    """See `protocol.Store`."""
    try:
      self._head(key)
    except FileNotFoundError:
      return False
    return True

  def list(self, prefix: str) -> list[protocol.Entry]:
    """See `protocol.Store`."""
    found = []
    with self._explained(prefix, "list"):
      pages = self._client.get_paginator("list_objects_v2")
      for page in pages.paginate(Bucket=self._bucket, Prefix=protocol.folder(prefix)):
        counting.add(self.name)
        found += [
          protocol.Entry(one["Key"], one["Size"], one["ETag"].strip('"'))
          for one in page.get("Contents", [])
          if not one["Key"].endswith("/")  # a folder made by a web console
        ]
    return sorted(found, key=lambda entry: entry.key)

  def write(self, key: str, data: bytes) -> None:
    """See `protocol.Store`."""
    with self._explained(key, "write"):
      self._client.put_object(Bucket=self._bucket, Key=key, Body=data)
    counting.add(self.name, written=len(data))

  def read_versioned(self, key: str) -> tuple[bytes, protocol.Version]:
    """See `protocol.Store`."""
    return self._get(key)

  def write_if(self, key: str, data: bytes, expected: protocol.Version | None) -> protocol.Version:
    """See `protocol.Store`.

    Older servers ignore conditions. So the first write in a process is followed by one that must
    be refused.
    """
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": f'"{expected}"'}
    version = self._put_if(key, data, condition)
    with self._lock:
      if not self._conditional:
        try:
          self._put_if(key, data, {"IfNoneMatch": "*"})
        except protocol.Conflict:
          self._conditional = True
        else:
          raise errors.UserError(
            f"{self.name} ignores conditional writes (If-None-Match), without which two runs "
            "cannot be kept apart: use another store or a shared file system"
          )
    return version

  def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> protocol.Version:
    counting.add(self.name, written=len(data))
    with self._explained(key, "write"):
      try:
        answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **condition)
      except botocore.exceptions.ClientError as error:
        repeated = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        if _status(error) == 404 and error.response["Error"].get("Code") == "NoSuchKey":
          raise protocol.Conflict(f"{self.name}/{key} is gone") from error
        if _status(error) == 412 and repeated:  # by this very request, whose answer was lost?
          found, version = self._get(key)
          if found == data:
            return version
        raise
    return answer["ETag"].strip('"')

  def remove(self, key: str) -> None:
    """See `protocol.Store`."""
    with self._explained(key, "remove"):
      self._client.delete_object(Bucket=self._bucket, Key=key)
    counting.add(self.name)

  def upload(self, local_file: protocol.Path, key: str) -> None:
    """See `protocol.Store`; in parts, where the file is large."""
    with self._explained(key, "write"):
      self._client.upload_file(os.fspath(local_file), self._bucket, key)
    counting.add(self.name, written=os.path.getsize(local_file))

  def download(self, key: str, local_file: protocol.Path) -> None:
    """See `protocol.Store`; in parts, where the object is large."""
    target = pathlib.Path(local_file)
    temporary = protocol.temporary(target)
    head = self._head(key)
    try:
      with self._explained(key, "read"):
        self._client.download_file(self._bucket, key, str(temporary))
      counting.add(self.name, read=temporary.stat().st_size)
      self._verify(head, temporary, key)
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)

  def _verify(self, head: dict, path: pathlib.Path, key: str) -> None:
    """Compares a file with the size, and with the MD5 where the ETag is one."""
    tag = head["ETag"].strip('"')
    encrypted = (
      head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
    )
    with path.open("rb") as file:
      same = encrypted or not _PLAIN_MD5.fullmatch(tag) or _md5(file) == tag
    if not same or path.stat().st_size != head["ContentLength"]:
      raise errors.TransientError(f"{self.name}/{key} arrived damaged, or was replaced meanwhile")

  @contextlib.contextmanager
  def _explained(self, key: str, what: str):
    """Context that converts the errors of boto3 to those of `protocol.Store`."""
    url = f"{self.name}/{key}"
    try:
      yield
    except (
      botocore.exceptions.NoCredentialsError,
      botocore.exceptions.PartialCredentialsError,
      botocore.exceptions.ProfileNotFound,
      botocore.exceptions.TokenRetrievalError,
    ) as error:
      raise errors.UserError(
        f"{url}: {error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
      ) from error
    except botocore.exceptions.ClientError as error:
      raise self._converted(error, url, what) from error
    except boto3.exceptions.Boto3Error as error:  # of a transfer; hides what it was
      cause = error.__cause__ or error.__context__
      if isinstance(cause, botocore.exceptions.ClientError):
        raise self._converted(cause, url, what) from error
      raise errors.TransientError(f"{url}: cannot {what}: {error}") from error
    except botocore.exceptions.ParamValidationError as error:
      raise errors.UserError(f"{url}: {error}") from error
    except botocore.exceptions.BotoCoreError as error:
      raise errors.TransientError(f"{url}: the store does not answer: {error}") from error

  def _converted(self, error: botocore.exceptions.ClientError, url: str, what: str) -> Exception:
    code, status = error.response.get("Error", {}).get("Code", ""), _status(error)
    if code == "NoSuchBucket":
      return errors.UserError(f"{url}: there is no bucket {self._bucket!r}")
    if status == 404:
      return FileNotFoundError(2, "no such object", url)
    if status == 412 or code == "ConditionalRequestConflict":
      return protocol.Conflict(f"{url} has changed or exists")
    if status == 501:
      return errors.UserError(f"{url}: the store does not support this ({code}): cannot {what}")
    if status in (408, 429) or status >= 500:
      return errors.TransientError(f"{url}: the store does not answer: {code or status}")
    return errors.UserError(f"{url}: cannot {what}: {code or status} (are rights missing?)")


def _status(error: botocore.exceptions.ClientError) -> int:
  return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _md5(file) -> str:
  return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
