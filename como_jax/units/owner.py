"""Which process a lease belongs to, so that the death of one on this machine is seen at once."""

import functools
import os
import pathlib


@functools.cache
def machine() -> str:
  """Id of this machine since it was started, and of the processes that can be seen from here.

  Two containers of one machine have different ones; "" where the system does not tell.
  """
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return ""


def process(number: int) -> str:
  """A process of this machine: its number and when it was started; "" where there is none."""
  try:
    text = pathlib.Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
  except OSError:
    return ""
  # The name, in parentheses, may hold spaces. The state follows, the start is the 20th from there.
  state, *fields = text.rpartition(")")[2].split()
  return "" if state in "ZX" else f"{number} {fields[18]}"


def own() -> str:
  """This process, for `is_gone`; "" where the system does not tell."""
  return f"{machine()} {process(os.getpid())}" if machine() else ""


def is_gone(owner: str) -> bool:
  """Whether a process that `own` named was of this machine and has ended."""
  if not machine() or not owner.startswith(f"{machine()} "):
    return False
  named = owner.removeprefix(f"{machine()} ")
  return process(int(named.split()[0])) != named
