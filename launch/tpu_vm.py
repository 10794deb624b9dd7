#!/usr/bin/env python3
r"""One training run on TPU VMs: a host, a pod or several slices, by gcloud.

  launch/tpu_vm.py create first --zone=us-east5-b --type=v5e-16 --spot --wait
      a queued resource; --type=v5e-16x2 or --slices=2: two slices
  launch/tpu_vm.py setup first --zone=us-east5-b --type=v5e-16 \
      --nfs=10.0.0.2:/share --at=/mnt/share
      copies this checkout, installs, mounts
  launch/tpu_vm.py run first --zone=us-east5-b --type=v5e-16 -- \
      --config=configs/motion.py --workdir=/mnt/share/first
  launch/tpu_vm.py logs|status|stop|delete first --zone=us-east5-b --type=v5e-16

--dry-run prints the commands and runs none. `run` starts como_jax.main under launch/supervise.py on
every host, detached: a lost connection does not end it. After a preemption, call create, setup and
run again: the run continues from the last checkpoint. Only `delete` deletes, and gcloud asks first
unless --yes is set.
"""

import argparse
import datetime
import pathlib
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence

import common
import tpu_slices
from common import errors


def main(argv: Sequence[str]) -> int:
  """Reads the arguments and runs one subcommand."""
  args = _arguments(argv)
  if args.program and args.command != "run":
    raise errors.UserError(f"{args.command} takes no arguments after --: only run does")
  return COMMANDS[args.command](tpu_slices.slices_of(args), args)


def create(slices: tpu_slices.Slices, args) -> int:
  """Requests the slices; with --wait, waits until they are active."""
  nodes = (
    [f"--node-id={slices.name}"]
    if slices.kind.slices == 1
    else [f"--node-count={slices.kind.slices}", f"--node-prefix={slices.name}"]
  )
  options = [
    f"--{key}={value}"
    for key, value in (
      ("service-account", args.service_account),
      ("network", args.network),
      ("subnetwork", args.subnetwork),
      ("valid-until-duration", args.valid_until),
    )
    if value
  ]
  flags = [
    f"--{key.replace('_', '-')}"
    for key in ("spot", "reserved", "internal_ips")
    if getattr(args, key)
  ]
  slices.runner.run(
    slices.queued(
      "create",
      f"--accelerator-type={slices.kind.accelerator}",
      f"--runtime-version={args.runtime or slices.kind.family.runtime}",
      *nodes,
      *flags,
      *options,
    )
  )
  query = slices.queued("describe", "--format=value(state.state)")
  while args.wait:
    state = slices.runner.read(query)
    if slices.runner.dry or state == "ACTIVE":
      break
    if state in ("FAILED", "SUSPENDED", "SUSPENDING"):
      raise errors.UserError(
        f"queued resource {slices.name!r} is {state}: see launch/tpu_vm.py status; delete it "
        "before asking again"
      )
    print(f"{slices.name}: {state or 'no answer'}; asking again in 30 s", flush=True)
    time.sleep(30)
  return 0


def check_mount(args) -> None:
  """Refuses a mount of nothing, and a share without a mount."""
  if bool(args.at) != bool(args.nfs or args.bucket) or (args.nfs and args.bucket):
    raise errors.UserError("--at=DIRECTORY goes with one of --nfs=HOST:/SHARE and --bucket=NAME")


def setup(slices: tpu_slices.Slices, args) -> int:
  """Copies the checkout to every host, installs the requirements and mounts the shared directory.

  It can be repeated safely.
  """
  check_mount(args)
  with tempfile.TemporaryDirectory() as folder:
    packed = pathlib.Path("" if args.dry_run else folder) / "como_jax.tar.gz"
    tpu_slices.pack(slices.runner, packed)
    for node in slices.nodes:
      files = [str(packed), f"{node}:como_jax.tar.gz"]
      slices.runner.run(
        [*tpu_slices.GCLOUD, "tpu-vm", "scp", *files, *slices.where, "--worker=all"]
      )
  # The Python of the images is too old for the requirements. uv installs a newer one without the
  # system's package manager.
  lines = [
    "set -eo pipefail",
    f"mkdir -p ~/{tpu_slices.CHECKOUT}",
    f"tar -C ~/{tpu_slices.CHECKOUT} -xzf ~/como_jax.tar.gz",
    f"cd ~/{tpu_slices.CHECKOUT}",
    (
      "[ -x .venv/bin/python ] || { python3 -m pip install --quiet --user uv && python3 -m uv "
      "venv --quiet --seed --python 3.11 .venv; }"
    ),
    ". launch/environment.sh",
    "setup_environment requirements-tpu.txt",
  ]
  if args.at:
    at = shlex.quote(args.at)
    lines += [f"sudo mkdir -p {at}", f"sudo chown $(id -u) {at} || true"]
    if args.nfs:
      lines += [
        "command -v mount.nfs > /dev/null || sudo apt-get install -y -q nfs-common",
        f"mountpoint -q {at} || sudo mount -t nfs {shlex.quote(args.nfs)} {at}",
      ]
    else:
      lines += [
        (
          "command -v gcsfuse > /dev/null || { echo 'error: gcsfuse is not installed on this "
          "image' >&2; exit 2; }"
        ),
        f"mountpoint -q {at} || gcsfuse --implicit-dirs {shlex.quote(args.bucket)} {at}",
      ]
  return slices.ssh("\n".join(lines))


def run(slices: tpu_slices.Slices, args) -> int:
  """Starts the program on every host, detached, and shows the log of the first."""
  arguments = common.program(
    args.program, hosts=slices.kind.hosts * slices.kind.slices, expect="tpu"
  )
  command = [
    tpu_slices.PYTHON,
    "launch/supervise.py",
    "--go-on",
    f"--start={args.start or datetime.datetime.now(datetime.UTC).strftime('%Y%m%dT%H%M%S')}",
    f"--restarts-per-hour={args.restarts_per_hour}",
    "--",
    tpu_slices.PYTHON,
    "-m",
    "como_jax.main",
    *arguments,
  ]
  common.cache(args.cache)
  if args.coordinator_port and not 0 < args.coordinator_port < 2**16:
    raise errors.UserError(
      f"--coordinator-port={args.coordinator_port}: expected a port, for example 8476"
    )
  variables = {
    "COMO_JAX_DISTRIBUTED": "1",
    "PYTHONUNBUFFERED": "1",
    **({"JAX_COORDINATOR_PORT": args.coordinator_port} if args.coordinator_port else {}),
    **({"JAX_COMPILATION_CACHE_DIR": args.cache} if args.cache else {}),
  }
  words = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in variables.items())
  script = (
    f"cd ~/{tpu_slices.CHECKOUT} && {words} "
    f"launch/detached.sh start ~/{tpu_slices.JOB} {shlex.join(command)}"
  )
  # with an ID that was used before: a host on which the run is still at work refuses
  slices.ssh(script, check=not args.start)
  return logs(slices, args) if args.follow else 0


def logs(slices: tpu_slices.Slices, args) -> int:
  """Follows the log of one host (the first prints the progress) or of all hosts.

  Ctrl-C ends only the reading, not the run.
  """
  worker = getattr(args, "worker", "0")
  return slices.ssh(
    f"tail -n 200 -F ~/{tpu_slices.JOB}/log",
    nodes=slices.nodes if worker == "all" else slices.nodes[:1],
    worker=worker,
    check=False,
  )


def status(slices: tpu_slices.Slices, args) -> int:
  """Shows the state of the queued resource and of every host.

  A host shows "running" or the exit code (0 done, 143 stopped, 2 bad input, 3 gave up), and the
  last line of its log.
  """
  slices.runner.run(slices.queued("describe", "--format=value(state.state)"), check=False)
  return slices.ssh(f"{tpu_slices.DETACHED} status ~/{tpu_slices.JOB}", check=False)


def stop(slices: tpu_slices.Slices, args) -> int:
  """Saves and ends the run.

  All supervisors learn that this is the last start. One process receives the signal to stop, and
  the processes agree on the step.
  """
  slices.ssh(f"{tpu_slices.DETACHED} last ~/{tpu_slices.JOB}")
  slices.ssh(f"{tpu_slices.DETACHED} stop ~/{tpu_slices.JOB}", nodes=slices.nodes[:1], worker="0")
  # Only one process gets the signal first: it would reach some hosts while they write the last
  # checkpoint. This command also stops the processes that have not ended after the time limit.
  return slices.ssh(f"{tpu_slices.DETACHED} end ~/{tpu_slices.JOB} {args.seconds}")


def delete(slices: tpu_slices.Slices, args) -> int:
  """Deletes the slices, with everything on their disks."""
  return slices.runner.run(slices.queued("delete", "--force", *(["--quiet"] if args.yes else [])))


COMMANDS = {
  "create": create,
  "setup": setup,
  "run": run,
  "logs": logs,
  "status": status,
  "stop": stop,
  "delete": delete,
}


def _arguments(argv: Sequence[str]):
  main_parser = common.Parser(prog="tpu_vm.py", description=__doc__)
  commands = main_parser.add_subparsers(
    dest="command", required=True, metavar="|".join(COMMANDS), parser_class=common.Parser
  )
  for key, function in COMMANDS.items():
    parser = commands.add_parser(key, help=function.__doc__.splitlines()[0])
    add_arguments(parser, key)
  return main_parser.read(argv)


def add_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
  """Adds the arguments of subcommands, those that all of them have once."""
  parser.add_argument("name", help="of the queued resource and, with one slice, of its node")
  parser.add_argument("--zone", required=True)
  parser.add_argument("--project", default="", help="default: gcloud's")
  parser.add_argument(
    "--type", required=True, help="v5e-16, v6e-64, v5p-128, v4-32; v5e-16x2: two slices"
  )
  parser.add_argument("--slices", type=int, default=0)
  parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
  for command in names:
    if command == "create":
      for flag in ("--spot", "--reserved", "--internal-ips", "--wait"):
        parser.add_argument(flag, action="store_true")
      for flag in ("--runtime", "--service-account", "--network", "--subnetwork"):
        parser.add_argument(flag, default="")
      parser.add_argument(
        "--valid-until", default="", metavar="6h", help="give the request up after so long"
      )
    if command == "setup":
      for flag in ("--nfs", "--bucket", "--at"):
        parser.add_argument(flag, default="")
    if command == "run":
      parser.add_argument("--restarts-per-hour", type=int, default=10)
      parser.add_argument(
        "--start", default="", metavar="ID", help="of a run that some hosts have started already"
      )
      parser.add_argument(
        "--coordinator-port",
        type=int,
        default=0,
        metavar="PORT",
        help="of the first process; 8476 where a firewall opens only the port of older versions of "
        "jax (its issue 35905); default: jax's, 8482",
      )
      parser.add_argument("--cache", default="", help=common.CACHE)
      parser.add_argument(
        "--follow", action="store_true", help="show the log of the first host afterwards"
      )
    if command == "logs":
      parser.add_argument(
        "--worker", default="0", help="number of a host of the first slice, or all"
      )
    if command == "stop":
      parser.add_argument("--seconds", type=int, default=300, help="how long saving may take")
    if command == "delete":
      parser.add_argument("--yes", action="store_true", help="gcloud does not ask")


if __name__ == "__main__":
  sys.exit(common.main(main))
