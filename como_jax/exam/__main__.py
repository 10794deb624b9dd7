"""`python -m como_jax.exam score LATENTS.npz`: is z motion or appearance? Needs numpy alone.

LATENTS.npz holds `z` [P, Z], the latents of the set's pairs. It may also hold `z_ac` [V, Z]
(pictures 0 -> 2), `z_ba` [P, Z] (reversed pairs), `z_aa` [V, Z] (picture 0 and itself) and
`z_shifted` [V, Z] (pictures 0 -> 1, both shifted).

Exit codes: 0 done, 2 bad input (one line on stderr).
"""

import argparse
import json
import os
import pathlib
import sys

from como_jax import errors
from como_jax.exam import exam_set, run, table

SET = exam_set.BUNDLED / "hand"


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m como_jax.exam", description=(__doc__ or "").partition("\n")[0]
  )
  commands = parser.add_subparsers(dest="command", required=True)
  score = commands.add_parser("score", help="scores latents of an exam set")
  score.add_argument(
    "latents",
    metavar="LATENTS.npz",
    help="array z [P, Z]; z_ac, z_ba, z_aa, z_shifted where there are such",
  )
  score.add_argument(
    "--set", metavar="DIR", default=str(SET), help="folder of exam.npz (%(default)s)"
  )
  score.add_argument("--out", metavar="FILE.json", help="also writes the result there")
  score.add_argument(
    "--seed", type=int, default=0, help="of held-out groups and bootstraps (%(default)s)"
  )
  arguments = parser.parse_args(argv)
  try:
    out = None if arguments.out is None else pathlib.Path(arguments.out)
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
      raise errors.UserError(f"--out {out}: expected a file in a folder that exists")
    exam = exam_set.load(arguments.set)
    latents = exam_set.load_latents(arguments.latents, exam)
    result = run.evaluate(
      exam, latents, seed=arguments.seed, log=lambda what: print(what, file=sys.stderr, flush=True)
    )
    print(table.text(result))
    print(f"{result.seconds:.0f} seconds", file=sys.stderr)
    if out is not None:
      partial = out.with_name(out.name + ".partial")
      partial.write_text(json.dumps(table.to_json(result), indent=2, allow_nan=False) + "\n")
      os.replace(partial, out)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return error.code
  except OSError as error:
    print(f"error: --out {arguments.out}: {error.strerror or error}", file=sys.stderr)
    return errors.UserError.code
  return 0


if __name__ == "__main__":
  sys.exit(main())
