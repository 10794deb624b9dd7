"""The data of a training run, for a probe or an exam of its model."""

from collections.abc import Mapping
from typing import Any

from como_jax import config as config_lib
from como_jax.assembly import offsets


def with_run_data(
  config: config_lib.ConfigDict, run_config: dict[str, Any]
) -> config_lib.ConfigDict:
  """The config of the probe, with missing values (None) from the data section of the training run.

  If the config has a data set of its own, its offset is the one with which the model was trained
  (`assembly.offsets`), and a line with this offset is printed.

  Args:
    config: config of the probe.
    run_config: config of the training run.

  Raises:
    errors.UserError: the offset of the training cannot be determined.
  """
  path, offset_seconds = config.data.path, config.data.offset_seconds
  if path:
    offset = offsets.choose(
      path,
      run_config["data"],
      given=offset_seconds,
      option="--config.data.offset_seconds",
      checkpoint=str(config.checkpoint),
    )
    offset_seconds = offset.seconds
    print(f"probe: {path}: {offset}")
  result = config_lib.ConfigDict(config.to_dict())
  result.data = section_of_run(config.data, run_config, offset_seconds=offset_seconds)
  return result


def section_of_run(
  given: config_lib.ConfigDict, run_config: Mapping[str, Any], *, offset_seconds: float | None
) -> config_lib.ConfigDict:
  """The data section of a training run, with the values that replace some of it.

  Args:
    given: a section `data`; values that are None are those of the run. A path replaces all data
      sets of the run.
    run_config: config of the training run.
    offset_seconds: offset of all data sets; None = as in the run.
  """
  section = config_lib.data()
  with section.ignore_type():
    for key, value in run_config["data"].items():
      if key in section:
        section[key] = value
    section.image_size = run_config["model"]["image_size"]
    for key, value in given.items():
      if value is not None:
        section[key] = value
  if given.path:
    section.mixture = ()
  if offset_seconds is not None:
    section.offset_seconds = offset_seconds
    section.mixture = tuple(
      {**entry, "offset_seconds": offset_seconds} for entry in section.mixture
    )
  return section
