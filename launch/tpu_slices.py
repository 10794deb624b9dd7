"""The TPU slices of one run: their names, and commands for their hosts."""

import os
import pathlib
import re
import tarfile
from collections.abc import Sequence

import common
import tpu_types
from common import errors

CHECKOUT, JOB = "como_jax_checkout", "como_jax_job"  # below the home directory of every host
DETACHED = f"~/{CHECKOUT}/launch/detached.sh"
PYTHON = ".venv/bin/python"
GCLOUD = ("gcloud", "compute", "tpus")


def slices_of(args) -> "Slices":
  """The slices that the arguments name.

  Raises:
    errors.UserError: a type, name or zone that there is not.
  """
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
  return Slices(args, kind)


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
