"""The test command with a stand-in for the interpreter: what it installs, when it draws, what it
asks of pytest, what it writes.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import limits
from tests.end_to_end import program

JUNIT = (
  '<testsuites><testsuite name="pytest" errors="0" failures="1" skipped="2" tests="40" '
  'time="630.4"><testcase name="a"><skipped message="needs a GPU"/></testcase>'
  '<testcase name="b"><skipped message="needs a GPU"/></testcase>'
  "</testsuite></testsuites>"
)


@pytest.fixture(name="project")
def _project(tmp_path):
  """A copy of the launchers and requirements; its interpreter writes down what it is asked."""
  root = tmp_path / "the project"
  shutil.copytree(
    program.ROOT / "launch", root / "launch", ignore=shutil.ignore_patterns("__pycache__")
  )
  for file in program.ROOT.glob("requirements*.txt"):
    shutil.copy(file, root)
  (root / "tests").mkdir()
  (root / ".venv" / "bin").mkdir(parents=True)
  python = root / ".venv" / "bin" / "python"
  python.write_text(f"""#!/usr/bin/env bash
case "$1" in launch/*) exec "{sys.executable}" "$@" ;; esac
[ "$1" != -c ] || exit "${{NO_OPENGL:-0}}"
echo "$XLA_FLAGS| $*" >> "{root}/asked"
for word in "$@"; do case "$word" in --junitxml=*) echo '{JUNIT}' > "${{word#*=}}" ;; esac; done
exit "${{CODE:-0}}"
""")
  python.chmod(0o755)

  def run(*words, **environment):
    (root / "asked").write_text("")
    done = subprocess.run(
      [root / "launch" / "test.sh", *words],
      capture_output=True,
      text=True,
      timeout=limits.SAFETY_NET,
      env={"PATH": os.environ["PATH"], **environment},
    )
    return done, (root / "asked").read_text().splitlines()

  return root, run


def test_simulators_and_the_language_model_are_installed_and_pytest_gets_the_rest(project):
  _, run = project
  done, asked = run("tests/sim", "-x")
  assert done.returncode == 0, done.stderr
  installed = [line.split("-r ")[1].split("/")[-1] for line in asked if " -m pip install " in line]
  assert installed == [
    "requirements-test.txt",
    "requirements-sim.txt",
    "requirements-pusht.txt",
    "requirements-text.txt",
  ]
  assert "--no-deps" in asked[3] and "--no-deps" not in asked[0]
  assert asked[4:] == [
    "| -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile tests/sim -x"
  ]
  assert [line for line in run()[1] if "pip" in line] == [], "once"


def test_all_means_slow_tests_too_and_programs_as_users_compile_them(project):
  _, run = project
  _, asked = run("--all", XLA_FLAGS="--xla_mine=1")
  flags, words = asked[-1].split("| ")
  assert words.endswith("--dist=loadfile -m ") and flags.split() == [
    "--xla_mine=1",
    "--xla_backend_optimization_level=3",
    "--xla_llvm_disable_expensive_passes=false",
  ]


def test_without_opengl_it_says_what_to_do(project):
  root, run = project
  (root / "bin").mkdir()
  for name in ("bash", "env", "dirname", "cat", "sha256sum", "cut", "id", "grep", "basename"):
    (root / "bin" / name).symlink_to(shutil.which(name))
  done, asked = run(NO_OPENGL="1", PATH=str(root / "bin"))
  assert (
    done.returncode == 2
    and "there is no apt-get here" in done.stderr
    and not [line for line in asked if "-m pytest" in line]
  )
  assert done.stderr.splitlines()[-1].endswith(
    "COMO_JAX_TEST_SIMULATORS=0 " + str(root / "launch" / "test.sh") + " leaves them out"
  )
  done, asked = run(NO_OPENGL="1", PATH=str(root / "bin"), COMO_JAX_TEST_SIMULATORS="0")
  assert done.returncode == 0 and "-m pytest" in asked[-1]


def test_missing_opengl_packages_are_installed_by_root_and_by_sudo_without_password(project):
  root, run = project
  (root / "bin").mkdir()
  for name, text in {
    "apt-get": f'echo "apt $*" >> "{root}/apt"',
    "id": 'echo "${USER_ID}"',
    "sudo": (
      f'[ -n "$PASSWORDLESS" ] || exit 1; [ "$2" = true ] || echo sudo >> "{root}/apt"; shift; "$@"'
    ),
  }.items():
    (root / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (root / "bin" / name).chmod(0o755)
  path = f"{root / 'bin'}:{os.environ['PATH']}"
  installs = [
    "apt install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri",
    "apt install -y --no-install-recommends libosmesa6",
  ]
  assert run(NO_OPENGL="1", PATH=path, USER_ID="0")[0].returncode == 2
  assert (root / "apt").read_text().splitlines() == [
    "apt update",
    installs[0],
    "apt update",
    installs[1],
  ]
  (root / "apt").unlink()
  assert run(NO_OPENGL="1", PATH=path, USER_ID="7", PASSWORDLESS="1")[0].returncode == 2
  assert (root / "apt").read_text().splitlines() == [
    "sudo",
    "apt update",
    "sudo",
    installs[0],
    "sudo",
    "apt update",
    "sudo",
    installs[1],
  ]
  done, _ = run(NO_OPENGL="1", PATH=path, USER_ID="7")
  assert (
    done.returncode == 2
    and "this needs root: sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
    in done.stderr
  )


def test_a_run_is_written_down_only_when_asked(project):
  root, run = project
  assert run("tests/sim", CODE="0")[0].returncode == 0 and not list((root / "tests").iterdir())
  done, asked = run("--all", "--record", "tests/sim", CODE="1")
  assert done.returncode == 1 and "10.5 minutes" in done.stdout and "--junitxml" in asked[-1]
  found = json.loads((root / "tests" / "last_run.json").read_text())
  assert (
    found["minutes"],
    found["tests"],
    found["failures"],
    found["skipped"],
    found["exit_code"],
  ) == (10.5, 40, 1, 2, 1)
  assert (
    found["skipped_because"] == ["needs a GPU"]
    and found["arguments"].endswith("-m '' tests/sim")
    and len(found["date"]) == 10
  )
