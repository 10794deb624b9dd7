"""Requests to web services, tried again while a service is busy."""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

from como_jax import errors

_TRIES = 6
_LONGEST = 20.0  # seconds between two tries
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte


class Client:
  """Keeps connections, one set for each thread of each process."""

  def __init__(self, sign: Callable[[str, str, dict[str, str]], None] | None = None):
    """Makes a client.

    Args:
      sign: is given method, URL and headers of a request, and adds the credentials.
    """
    self._sign = sign
    self._local = threading.local()

  def request(
    self,
    method: str,
    url: str,
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
  ) -> tuple[requests.Response, int]:
    """(Answer, number of tries), whatever the status that is not temporary.

    Args:
      method: GET, PUT, ...
      url: of the service.
      params: of the query.
      headers: further ones.
      data: body.

    Raises:
      errors.TransientError: no answer, or one that says to come again, to all tries.
    """
    last = ""
    for attempt in range(_TRIES):
      if attempt:
        time.sleep(min(_LONGEST, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
      sent = {"Accept-Encoding": "identity", **(headers or {})}
      try:
        if self._sign:
          self._sign(method, url, sent)
        answer = self._session().request(
          method,
          url,
          params=params,
          headers=sent,
          data=data,
          timeout=_TIMEOUT,
          allow_redirects=method in ("GET", "HEAD"),
        )
      except requests.RequestException as error:
        last = str(error)
        continue
      if answer.status_code not in (408, 429) and answer.status_code < 500:
        return answer, attempt + 1
      if answer.status_code == 501:
        return answer, attempt + 1
      last = f"status {answer.status_code}"
    raise errors.TransientError(f"{url}: the store does not answer: {last}")

  def _session(self) -> requests.Session:
    if getattr(self._local, "process", None) != os.getpid():  # a fork shares no connection
      self._local.process, self._local.session = os.getpid(), requests.Session()
    return self._local.session


def byte_range(start: int, size: int | None) -> dict[str, str]:
  """The header that asks for a range; {} for the whole."""
  if not start and size is None:
    return {}
  return {"Range": f"bytes={start}-" + ("" if size is None else str(start + size - 1))}
