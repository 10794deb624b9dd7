"""Whether a process of this machine has ended."""

import os
import subprocess
import sys

from como_jax.units import owner


def test_a_process_is_known_by_its_number_and_its_start(monkeypatch):
  assert owner.own().startswith(owner.machine()) and not owner.is_gone(owner.own())
  waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
  named = f"{owner.machine()} {owner.process(waiting.pid)}"
  assert not owner.is_gone(named)
  # another one with this number
  assert owner.is_gone(f"{named}1")
  waiting.kill()
  assert os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
  assert owner.is_gone(named)  # it has ended, and nobody has asked for its exit code
  waiting.communicate()
  assert owner.is_gone(named)


def test_nothing_is_said_of_other_machines(monkeypatch):
  gone = f"{owner.machine()} 4194399 17"
  assert owner.is_gone(gone) and not owner.is_gone(f"other {gone}") and not owner.is_gone("")
  monkeypatch.setattr(owner, "machine", lambda: "")
  assert owner.own() == "" and not owner.is_gone(gone)
