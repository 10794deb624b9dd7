"""Writes the result of a test run to tests/last_run.json (see test.sh --record).

last_run.py JUNIT_FILE EXIT_CODE PYTEST_ARGUMENTS
"""

import datetime
import json
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).parent.parent


def git(*args: str) -> str:
  """Returns the output of a git command in this checkout; "" when it fails."""
  result = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
  return result.stdout.strip() if result.returncode == 0 else ""


def main(junit: str, code: str, arguments: str) -> None:
  """Writes tests/last_run.json.

  Args:
    junit: path of the JUnit XML file.
    code: exit code of pytest.
    arguments: of pytest.
  """
  suite = next(ElementTree.parse(junit).iter("testsuite"))
  counts = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
  skipped = sorted({element.get("message", "").strip() for element in suite.iter("skipped")})
  commit = git("rev-parse", "--short", "HEAD") + (
    "+" if git("status", "--porcelain", "--untracked-files=no") else ""
  )
  result = {
    "date": datetime.date.today().isoformat(),
    "commit": commit,
    "minutes": round(float(suite.get("time")) / 60, 1),
    **counts,
    "exit_code": int(code),
    "arguments": arguments.strip(),
    "skipped_because": skipped,
  }
  (ROOT / "tests" / "last_run.json").write_text(json.dumps(result, indent=2) + "\n")
  print(f"== wrote tests/last_run.json: {result['minutes']} minutes")


if __name__ == "__main__":
  main(*sys.argv[1:])
