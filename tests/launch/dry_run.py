"""What a launcher would do (--dry-run), in this process, and stand-ins for the cluster's tools."""

import contextlib
import importlib
import io
import pathlib
import shlex
import subprocess
import sys
from unittest import mock

import common

ROOT = pathlib.Path(__file__).parent.parent.parent
FAKE = pathlib.Path(__file__).parent / "fake.py"
PROGRAM = ["--config=configs/motion.py", "--config.tasks=('a','b')", "--workdir=/mnt/my runs/first"]


def launch(script, *words, code=0):
  """A dry run, in this process: starting Python some sixty times would be most of the time."""
  cut = words.index("--") if "--" in words else len(words)
  out, err = io.StringIO(), io.StringIO()
  argv = [script, *words[:cut], "--dry-run", *words[cut:]]
  with (
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(sys, "argv", argv),
  ):
    found = common.main(importlib.import_module(script.removesuffix(".py")).main)
  assert found == code, out.getvalue() + err.getvalue()
  return subprocess.CompletedProcess(argv, found, out.getvalue(), err.getvalue())


def commands(done):
  """The printed gcloud commands as lists of words, as a shell would read them."""
  words = shlex.split(done.stdout)
  begins = [i for i, word in enumerate(words) if word == "gcloud"]
  return [words[i:j] for i, j in zip(begins, [*begins[1:], None], strict=False)]


def stand_in(folder, name, text):
  file = folder / name
  file.write_text("#!/bin/bash\n" + text)
  file.chmod(0o755)
