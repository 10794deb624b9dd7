"""Errors meant for the person at the keyboard: one line that names the thing, what was expected and
the nearest valid name.
"""

import difflib
import os
from collections.abc import Iterable


class UserError(ValueError):
  """Bad input (file, key, value).

  `main` prints its single line and exits with `code`; nothing has been written.
  """

  code = 2


class Shared(UserError):
  """Bad input that every process of the run has heard of: they end in order, with the same
  message.
  """


class Transient(RuntimeError):
  """Nothing is wrong with the input, only with the moment: other processes did not come.

  `main` exits with `code`: start it again.
  """

  code = os.EX_TEMPFAIL


class Failed(RuntimeError):
  """The input was good and the run cannot go on; one line says why and what to do.

  `main` exits with `code`.
  """

  code = 1


class NonFinite(Failed):
  """A loss, gradient or weight became infinite or not a number; the message names the step.

  Every process of a run finds it alike.
  """


class Storage(Failed):
  """A file of the run cannot be written (a full disk, most often) or read; the message names it."""


class OutOfMemory(Failed):
  """The program asked for more memory than there is."""


def nearest(name: str, valid: Iterable[str]) -> str:
  """Text to end an error with: the nearest valid name, or the list of all of them when it is short.

  Args:
    name: what was given.
    valid: the names that would have been accepted.
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
