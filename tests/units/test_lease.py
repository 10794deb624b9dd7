"""Leases: who gets one, when it has run out, and who may still say that a unit is done."""

import dataclasses
import threading

import pytest

from como_jax import errors, storage
from como_jax.units import lease as leases
from como_jax.units import owner
from tests import limits


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


@pytest.fixture(name="hosts", params=["local", "memory"])
def _hosts(tmp_path, monkeypatch, request):
  """(function that makes the leases of one more host, the clock of all); nobody renews."""
  clock = Clock()
  monkeypatch.setattr(leases.Leases, "_renew", lambda self: None)
  monkeypatch.setattr(owner, "is_gone", lambda text: False)
  address = f"{tmp_path}/w" if request.param == "local" else f"memory://{tmp_path.name}/w"
  store, key = storage.open_store(address)
  return (lambda seconds=10.0: leases.Leases(store, key, seconds=seconds, clock=clock), clock)


def test_one_of_two_gets_a_lease(hosts):
  a, b = hosts[0](), hosts[0]()
  held = a.claim("u")
  assert held and b.claim("u") is None and a.claim("u") is None and b.claim("v")
  assert held.renew() and held.commit(("x", "y"))
  assert b.record("u").files == ("x", "y") and b.record("w") is None
  assert b.claim("u") is None and b.claim("u", again=True)
  assert not held.renew() and not held.commit()


def test_a_lease_that_is_given_back_is_free_at_once(hosts):
  a, b = hosts[0](), hosts[0]()
  with a:
    a.claim("u").release()
    assert b.claim("u")
    held = a.claim("v")
  assert b.claim("v") and not held.commit()
  b.claim("w").forget()
  assert a.record("w") is None


def test_a_lease_runs_out_when_its_version_is_seen_for_too_long(hosts):
  (host, clock), held = hosts, None
  a, b = host(seconds=10.0), host(seconds=3.0)
  held = a.claim("u")
  clock.now = 100.0  # b has not looked before: its own time begins now
  assert b.claim("u") is None
  clock.now = 110.0
  assert b.claim("u") is None and held.renew()
  clock.now = 115.0
  assert b.claim("u") is None
  clock.now = 125.0  # as long as the lease says, not as long as those of b
  assert b.claim("u") is None
  clock.now = 125.5
  taken = b.claim("u")
  assert taken and not held.lost
  assert not held.commit(("stale",)) and held.lost and not held.renew()
  held.release()
  assert taken.commit(("fresh",)) and a.record("u").files == ("fresh",)


def test_the_death_of_a_process_of_this_machine_is_seen_at_once(hosts, monkeypatch):
  a, b = hosts[0](), hosts[0]()
  a.claim("u")
  assert b.claim("u") is None
  asked = []
  monkeypatch.setattr(owner, "is_gone", lambda text: asked.append(text) or True)
  assert b.claim("u") and asked == [owner.own()]


def test_an_answer_that_was_lost_on_the_way_is_no_conflict(hosts, monkeypatch):
  held = hosts[0]().claim("u")
  kind = type(held._store)
  write = kind.write_if

  def unheard(self, key, data, expected):
    write(self, key, data, expected)
    return write(self, key, data, expected)

  monkeypatch.setattr(kind, "write_if", unheard)
  assert held.renew() and not held.lost
  monkeypatch.undo()
  assert held.commit()


def test_leases_are_renewed_until_they_are_lost(tmp_path):
  store = storage.LocalStore()
  with leases.Leases(store, f"{tmp_path}/w", seconds=0.2) as a:
    held = a.claim("u")
    assert limits.wait_until(lambda: a.record("u").count >= 3)
    store.remove(f"{tmp_path}/w/u.lease")
    assert limits.wait_until(lambda: held.lost)
    assert not store.exists(f"{tmp_path}/w/u.lease")
  assert not any(thread.name == "leases" for thread in threading.enumerate())


def test_a_store_without_conditional_writes_is_refused(tmp_path):
  store, key = storage.open_store("hf://datasets/someone/set/w")

  class Reads(type(store)):
    def read_versioned(self, key):
      raise FileNotFoundError(key)

  with pytest.raises(errors.UserError) as told:
    leases.Leases(Reads(), key, seconds=1.0).claim("u")
  assert "\n" not in str(told.value) and "only be read" in str(told.value)


def test_what_is_no_lease_is_named(tmp_path):
  record = leases.Record("h", 3, 1.5, "o", "done", ("a",))
  assert leases.Record.from_bytes(record.to_bytes(), "k") == record
  assert dataclasses.asdict(record)["files"] == ("a",)
  for data in (b"{", b"{}", b'{"files": [], "new": 1}'):
    with pytest.raises(errors.UserError, match="^k is not the lease of a unit of work"):
      leases.Record.from_bytes(data, "k")
