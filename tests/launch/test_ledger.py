"""The ledger of a supervisor, and the note that one host has given up."""

import json
import os

import ledger as ledger_lib
import pytest
from common import errors


def test_ends_since_the_run_was_given_up(tmp_path):
  ledger = ledger_lib.Ledger(tmp_path / "a run.supervise.jsonl")
  ledger.write("end", step=2, code=1, next="leave with 3")
  ledger.write("start", pid=1, command=["a b", "c"])
  ledger.write("end", step=4, code=75, next="restart in 1.0 s")
  ledger.file.write("cut off")
  ledger.file.flush()
  assert ledger.ends() == [(4, 75)]


def test_one_supervisor_a_ledger(tmp_path):
  first = ledger_lib.Ledger(tmp_path / "new" / "l")
  with pytest.raises(errors.UserError, match="is in use"):
    ledger_lib.Ledger(tmp_path / "new" / "l")
  first.file.close()
  ledger_lib.Ledger(tmp_path / "new" / "l")


def test_the_note_is_for_the_hosts_of_one_start(tmp_path):
  for start, seen in (("1", ("gave up: it crashed", 3)), ("2", None), ("", None)):
    other = ledger_lib.GivenUp(tmp_path / "run", start)
    assert other.read() is None
    ledger_lib.GivenUp(tmp_path / "run", "1").write(3, "it crashed")
    told = other.read()
    assert (told and (told[0].split(" ", 1)[1], told[1])) == seen
    (tmp_path / "run.supervise-gave-up.json").unlink()
  ledger_lib.GivenUp(tmp_path / "run", "").write(3, "alone")
  assert not list(tmp_path.iterdir())
  (tmp_path / "run.supervise-gave-up.json").write_text(json.dumps({"start": "1"}))
  assert ledger_lib.GivenUp(tmp_path / "run", "1").read() is None  # half a note is no note


def test_path_beside_the_run(tmp_path, monkeypatch):
  monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
  run = tmp_path / "a run"
  assert ledger_lib.default_path(run, several=False) == tmp_path / "a run.supervise.jsonl"
  assert ledger_lib.default_path(run, several=True).name == (
    f"a run.supervise-{os.uname().nodename}.jsonl"
  )
  monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
  assert ledger_lib.default_path(run, several=True).name == "a run.supervise-0-3.jsonl"
  monkeypatch.setenv("MEGASCALE_SLICE_ID", "1")
  assert ledger_lib.default_path(run, several=True).name == "a run.supervise-1-3.jsonl"
