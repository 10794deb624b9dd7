"""Writes what a run of the tests was to tests/last_run.json: last_run.py JUNIT_FILE EXIT_CODE
PYTEST_ARGUMENTS (see test.sh --record).
"""

import datetime
import json
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).parent.parent


def git(*words: str) -> str:
  done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
  return done.stdout.strip() if done.returncode == 0 else ""


def main(junit: str, code: str, words: str) -> None:
  suite = next(ElementTree.parse(junit).iter("testsuite"))
  counts = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
  skipped = sorted({one.get("message", "").strip() for one in suite.iter("skipped")})
  commit = git("rev-parse", "--short", "HEAD") + (
    "+" if git("status", "--porcelain", "--untracked-files=no") else ""
  )
  result = {
    "date": datetime.date.today().isoformat(),
    "commit": commit,
    "minutes": round(float(suite.get("time")) / 60, 1),
    **counts,
    "exit_code": int(code),
    "arguments": words.strip(),
    "skipped_because": skipped,
  }
  (ROOT / "tests" / "last_run.json").write_text(json.dumps(result, indent=2) + "\n")
  print(f"== wrote tests/last_run.json: {result['minutes']} minutes")


if __name__ == "__main__":
  main(*sys.argv[1:])
