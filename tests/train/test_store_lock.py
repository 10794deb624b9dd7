"""The lock of a run directory in a store."""

import json
import subprocess
import sys

import pytest

from como_jax import errors, storage
from como_jax.train import store_lock
from como_jax.units import owner


@pytest.fixture
def address(tmp_path):
  return f"memory://locks/{tmp_path.name}"


def stored(address):
  return storage.read_json(f"{address}/.lock")


def of_another_machine(address):
  lock = store_lock.StoreLock(address)
  lock._content["identity"] = "elsewhere 17 4"
  return lock


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(store_lock, "EXPIRY", 0.5)


def test_a_live_owner_of_this_machine_is_not_disturbed(address, quick):
  first, second = store_lock.StoreLock(address), store_lock.StoreLock(address)
  first.take()
  with pytest.raises(
    errors.UserError, match="in use by a live run .process .* nothing was changed"
  ):
    second.take(wait=lambda seconds: first.renew())
  assert stored(address)["owner"] == first.owner


@pytest.mark.usefixtures("quick")
def test_a_silent_owner_of_another_machine_loses_it(address, capsys):
  first, second = of_another_machine(address), store_lock.StoreLock(address)
  first.take()
  second.take()
  assert second.previous == first.owner and stored(address)["owner"] == second.owner
  assert "in use by process" in capsys.readouterr().out
  with pytest.raises(errors.RunError, match="was taken over by another run"):
    first.renew()
  first.release()
  assert stored(address)["owner"] == second.owner and "released" not in stored(address)


def test_a_dead_process_of_this_machine_loses_it_at_once(address):
  first, second = store_lock.StoreLock(address), store_lock.StoreLock(address)
  dead = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
  first._content["identity"] = f"{owner.machine()} {owner.process(dead.pid)}"
  dead.communicate()
  first.take()
  second.take(wait=lambda seconds: pytest.fail("it waited"))
  assert stored(address)["owner"] == second.owner


def test_of_two_that_come_at_once_one_has_it(address, monkeypatch):
  first, second = store_lock.StoreLock(address), store_lock.StoreLock(address)
  look = second._look

  def late():
    found = look()
    if found is None:
      first.take()
    return found

  monkeypatch.setattr(second, "_look", late)
  with pytest.raises(errors.UserError, match="in use by a live run"):
    second.take()


def test_given_back_it_says_who_had_it_last(address):
  first, second = store_lock.StoreLock(address), store_lock.StoreLock(address)
  first.take()
  first.renew()
  first.release()
  second.take(wait=lambda seconds: pytest.fail("it waited"))
  assert second.previous == first.owner
  second.release(remove=True)
  assert not storage.exists(address)


def test_a_damaged_lock_is_a_silent_one(address, quick):
  storage.write_text(f"{address}/.lock", "{")
  lock = store_lock.StoreLock(address)
  lock.take()
  assert json.loads(storage.read_text(f"{address}/.lock"))["owner"] == lock.owner
