"""Units of work under Apache Beam, instead of leases: `pip install "como-jax[beam]"`.

A runner may run a unit twice, or at two places at once. So a unit's files are made in a folder of
their own and moved; they do not depend on who makes them.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from como_jax import errors
from como_jax.units import folder

LOCAL = ("--runner=DirectRunner",)


def run(function: Callable[[Any], Any], units: Iterable[Any], flags: Sequence[str]) -> None:
  """Calls a function with every unit, in a pipeline, and waits for its end.

  Args:
    function: picklable; it may be called twice with the same unit.
    units: picklable.
    flags: options of the pipeline, as Beam documents them; () = those of a run on this machine.

  Raises:
    errors.UserError: Beam is not installed.
  """
  try:
    import apache_beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise errors.UserError(
      f"config.runner='beam' needs Apache Beam ({error}): pip install 'como-jax[beam]'"
    ) from error
  options = pipeline_options.PipelineOptions([*(flags or LOCAL)])
  with apache_beam.Pipeline(options=options) as pipeline:
    _ = (
      pipeline
      | apache_beam.Create(list(units))
      | apache_beam.Reshuffle()  # every unit for itself
      | apache_beam.Map(function)
    )


def place(output: str, make: Callable[[str], Sequence[str]]) -> None:
  """Makes the files of a unit in a new folder and moves them to their places.

  Args:
    output: folder of the files.
    make: makes them in the folder that it is given; returns their names, in the order in which they
      appear.
  """
  staging = os.path.join(output, folder.FOLDER, uuid.uuid4().hex)
  os.makedirs(staging)
  try:
    for name in make(staging):
      os.replace(os.path.join(staging, name), os.path.join(output, name))
  finally:
    shutil.rmtree(staging, ignore_errors=True)
