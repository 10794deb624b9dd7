"""Errors that are shown to the user as one line.

The line names what is wrong (file or key), what was expected, and the nearest valid name.
"""

from __future__ import annotations  # Python 3.8: this file is in client/ too

import difflib
import os
from collections.abc import Iterable


class UserError(ValueError):
  """Bad input (file, key, value).

  `main` prints its message (one line) and exits with `code`. Nothing has been written.
  """

  code = 2


class SharedUserError(UserError):
  """Bad input that all processes of the run know about.

  They all end normally, with the same message.
  """


class TransientError(RuntimeError):
  """A temporary failure: processes that did not come or were lost, a network that did not answer.

  The input is good. `main` exits with `code`, which means: start the run again.
  """

  code = os.EX_TEMPFAIL


class RunError(RuntimeError):
  """The input is good but the run cannot go on; the message says why and what to do.

  `main` exits with `code`.
  """

  code = 1


class NonFiniteError(RunError):
  """A loss, gradient or weight became infinite or NaN; the message names the step.

  All processes of a run detect it at the same step. `main` exits with `code`, which means: a
  restart would end in the same way, because it takes the same batches.
  """

  code = 3


class StorageError(RunError):
  """A file of the run cannot be written (often: the disk is full) or read; the message names it."""


class OutOfMemoryError(RunError):
  """The program asked for more memory than there is."""


def nearest(name: str, valid: Iterable[str]) -> str:
  """The end of an error message: the nearest valid name, and the first 12 valid names.

  Args:
    name: the invalid name.
    valid: the valid names.
  """
  names = sorted(str(v) for v in valid)
  close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
  hint = f"did you mean {close[0]!r}?" if close else ""
  listed = (
    "valid: " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    if names
    else "there are none"
  )
  return f"{hint} ({listed})" if hint else listed
