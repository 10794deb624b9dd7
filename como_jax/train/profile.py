"""A profile of some steps of a run, for TensorBoard: what the host and the devices did when.

`clu.periodic_actions.Profile` is such an action of a loop, but importing it needs TensorFlow, which
this project does without. Its `clu.profiler` does not need it.
"""

import pathlib
from collections.abc import Callable

from clu import profiler


class Profile:
  """Profiles one stretch of steps of a run. A profile that fails does not end the run.

  Every process of a run has one, as all pause at the same steps; process 0 records.

  Attributes:
    first: number of the first step, from 1.
    last: number of the last one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    first: int,
    last: int,
    say: Callable[[str], None],
    records: bool = True,
  ):
    """Starts nothing yet.

    Args:
      folder: of TensorBoard's files; the profile is in its plugins/profile.
      first: number of the first step, from 1.
      last: number of the last one.
      say: prints a line.
      records: whether this process does.
    """
    self.first, self.last = first, last
    self._folder, self._say, self._records = folder, say, records
    self._running = self._started = False

  def start(self) -> None:
    """Starts to record."""
    self._started = True
    if not self._records:
      return
    try:
      profiler.start(str(self._folder))
      self._running = True
    except (OSError, RuntimeError) as error:
      self._say(f"profile: it cannot be started and is left out: {error}")

  def stop(self) -> None:
    """Writes the profile; call it once the devices have done the last step."""
    if not self._running:
      return
    self._running = False
    try:
      profiler.stop()
    except (OSError, RuntimeError) as error:
      self._say(f"profile: it cannot be written into {self._folder} and is left out: {error}")
      return
    self._say(
      f"profile: written into {self._newest()}; to look at it: pip install tensorboard xprof; "
      f"tensorboard --logdir {self._folder}"
    )

  def _newest(self) -> pathlib.Path:
    """Folder of the profile, named by its time."""
    folder = self._folder / "plugins" / "profile"
    return max(folder.glob("*/"), default=folder, key=lambda path: path.stat().st_mtime)

  def close(self) -> None:
    """Writes a profile whose last step did not come, and says where none was begun."""
    self.stop()
    if not self._started:
      self._say(f"profile: there is none, as step {self.first} was not run")
