"""The files of a unit come to their places once, from the process that holds its lease."""

import os
import pathlib

import pytest

from como_jax.units import folder as units
from como_jax.units import lease as leases
from como_jax.units import owner


@pytest.fixture(name="shared")
def _shared(tmp_path, monkeypatch):
  """A function that opens the folder once more, as another process would."""
  monkeypatch.setattr(owner, "is_gone", lambda text: False)
  monkeypatch.setattr(leases.Leases, "_renew", lambda self: None)
  return lambda seconds=60.0: units.SharedFolder(str(tmp_path), seconds=seconds)


def stage(folder, text, *names):
  for name in names:
    pathlib.Path(folder.staging, name).write_text(text)


def test_a_unit_is_published_once(shared, tmp_path):
  a, b = shared(), shared(seconds=0.0)
  done = (tmp_path / "u.json").exists
  lease = a.claim("u", done)
  assert b.claim("u", done) is None
  stage(a, "a", "u.data", "u.json")
  assert a.publish(lease, ["u.data", "u.json"]) and not os.listdir(a.staging)
  assert (tmp_path / "u.data").read_text() == "a" and b.claim("u", done) is None


def test_who_has_lost_its_lease_publishes_nothing(shared, tmp_path):
  a, b = shared(seconds=0.0), shared()
  done = (tmp_path / "u.json").exists
  lost = a.claim("u", done)
  taken = b.claim("u", done)  # it has run out
  stage(a, "a", "u.json")
  stage(b, "b", "u.json")
  assert not a.publish(lost, ["u.json"]) and not os.listdir(a.staging) and not done()
  assert b.publish(taken, ["u.json"]) and (tmp_path / "u.json").read_text() == "b"


def test_files_of_one_that_died_after_it_had_published_are_moved(shared, tmp_path):
  a, b = shared(), shared()
  done = (tmp_path / "u.json").exists
  lease = a.claim("u", done)
  stage(a, "a", "u.data", "u.json", "left.tmp")
  assert lease.commit(("u.data", "u.json")) and not done()
  os.replace(f"{a.staging}/u.data", tmp_path / "u.data")  # it died here
  assert b.claim("u", done) is None and done() and (tmp_path / "u.json").read_text() == "a"
  os.remove(tmp_path / "u.json")
  assert b.claim("u", done), "what is gone from its place is made again"


def test_a_unit_that_turns_out_to_be_done_is_left_alone(shared, tmp_path):
  a, answers = shared(), [False, True]
  assert a.claim("u", lambda: answers.pop(0)) is None
  assert not os.path.exists(f"{tmp_path}/.units")
  held = a.claim("v", lambda: False)
  answers = [False, True]
  assert a.claim("u", lambda: answers.pop(0)) is None and held.renew()


def test_units_are_claimed_until_all_are_done(shared, tmp_path):
  a, b = shared(), shared()

  def done(name):
    return (tmp_path / name).exists()

  other = b.claim("v", lambda: False)
  claims = a.claims({"u": 1, "v": 2, "w": 3}, done)
  (lease, one), (_, three) = next(claims), next(claims)
  assert (lease.name, one, three) == ("u", 1, 3) and next(claims) is None
  (tmp_path / "u").touch()
  (tmp_path / "w").touch()
  assert next(claims) is None
  other.release()
  assert next(claims)[1] == 2
  (tmp_path / "v").touch()
  assert list(claims) == []


def test_nothing_is_left_behind(shared, tmp_path):
  with shared() as a, shared() as b:
    held = a.claim("u", lambda: False)
    stage(a, "a", "u.tmp")
    assert b.claim("u", lambda: False) is None
  assert [path.name for path in (tmp_path / ".units").glob("*.lease")] == ["u.lease"]
  assert not held.commit() and not os.path.exists(a.staging)
  with shared() as c:
    assert c.claim("u", lambda: False)  # it was given back
    c.clear()
  assert not list(tmp_path.iterdir())
  assert shared(seconds=2.0).poll == 0.5 and shared(seconds=600.0).poll == 5.0
