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

import datetime
import os
import pathlib
import re
import shlex
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence

import common
import tpu_types
from common import errors

CHECKOUT, JOB = "como_jax_checkout", "como_jax_job"  # below the home directory of every host
DETACHED = f"~/{CHECKOUT}/launch/detached.sh"
PYTHON = ".venv/bin/python"
GCLOUD = ("gcloud", "compute", "tpus")


def main(argv: Sequence[str]) -> int:
  """Reads the arguments and runs one subcommand."""
  args = _arguments(argv)
  if args.program and args.command != "run":
    raise errors.UserError(f"{args.command} takes no arguments after --: only run does")
  kind = tpu_types.parse(args.type, slices=args.slices)
  if not kind.family.runtime:
    raise errors.UserError(
      f"--type={args.type}: the Cloud TPU API does not offer {args.type.partition('-')[0]}; "
      "use launch/gke.py"
    )
  common.name(args.name, what="name")
  if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", args.zone):
    raise errors.UserError(
      f"--zone={args.zone!r}: expected a zone such as us-east5-b or europe-west4-a"
    )
  return COMMANDS[args.command](Slices(args, kind), args)


class Slices:
  """The slices of one run; builds and runs commands for their hosts."""

  def __init__(self, args, kind: tpu_types.Slice):
    self.name, self.kind, self.runner = args.name, kind, common.Runner(args.dry_run)
    self.where = [f"--zone={args.zone}", *([f"--project={args.project}"] if args.project else [])]
    # A queued resource with a node count gives its nodes these names. It sets MEGASCALE_* on each
    # node, from which jax reads the index of the slice.
    self.nodes = (
      [args.name] if kind.slices == 1 else [f"{args.name}-{i}" for i in range(kind.slices)]
    )

  def queued(self, verb: str, *options: str) -> list[str]:
    """Returns a gcloud command for the queued resource."""
    return [*GCLOUD, "queued-resources", verb, self.name, *self.where, *options]

  def ssh(
    self,
    script: str,
    *,
    nodes: Sequence[str] | None = None,
    worker: str = "all",
    check: bool = True,
  ) -> int:
    """Runs a shell script on all hosts of the nodes in parallel.

    Args:
      script: shell script.
      nodes: names of nodes; None = all nodes.
      worker: number of a host of each node, or "all".
      check: whether to raise an error when a command fails.

    Returns:
      The last nonzero exit code, or 0.
    """
    return self.runner.run(
      *(
        [*GCLOUD, "tpu-vm", "ssh", node, *self.where, f"--worker={worker}", f"--command={script}"]
        for node in nodes or self.nodes
      ),
      check=check,
    )


def create(slices: Slices, args) -> int:
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


def setup(slices: Slices, args) -> int:
  """Copies the checkout to every host, installs the requirements and mounts the shared directory.

  It can be repeated safely.
  """
  if bool(args.at) != bool(args.nfs or args.bucket) or (args.nfs and args.bucket):
    raise errors.UserError("--at=DIRECTORY goes with one of --nfs=HOST:/SHARE and --bucket=NAME")
  with tempfile.TemporaryDirectory() as folder:
    packed = pathlib.Path("" if args.dry_run else folder) / "como_jax.tar.gz"
    pack(slices.runner, packed)
    for node in slices.nodes:
      files = [str(packed), f"{node}:como_jax.tar.gz"]
      slices.runner.run([*GCLOUD, "tpu-vm", "scp", *files, *slices.where, "--worker=all"])
  # The Python of the images is too old for the requirements. uv installs a newer one without the
  # system's package manager.
  lines = [
    "set -eo pipefail",
    f"mkdir -p ~/{CHECKOUT}",
    f"tar -C ~/{CHECKOUT} -xzf ~/como_jax.tar.gz",
    f"cd ~/{CHECKOUT}",
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


def pack(runner: common.Runner, target: pathlib.Path) -> None:
  """Packs the checkout into a tar.gz.

  It contains the files that git tracks or would track; without git, all files except the
  environment and the runs.

  Args:
    runner: of git.
    target: path of the archive.

  Raises:
    errors.UserError: git lists no files.
  """
  if (common.ROOT / ".git").exists():
    git = ["git", "-C", str(common.ROOT), "ls-files", "-z"]
    names = runner.read([*git, "--cached", "--others", "--exclude-standard"]).split("\0")
    # git also lists files that were deleted
    names = [name for name in names if name and os.path.lexists(common.ROOT / name)]
  else:
    names = [path.name for path in common.ROOT.iterdir() if path.name not in (".venv", "runs")]
  print(f"# packs the files of {common.ROOT} into {target}", flush=True)
  if runner.dry:
    return
  if not names:
    raise errors.UserError(f"git lists no files of {common.ROOT}, nothing was copied")
  with tarfile.open(target, "w:gz") as archive:
    for name in names:
      archive.add(common.ROOT / name, arcname=name)


def run(slices: Slices, args) -> int:
  """Starts the program on every host, detached, and shows the log of the first."""
  arguments = common.program(
    args.program, hosts=slices.kind.hosts * slices.kind.slices, expect="tpu"
  )
  command = [
    PYTHON,
    "launch/supervise.py",
    "--go-on",
    f"--start={datetime.datetime.now(datetime.UTC).strftime('%Y%m%dT%H%M%S')}",
    f"--restarts-per-hour={args.restarts_per_hour}",
    "--",
    PYTHON,
    "-m",
    "como_jax.main",
    *arguments,
  ]
  script = (
    f"cd ~/{CHECKOUT} && COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1 launch/detached.sh start "
    f"~/{JOB} {shlex.join(command)}"
  )
  slices.ssh(script)
  return logs(slices, args) if args.follow else 0


def logs(slices: Slices, args) -> int:
  """Follows the log of one host (the first prints the progress) or of all hosts.

  Ctrl-C ends only the reading, not the run.
  """
  worker = getattr(args, "worker", "0")
  return slices.ssh(
    f"tail -n 200 -F ~/{JOB}/log",
    nodes=slices.nodes if worker == "all" else slices.nodes[:1],
    worker=worker,
    check=False,
  )


def status(slices: Slices, args) -> int:
  """Shows the state of the queued resource and of every host.

  A host shows "running" or the exit code (0 done, 143 stopped, 2 bad input, 3 gave up), and the
  last line of its log.
  """
  slices.runner.run(slices.queued("describe", "--format=value(state.state)"), check=False)
  return slices.ssh(f"{DETACHED} status ~/{JOB}", check=False)


def stop(slices: Slices, args) -> int:
  """Saves and ends the run.

  All supervisors learn that this is the last start. One process receives the signal to stop, and
  the processes agree on the step.
  """
  slices.ssh(f"{DETACHED} last ~/{JOB}")
  slices.ssh(f"{DETACHED} stop ~/{JOB}", nodes=slices.nodes[:1], worker="0")
  # Only one process gets the signal first: it would reach some hosts while they write the last
  # checkpoint. This command also stops the processes that have not ended after the time limit.
  return slices.ssh(f"{DETACHED} end ~/{JOB} {args.seconds}")


def delete(slices: Slices, args) -> int:
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
    parser.add_argument("name", help="of the queued resource and, with one slice, of its node")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", default="", help="default: gcloud's")
    parser.add_argument(
      "--type", required=True, help="v5e-16, v6e-64, v5p-128, v4-32; v5e-16x2: two slices"
    )
    parser.add_argument("--slices", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    if key == "create":
      for flag in ("--spot", "--reserved", "--internal-ips", "--wait"):
        parser.add_argument(flag, action="store_true")
      for flag in ("--runtime", "--service-account", "--network", "--subnetwork"):
        parser.add_argument(flag, default="")
      parser.add_argument(
        "--valid-until", default="", metavar="6h", help="give the request up after so long"
      )
    elif key == "setup":
      for flag in ("--nfs", "--bucket", "--at"):
        parser.add_argument(flag, default="")
    elif key == "run":
      parser.add_argument("--restarts-per-hour", type=int, default=10)
      parser.add_argument(
        "--follow", action="store_true", help="show the log of the first host afterwards"
      )
    elif key == "logs":
      parser.add_argument(
        "--worker", default="0", help="number of a host of the first slice, or all"
      )
    elif key == "stop":
      parser.add_argument("--seconds", type=int, default=300, help="how long saving may take")
    elif key == "delete":
      parser.add_argument("--yes", action="store_true", help="gcloud does not ask")
  return main_parser.read(argv)


if __name__ == "__main__":
  sys.exit(common.main(main))
