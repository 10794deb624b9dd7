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
every host and leaves it there: a lost connection does not end it. Run it again after a preemption
(create, setup, run): it goes on from the last checkpoint. Only `delete` deletes, and gcloud asks
first unless --yes.
"""

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


def main(words: Sequence[str]) -> int:
  """Reads the arguments and runs one subcommand."""
  given = _arguments(words)
  if given.program and given.command != "run":
    raise errors.UserError(f"{given.command} takes no arguments after --: only run does")
  kind = tpu_types.parse(given.type, slices=given.slices)
  if not kind.family.runtime:
    raise errors.UserError(
      f"--type={given.type}: the Cloud TPU API does not offer {given.type.partition('-')[0]}; "
      "use launch/gke.py"
    )
  common.name(given.name, what="name")
  if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", given.zone):
    raise errors.UserError(
      f"--zone={given.zone!r}: expected a zone such as us-east5-b or europe-west4-a"
    )
  return COMMANDS[given.command](Place(given, kind), given)


class Place:
  """The slices of one run and how commands reach their hosts."""

  def __init__(self, given, kind: tpu_types.Slice):
    self.name, self.kind, self.runner = given.name, kind, common.Runner(given.dry_run)
    self.where = [
      f"--zone={given.zone}",
      *([f"--project={given.project}"] if given.project else []),
    ]
    # A queued resource with a node count names its nodes so, and tells each which slice it is
    # (MEGASCALE_*): jax reads that.
    self.nodes = (
      [given.name] if kind.slices == 1 else [f"{given.name}-{i}" for i in range(kind.slices)]
    )

  def queued(self, verb: str, *words: str) -> list[str]:
    """The command for the queued resource."""
    return [*GCLOUD, "queued-resources", verb, self.name, *self.where, *words]

  def ssh(
    self,
    script: str,
    *,
    nodes: Sequence[str] | None = None,
    worker: str = "all",
    check: bool = True,
  ) -> int:
    """Runs a shell script on the hosts of the nodes, all at the same time; the last exit code that
    is not 0.
    """
    return self.runner.run(
      *(
        [*GCLOUD, "tpu-vm", "ssh", node, *self.where, f"--worker={worker}", f"--command={script}"]
        for node in nodes or self.nodes
      ),
      check=check,
    )


def create(place: Place, given) -> int:
  """Asks for the slices; with --wait, until they are there."""
  nodes = (
    [f"--node-id={place.name}"]
    if place.kind.slices == 1
    else [f"--node-count={place.kind.slices}", f"--node-prefix={place.name}"]
  )
  options = [
    f"--{key}={value}"
    for key, value in (
      ("service-account", given.service_account),
      ("network", given.network),
      ("subnetwork", given.subnetwork),
      ("valid-until-duration", given.valid_until),
    )
    if value
  ]
  flags = [
    f"--{key.replace('_', '-')}"
    for key in ("spot", "reserved", "internal_ips")
    if getattr(given, key)
  ]
  place.runner.run(
    place.queued(
      "create",
      f"--accelerator-type={place.kind.accelerator}",
      f"--runtime-version={given.runtime or place.kind.family.runtime}",
      *nodes,
      *flags,
      *options,
    )
  )
  ask = place.queued("describe", "--format=value(state.state)")
  while given.wait:
    state = place.runner.read(ask)
    if place.runner.dry or state == "ACTIVE":
      break
    if state in ("FAILED", "SUSPENDED", "SUSPENDING"):
      raise errors.UserError(
        f"queued resource {place.name!r} is {state}: see launch/tpu_vm.py status; delete it "
        "before asking again"
      )
    print(f"{place.name}: {state or 'no answer'}; asking again in 30 s", flush=True)
    time.sleep(30)
  return 0


def setup(place: Place, given) -> int:
  """Copies the checkout to every host, installs the requirements and mounts the shared directory.

  Safe to repeat.
  """
  if bool(given.at) != bool(given.nfs or given.bucket) or (given.nfs and given.bucket):
    raise errors.UserError("--at=DIRECTORY goes with one of --nfs=HOST:/SHARE and --bucket=NAME")
  with tempfile.TemporaryDirectory() as folder:
    packed = pathlib.Path("" if given.dry_run else folder) / "como_jax.tar.gz"
    pack(place.runner, packed)
    for node in place.nodes:
      place.runner.run(
        [
          *GCLOUD,
          "tpu-vm",
          "scp",
          str(packed),
          f"{node}:como_jax.tar.gz",
          *place.where,
          "--worker=all",
        ]
      )
  # The images come with an older Python than the requirements need; uv brings one without the
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
  if given.at:
    at = shlex.quote(given.at)
    lines += [f"sudo mkdir -p {at}", f"sudo chown $(id -u) {at} || true"]
    if given.nfs:
      lines += [
        "command -v mount.nfs > /dev/null || sudo apt-get install -y -q nfs-common",
        f"mountpoint -q {at} || sudo mount -t nfs {shlex.quote(given.nfs)} {at}",
      ]
    else:
      lines += [
        (
          "command -v gcsfuse > /dev/null || { echo 'error: gcsfuse is not installed on this "
          "image' >&2; exit 2; }"
        ),
        f"mountpoint -q {at} || gcsfuse --implicit-dirs {shlex.quote(given.bucket)} {at}",
      ]
  return place.ssh("\n".join(lines))


def pack(runner: common.Runner, target: pathlib.Path) -> None:
  """Makes a tar.gz of the checkout: what git tracks or would track; without git, all but the
  environment and the runs.

  Raises:
    errors.UserError: git does not say what there is.
  """
  if (common.ROOT / ".git").exists():
    names = runner.read(
      [
        "git",
        "-C",
        str(common.ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
      ]
    ).split("\0")
    # git still lists what has just been deleted
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


def run(place: Place, given) -> int:
  """Starts the program on every host, detached, and shows the log of the first."""
  words = common.program(given.program, hosts=place.kind.hosts * place.kind.slices)
  command = [
    PYTHON,
    "launch/supervise.py",
    "--go-on",
    f"--restarts-per-hour={given.restarts_per_hour}",
    "--",
    PYTHON,
    "-m",
    "como_jax.main",
    *words,
  ]
  script = (
    f"cd ~/{CHECKOUT} && COMO_JAX_DISTRIBUTED=1 PYTHONUNBUFFERED=1 launch/detached.sh start "
    f"~/{JOB} {shlex.join(command)}"
  )
  place.ssh(script)
  return logs(place, given) if given.follow else 0


def logs(place: Place, given) -> int:
  """Follows the log of one host (the first prints the progress) or of all; Ctrl-C ends the reading
  only.
  """
  worker = getattr(given, "worker", "0")
  return place.ssh(
    f"tail -n 200 -F ~/{JOB}/log",
    nodes=place.nodes if worker == "all" else place.nodes[:1],
    worker=worker,
    check=False,
  )


def status(place: Place, given) -> int:
  """The queued resource, and on every host: running, or the exit code (0 done, 143 stopped, 2 bad
  input, 3 gave up), and the last line.
  """
  place.runner.run(place.queued("describe", "--format=value(state.state)"), check=False)
  return place.ssh(f"{DETACHED} status ~/{JOB}", check=False)


def stop(place: Place, given) -> int:
  """Saves and ends the run: all supervisors hear that it is over, one process is told to stop, and
  the processes agree on the step.
  """
  place.ssh(f"{DETACHED} last ~/{JOB}")
  place.ssh(f"{DETACHED} stop ~/{JOB}", nodes=place.nodes[:1], worker="0")
  # Not all at once: the signal would reach some hosts while they write the last checkpoint. Whoever
  # has not ended by then is told too.
  return place.ssh(f"{DETACHED} end ~/{JOB} {given.seconds}")


def delete(place: Place, given) -> int:
  """Gives the slices back, with everything on their disks."""
  return place.runner.run(place.queued("delete", "--force", *(["--quiet"] if given.yes else [])))


COMMANDS = {
  "create": create,
  "setup": setup,
  "run": run,
  "logs": logs,
  "status": status,
  "stop": stop,
  "delete": delete,
}


def _arguments(words: Sequence[str]):
  parser = common.Parser(prog="tpu_vm.py", description=__doc__)
  commands = parser.add_subparsers(
    dest="command", required=True, metavar="|".join(COMMANDS), parser_class=common.Parser
  )
  for key, function in COMMANDS.items():
    one = commands.add_parser(key, help=function.__doc__.splitlines()[0])
    one.add_argument("name", help="of the queued resource and, with one slice, of its node")
    one.add_argument("--zone", required=True)
    one.add_argument("--project", default="", help="default: gcloud's")
    one.add_argument(
      "--type", required=True, help="v5e-16, v6e-64, v5p-128, v4-32; v5e-16x2: two slices"
    )
    one.add_argument("--slices", type=int, default=0)
    one.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    if key == "create":
      for flag in ("--spot", "--reserved", "--internal-ips", "--wait"):
        one.add_argument(flag, action="store_true")
      for flag in ("--runtime", "--service-account", "--network", "--subnetwork"):
        one.add_argument(flag, default="")
      one.add_argument(
        "--valid-until", default="", metavar="6h", help="give the request up after so long"
      )
    elif key == "setup":
      for flag in ("--nfs", "--bucket", "--at"):
        one.add_argument(flag, default="")
    elif key == "run":
      one.add_argument("--restarts-per-hour", type=int, default=10)
      one.add_argument(
        "--follow", action="store_true", help="show the log of the first host afterwards"
      )
    elif key == "logs":
      one.add_argument("--worker", default="0", help="number of a host of the first slice, or all")
    elif key == "stop":
      one.add_argument("--seconds", type=int, default=300, help="how long saving may take")
    elif key == "delete":
      one.add_argument("--yes", action="store_true", help="gcloud does not ask")
  return parser.read(words)


if __name__ == "__main__":
  sys.exit(common.main(main))
