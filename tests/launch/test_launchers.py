"""All launchers: they run by hand, parse and are short."""

import os
import subprocess

from tests.launch.dry_run import ROOT


def test_scripts_run_by_hand_and_parse():
  for name in (
    "tpu_vm.py",
    "tpu_keep.py",
    "gke.py",
    "slurm.py",
    "supervise.py",
    "local_processes.py",
    "detached.sh",
  ):
    assert os.access(ROOT / "launch" / name, os.X_OK), name
  subprocess.run(["bash", "-n", ROOT / "launch" / "detached.sh"], check=True)
  for path in (ROOT / "launch").iterdir():
    assert path.is_dir() or len(path.read_text().splitlines()) <= 350, path
