"""The lock of a run's directory in an object store: an object that its owner renews.

A store cannot see that a process has died. So an owner rewrites the lock every `RENEW` seconds. Who
finds a lock takes it only after `EXPIRY` seconds without a change, or where its process is known to
be dead: on the same machine. Clocks of machines are not compared.
"""

import contextlib
import datetime
import json
import os
import platform
import time
import uuid
from collections.abc import Callable

from como_jax import errors, storage
from como_jax.units import owner

LOCK = ".lock"
RENEW, EXPIRY = 15.0, 60.0  # seconds


class StoreLock:
  """The lock of one directory.

  Attributes:
    owner: names this owner.
    previous: `owner` of who had the lock before; "" = nobody.
  """

  def __init__(self, address: str):
    self._address = address
    self._store, self._key = storage.open_store(storage.join(address, LOCK))
    self.owner, self.previous = uuid.uuid4().hex, ""
    self._content = {
      "owner": self.owner,
      "process": os.getpid(),
      "host": platform.node(),
      "identity": owner.own(),
      "since": datetime.datetime.now().isoformat(timespec="seconds", sep=" "),
    }
    self._version: str | None = None

  def take(self, *, wait: Callable[[float], None] = time.sleep) -> None:
    """Takes the lock; waits up to `EXPIRY` seconds for one whose owner may be dead.

    Raises:
      errors.UserError: a live run has it, or the store has no conditional writes.
    """
    found = self._look()
    if (
      found
      and not found[0].get("released")
      and not owner.is_gone(str(found[0].get("identity", "")))
    ):
      who = _words(found[0])
      print(f"lock: {self._address} was in use by {who}; watching it for {EXPIRY:.0f} s")
      until = time.monotonic() + EXPIRY
      while found and time.monotonic() < until:
        wait(min(2.0, EXPIRY / 10))
        again = self._look()
        if again and again[1] != found[1]:
          self._refuse(again[0])
        found = again
    self.previous = str(found[0].get("owner", "")) if found else ""
    try:
      self._write(found[1] if found else None)
    except storage.Conflict:
      self._refuse((self._look() or ({}, ""))[0])

  def renew(self) -> None:
    """Says that the owner lives.

    Raises:
      errors.RunError: another run has taken the lock.
    """
    try:
      self._write(self._version)
    except storage.Conflict as error:
      self._version = None
      raise errors.RunError(
        f"--workdir {self._address} was taken over by another run: this one had not answered for "
        f"{EXPIRY:.0f} s and ends here"
      ) from error

  def release(self, *, remove: bool = False) -> None:
    """Gives the lock back, if it is still ours. It goes on to say who had it last.

    Args:
      remove: leave nothing of it.
    """
    if self._version is None:
      return
    with contextlib.suppress(storage.Conflict):
      self._write(self._version, released=True)
      if remove:
        self._store.remove(self._key)
    self._version = None

  def _write(self, expected: str | None, **more: bool) -> None:
    data = json.dumps({**self._content, "renewed": time.time(), **more}).encode()
    self._version = self._store.write_if(self._key, data, expected)

  def _look(self) -> tuple[dict, str] | None:
    """(Owner, version) of the lock that is there."""
    try:
      data, version = self._store.read_versioned(self._key)
    except FileNotFoundError:
      return None
    try:
      content = json.loads(data)
    except ValueError:
      content = {}
    return (content if isinstance(content, dict) else {}), version

  def _refuse(self, content: dict) -> None:
    raise errors.UserError(
      f"--workdir {self._address} is in use by a live run ({_words(content)}): wait for it or end "
      "it; nothing was changed"
    )


def _words(content: dict) -> str:
  return (
    f"process {content.get('process', '?')} on {content.get('host', '?')} since "
    f"{content.get('since', '?')}"
  )
