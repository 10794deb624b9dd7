#!/usr/bin/env python3
r"""Keeps one training run going on spot TPU VMs: creates the slices again after each preemption.

  launch/tpu_keep.py first --zone=us-east5-b --type=v5e-16 --spot \
      --nfs=10.0.0.2:/share --at=/mnt/share \
      -- --config=configs/motion.py --workdir=/mnt/share/first

It does what tpu_vm.py create, setup and run do, looks at the slices every half minute, and ends
when the run is done or given up (exit codes 2 and 3 of its supervisors). When the slices are
preempted, when one of several is (half of them cannot train), or when the request has waited for
--longest-wait, it deletes what is left, asks again, and the run goes on from its last checkpoint on
the shared directory, below which --workdir must be. A request that is refused (quota, no capacity)
is repeated with growing pauses. A run that is at work already is adopted. Run it where it stays up,
such as a small VM. Ctrl-C ends it alone, not the run; to stop the run, do that first and then call
tpu_vm.py stop. It deletes the queued resource of this name and nothing else, and not at the end:
the slices are rented until tpu_vm.py delete. --dry-run prints the first commands.
"""

import argparse
import datetime
import re
import sys
import time
from collections.abc import Sequence

import common
import failures
import tpu_slices
import tpu_vm
from common import errors

GONE = ("FAILED", "SUSPENDED", "SUSPENDING")  # states of a queued resource that never come back
MAX_PAUSE = 600.0  # seconds between two requests that are refused


class Keeper:
  """Brings the slices and the run on them back, look by look."""

  def __init__(self, args):
    """Asks for nothing yet.

    Args:
      args: of the command line.
    """
    self._args, self._slices = args, tpu_slices.slices_of(args)
    self._started = False  # whether the program was started on the slices that there are
    self._refused = 0  # requests in a row
    self._asked = time.monotonic()  # time of the last request

  def keep(self) -> int:
    """Looks until the run has ended; returns its exit code."""
    while True:
      code = self.look()
      if code is not None:
        return code
      pause = self._args.every
      if self._refused:
        pause = min(MAX_PAUSE, pause * 2 ** min(20, self._refused))
      time.sleep(pause)

  def look(self) -> int | None:
    """Looks once and does what is to be done; returns the run's exit code once it has ended."""
    query = self._slices.queued("describe", "--format=value(state.state)")
    state = self._slices.runner.read(query)
    self._refused = 0 if state else self._refused
    if state in GONE:
      self._delete(f"is {state}")
    elif state == "ACTIVE":
      lost = self._lost_nodes()
      if lost:
        self._delete(f"has lost {', '.join(lost)}")
      else:
        return self._go_on()
    elif state:  # ACCEPTED, PROVISIONING, WAITING_FOR_RESOURCES, ...
      waited = time.monotonic() - self._asked
      if waited > self._args.longest_wait * 60:
        self._delete(f"is {state} for {waited / 60:.0f} minutes")
      else:
        self._say(f"{state}, for {waited / 60:.0f} minutes")
    else:  # it is not there, or gcloud does not answer: then the request is refused
      self._create()
    return None

  def _create(self) -> None:
    try:
      tpu_vm.create(self._slices, self._args)
      self._started, self._refused, self._asked = False, 0, time.monotonic()
    except errors.UserError as error:
      self._refused += 1
      self._say(f"request {self._refused} is refused (quota or capacity?): {error}")

  def _delete(self, why: str) -> None:
    self._say(f"{why}: deleted and asked for again")
    self._started = False
    self._slices.runner.run(self._slices.queued("delete", "--force", "--quiet"), check=False)

  def _lost_nodes(self) -> list[str]:
    """Nodes that are known not to be ready; one that gcloud does not answer for is not."""
    states = {
      node: self._slices.runner.read(
        [
          *tpu_slices.GCLOUD,
          "tpu-vm",
          "describe",
          node,
          *self._slices.where,
          "--format=value(state)",
        ]
      )
      for node in self._slices.nodes
    }
    return [node for node, state in states.items() if state in ("PREEMPTED", "TERMINATED")]

  def _start(self) -> None:
    try:
      tpu_vm.setup(self._slices, self._args)
      tpu_vm.run(self._slices, self._args)
      self._started = True
    except errors.UserError as error:  # a host that takes no connection yet, or is just preempted
      self._say(f"could not be started, to be tried again: {error}")

  def _go_on(self) -> int | None:
    """Starts the run where it is not at work; returns its exit code once it has ended."""
    text = "\n".join(
      self._slices.runner.read(
        [
          *tpu_slices.GCLOUD,
          "tpu-vm",
          "ssh",
          node,
          *self._slices.where,
          "--worker=all",
          f"--command={tpu_slices.DETACHED} status ~/{tpu_slices.JOB}",
        ]
      )
      for node in self._slices.nodes
    )
    codes = [int(code) for code in re.findall(r": ended with (\d+)", text)]
    running, idle = ": running" in text, ": nothing runs" in text
    if not self._started and not running:  # new slices, or an earlier run of theirs
      self._start()
    elif idle:  # on a host that was restarted; its supervisor is gone
      self._say("a host was restarted: the run is started again there")
      self._start()
    elif running:
      self._started = True
    elif codes and failures.is_transient(failures.cause(codes), several=True):
      self._say("the hosts were stopped: the run is started again")
      self._start()
    elif codes:
      return failures.cause(codes)
    return None

  def _say(self, text: str) -> None:
    print(f"{self._slices.name}: {text}", flush=True)


def main(argv: Sequence[str]) -> int:
  """Keeps the run going until it has ended."""
  args = _arguments(argv)
  keeper = Keeper(args)
  # what is wrong is refused before anything is asked for
  workdir = common.value(common.program(args.program, hosts=2, expect="tpu"), "workdir")
  tpu_vm.check_mount(args)
  if not args.at or not workdir.startswith(args.at.rstrip("/") + "/"):
    raise errors.UserError(
      f"--workdir={workdir} is not below --at={args.at}: it would be deleted with the slices"
    )
  if args.dry_run:
    keeper._create()
    keeper._start()
    return 0
  return keeper.keep()


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  parser = common.Parser(prog="tpu_keep.py", description=__doc__)
  tpu_vm.add_arguments(parser, "create", "setup", "run")
  parser.add_argument(
    "--every", type=float, default=30.0, metavar="SECONDS", help="from look to look (default 30)"
  )
  parser.add_argument(
    "--longest-wait",
    type=float,
    default=720.0,
    metavar="MINUTES",
    help="for capacity, before the request is made anew (default 720)",
  )
  args = parser.read(argv)
  args.wait = args.follow = False  # it looks itself
  args.start = args.start or datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
  return args


if __name__ == "__main__":
  sys.exit(common.main(main))
