"""The entry point: what it does before jax is there, and how it ends when it is interrupted or
cannot write.
"""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from como_jax import config as config_lib
from como_jax import main, tasks
from tests.end_to_end import program

FAULTS = """
import os, resource, sys
import numpy as np
from como_jax import main
if sys.argv[1] == "keep":
  os.path.exists = lambda path: False  # a host without an accelerator
  main.keep_memory()
for _ in range(40):
  np.ones(2**22)  # 32 MiB, written and freed
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again():
  env = {
    name: value for name, value in program.environment().items() if not name.startswith("MALLOC_")
  }
  env["NUMPY_MADVISE_HUGEPAGE"] = "0"  # a huge page is one fault, and luck where addresses lie
  faults = [
    int(
      subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        cwd=program.ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
      ).stdout
    )
    for how in ("keep", "leave")
  ]
  assert faults[0] < faults[1] / 4, faults


def interrupted(monkeypatch, capsys, *words, before=lambda command: None):
  """(exit code, lines on stderr) of a program that is interrupted in the middle of its task."""

  def run(command):
    before(command)
    raise KeyboardInterrupt

  monkeypatch.setattr(tasks, "run", run)
  code = main.main(["main", *words])
  return code, capsys.readouterr().err.strip().splitlines()


def begin(command):
  command.workdir.mkdir(parents=True, exist_ok=True)
  (command.workdir / "config.json").write_text("{}")


@pytest.mark.parametrize(
  "config, flag, word",
  [
    ("motion:debug", "--resume", "go on"),
    ("policy:debug", "--resume", "go on"),
    ("extract", "--resume", "go on"),
    ("rollout", "--resume", "go on"),
    ("probe", "--overwrite", "run it again"),
    ("ingest", "", "run it again"),
    ("quickstart", "", "run it again"),
    ("collect", "", "run it again"),
  ],
)
def test_ctrl_c_is_one_line_that_says_how_to_go_on(
  tmp_path, monkeypatch, capsys, config, flag, word
):
  words = [f"--config={config}", f"--workdir={tmp_path / 'a run'}"]
  line = (
    f"stopped by Ctrl-C: {{}} with python -m como_jax --config={config} "
    f"'--workdir={tmp_path / 'a run'}'{{}}"
  )
  assert interrupted(monkeypatch, capsys, *words) == (130, [line.format("run it again", "")]), (
    "nothing was begun"
  )
  assert interrupted(monkeypatch, capsys, *words, before=begin) == (
    130,
    [line.format(word, flag and f" {flag}")],
  )


def test_ctrl_c_before_a_run_was_touched_repeats_what_was_typed(tmp_path, monkeypatch, capsys):
  """The run that --overwrite was to replace is still there: going on with it is not what was asked
  for.
  """
  (tmp_path / "config.json").write_text("{}")
  os.utime(tmp_path / "config.json", (1, 1))
  words = ["--config=motion:debug", f"--workdir={tmp_path}", "--overwrite"]
  assert interrupted(monkeypatch, capsys, *words)[1][0].endswith("--overwrite")
  code, lines = interrupted(monkeypatch, capsys, *words, before=begin)
  assert code == 130 and lines[0].endswith(f"--workdir={tmp_path} --resume")


def test_ctrl_c_while_the_command_line_is_read(monkeypatch, capsys):
  def parse(argv):
    raise KeyboardInterrupt

  monkeypatch.setattr(config_lib, "parse", parse)
  assert (
    main.main(["main"]) == 130
    and capsys.readouterr().err.split("\n", 1)[1] == "stopped by Ctrl-C\n"
  )


def test_ctrl_c_in_one_of_several_processes_leaves_at_once(tmp_path, monkeypatch, capsys):
  from como_jax.parallel import distributed, startup

  left = []
  monkeypatch.setattr(startup, "initialize", lambda detect: True)
  monkeypatch.setattr(distributed, "exit_immediately", lambda code: left.append(code))
  interrupted(monkeypatch, capsys, "--config=motion:debug", f"--workdir={tmp_path}")
  assert left == [130]


def test_ctrl_c_with_worker_processes(tmp_path):
  """Signals go to the whole group, as from a terminal: in a conversion with two workers, no process
  leaves a traceback.
  """
  command = [
    sys.executable,
    "-m",
    "como_jax",
    "--config=ingest:debug",
    "--config.workers=2",
    "--config.shards.episodes_per_shard=8",
    f"--workdir={tmp_path}",
  ]
  with open(tmp_path.parent / "output", "w+") as output:
    process = subprocess.Popen(
      command,
      cwd=program.ROOT,
      env=program.environment(),
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    until = time.monotonic() + 3600
    while not list(tmp_path.glob("shard*")) and process.poll() is None and time.monotonic() < until:
      time.sleep(0.02)  # until workers write
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=3600)
    output.seek(0)
    text = output.read()
  assert process.returncode in (130, -signal.SIGINT), text  # a shell calls both 130
  assert "Traceback" not in text and "KeyboardInterrupt" not in text, text
  assert (
    text.strip()
    .splitlines()[-1]
    .startswith("stopped by Ctrl-C: run it again with python -m como_jax --config=ingest:debug")
  ), text


@pytest.mark.parametrize(
  "config, key",
  [
    ("motion:debug", "--workdir"),
    ("ingest:debug", "--workdir"),
    ("ingest:debug", "--config.output"),
    ("collect:debug", "--config.output"),
    ("extract", "--config.lerobot"),
    ("quickstart:debug", "--workdir"),
  ],
)
def test_a_folder_under_a_file_is_one_line(capsys, config, key):
  code = main.main(["main", f"--config={config}", f"{key}=/dev/null/x"])
  line = capsys.readouterr().err.strip()
  assert (
    code == 2
    and line.startswith("error: ")
    and "/dev/null is no directory" in line
    and key.removeprefix("--") in line
  ), line


def test_a_folder_without_permission_is_one_line(tmp_path, monkeypatch, capsys):
  # as for whoever is not root
  monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path) != tmp_path)
  code = main.main(["main", "--config=motion:debug", f"--workdir={tmp_path / 'runs' / 'a'}"])
  assert code == 2 and f"no permission for {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
  "error",
  [
    PermissionError(13, "", "/x/run"),
    OSError(30, "", "/x/run"),
    NotADirectoryError(20, "", "/x/run"),
  ],
)
def test_what_the_system_refuses_later_is_one_line_too(monkeypatch, capsys, error):
  def run(command):
    raise error

  monkeypatch.setattr(tasks, "run", run)
  assert main.main(["main", "--config=motion:debug"]) == 2
  assert capsys.readouterr().err.strip() == (
    f"error: /x/run: {os.strerror(error.errno)}: choose another place (--workdir, or the key "
    "that names it)"
  )


@pytest.mark.parametrize("workdir", ["x", "x/y/z"])
def test_a_workdir_that_no_folder_can_be_made_at_is_one_line(
  monkeypatch, capsys, tmp_path, workdir
):
  def run(command):
    raise FileNotFoundError(2, "", str(tmp_path / "x"))  # what mkdir says in /proc

  monkeypatch.setattr(tasks, "run", run)
  assert main.main(["main", "--config=ingest:debug", f"--workdir={tmp_path / workdir}"]) == 2
  assert capsys.readouterr().err.startswith(
    f"error: {tmp_path / 'x'}: No such file or directory: choose another place (--workdir"
  )


@pytest.mark.parametrize(
  "folders, words",
  [(("n" * 300,), "a name of 300 bytes, at most 255"), (("n" * 200,) * 30, "bytes, at most")],
)
def test_too_long_a_path_is_found_before_a_part_of_it_is_made(tmp_path, capsys, folders, words):
  code = main.main(
    ["main", "--config=ingest:debug", f"--workdir={tmp_path.joinpath('run', *folders)}"]
  )
  assert code == 2 and words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
  def run(command):
    raise FileNotFoundError(2, "", "/x/part")

  monkeypatch.setattr(tasks, "run", run)
  with pytest.raises(FileNotFoundError):
    main.main(["main", "--config=motion:debug"])


def test_a_cache_that_is_a_url_is_refused(monkeypatch, capsys):
  monkeypatch.setenv("COMO_JAX_CACHE", "gs://bucket/cache")
  assert (
    main.main(["main", "--config=motion:debug"]) == 2
    and "COMO_JAX_CACHE=gs://bucket/cache: URLs" in capsys.readouterr().err
  )


def test_help(capsys):
  assert main.main(["main", "--help"]) == 0
  text = capsys.readouterr().out
  for path in (program.ROOT / "configs").glob("*.py"):
    assert (
      f"  {path.stem} " in text and path.read_text().partition('"""')[2].partition("\n")[0] in text
    )
  assert (
    main.main(["main", "--config=motion:debug,bottleneck=vq", "--config.train.steps=7", "--help"])
    == 0
  )
  lines = capsys.readouterr().out.splitlines()
  said = {line.partition("=")[0]: line for line in lines if line.startswith("--config.")}
  assert (
    said["--config.train.steps"] == "--config.train.steps=7"
    and "--config.model.bottleneck.num_codes" in said
    and any("Variants:" in line for line in lines)
  )
  assert "--config.data.path=bundled" in said["--config.data.path"] and said[
    "--config.train.ema"
  ].endswith("# decay of the averaged weights; 0 = none")
  assert (
    said["--config.evaluation.windows"].startswith("--config.evaluation.windows=16")
    and "# LPIPS; off without a weights file" in said["--config.objectives.perceptual.weights_path"]
  )
  assert main.main(["main", "--config=motin", "--help"]) == 2


def test_what_is_said_is_seen_at_once_in_a_pipe_too(capsys):
  sys.stdout.reconfigure(line_buffering=False)
  assert main.main(["main", "--help"]) == 0 and sys.stdout.line_buffering
  with contextlib.redirect_stdout(io.StringIO()) as text:
    assert main.main(["main", "--help"]) == 0 and text.getvalue()
