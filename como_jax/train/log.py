"""Scalars of a run: metrics.jsonl, progress on the terminal, TensorBoard and, when asked, Weights &
Biases.
"""

import contextlib
import json
import math
import pathlib
import sys
import time
import uuid
from collections.abc import Iterable

import tqdm

from como_jax import errors
from como_jax.train import atomic

FILE = "metrics.jsonl"


class Log:
  """Writes scalars.

  After a resume the file goes on at the restored step, without the lines of lost steps.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    steps: int,
    start: int,
    tensorboard: bool = True,
    wandb: str = "",
    name: str = "",
    config: dict | None = None,
  ):
    self._path = workdir / FILE
    kept = [line for line in _lines(self._path) if line["step"] <= start]
    try:
      atomic.write(self._path, "".join(json.dumps(line) + "\n" for line in kept))
    except OSError as error:
      raise errors.Storage(f"cannot write {self._path}: {error.strerror or error}") from error
    self.validated = sorted({line["step"] for line in kept if line["kind"] == "validation"})
    self._file = self._path.open("a")
    self._board = _Board(workdir / "tensorboard", purge_step=start) if tensorboard else None
    self._wandb = None
    if wandb:
      identity = workdir / "wandb_id"  # a run's own: two directories of one config are two runs
      if not identity.exists():
        atomic.write(identity, uuid.uuid4().hex[:12])
      self._wandb = check_wandb().init(
        project=wandb,
        name=name,
        dir=str(workdir),
        config=config,
        id=identity.read_text(),
        resume="allow",
      )
    self._terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True
    )
    self._steps, self._begin, self._start = steps, time.monotonic(), start

  def write(self, step: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """One line {"step", "kind", ...}; `kind` is train or validation.

    TensorBoard is given up when it cannot be written.

    Raises:
      errors.Storage: the line cannot be written.
    """
    line = {"step": step, "kind": kind, **{k: float(v) for k, v in scalars.items()}}
    try:
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
    except OSError as error:
      raise errors.Storage(f"cannot write {self._path}: {error.strerror or error}") from error
    if self._board:
      try:
        self._board.write(step, {f"{kind}/{key}": float(value) for key, value in scalars.items()})
      except OSError as error:
        self.say(
          f"tensorboard: cannot write {self._board.path}: {error.strerror or error}; {FILE} "
          "goes on, tensorboard does not"
        )
        with contextlib.suppress(OSError):
          self._board.close()
        self._board = None
    if self._wandb:
      self._wandb.log({f"{kind}/{k}": float(v) for k, v in scalars.items()}, step=step)

  def evaluated(self, step: int) -> bool:
    """Whether an earlier start of this run has already validated at a step."""
    return step in self.validated

  def progress(self, step: int, scalars: dict[str, float], *, say: bool) -> None:
    """Moves the bar; off a terminal, prints a line when `say`."""
    text = ", ".join(f"{k} {v:.4g}" for k, v in scalars.items())
    self._bar.set_postfix_str(text, refresh=False)
    self._bar.update(step - self._bar.n)
    if say and not self._terminal:
      done = max(1, step - self._start)
      left = (time.monotonic() - self._begin) / done * (self._steps - step)
      print(f"step {step}/{self._steps}  {text}, ETA {_clock(left)}")

  def say(self, text: str) -> None:
    """A line beside the bar."""
    if self._terminal:
      self._bar.write(text)
    else:
      print(text)

  def close(self) -> None:
    """Flushes and closes all writers."""
    self._bar.close()
    # every line has been flushed; one that could not be written has been said
    with contextlib.suppress(OSError):
      self._file.close()
    if self._board:
      with contextlib.suppress(OSError):
        self._board.close()
    if self._wandb:
      self._wandb.finish()


class _Board:
  """Scalars for TensorBoard, written at once: tensorboardX's own writer has a thread that dies
  loudly when the disk is full.
  """

  def __init__(self, folder: pathlib.Path, *, purge_step: int):
    """`purge_step`: TensorBoard hides what an earlier start has written from there on."""
    from tensorboardX import event_file_writer, summary  # imported when asked for
    from tensorboardX.proto import event_pb2

    folder.mkdir(parents=True, exist_ok=True)
    self.path, self._event, self._scalar = folder, event_pb2.Event, summary.scalar
    self._writer = event_file_writer.EventsWriter(str(folder / "events"))
    if purge_step:
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._writer.write_event(self._event(wall_time=time.time(), step=purge_step, session_log=log))

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Raises OSError."""
    for name, value in scalars.items():
      self._writer.write_event(
        self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
      )
    self._writer.flush()

  def close(self) -> None:
    """Raises OSError."""
    self._writer.close()


class NullLog:
  """What the other processes of a run have in place of the log: it writes nothing."""

  def __init__(self, evaluated: Iterable[int]):
    """`evaluated`: the steps that the log of process 0 knows to be validated."""
    self._evaluated = frozenset(evaluated)

  def evaluated(self, step: int) -> bool:
    """As the log of process 0."""
    return step in self._evaluated

  def write(self, step: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """Nothing."""

  def progress(self, step: int, scalars: dict[str, float], *, say: bool) -> None:
    """Nothing."""

  def say(self, text: str) -> None:
    """Nothing."""

  def close(self) -> None:
    """Nothing."""


def check_wandb():
  """The wandb module.

  Raises:
    errors.UserError: it is not installed, or its import fails.
  """
  try:
    import wandb
  except Exception as error:  # whatever a package that does not fit to its dependencies raises
    if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
      raise errors.UserError(
        "config.train.wandb is set but wandb is not installed: pip install wandb"
      ) from error
    raise errors.UserError(
      "config.train.wandb is set and wandb is installed, but importing it fails "
      f"({type(error).__name__}: {error}): try pip install --upgrade wandb, or leave "
      "config.train.wandb empty"
    ) from error
  return wandb


def read(workdir: pathlib.Path, *, kind: str) -> dict[str, tuple[list[int], list[float]]]:
  """{name: (steps, values)} of a run's scalars of one kind."""
  curves: dict[str, tuple[list[int], list[float]]] = {}
  for line in _lines(pathlib.Path(workdir) / FILE):
    if line["kind"] == kind:
      for name, value in line.items():
        if name not in ("step", "kind") and math.isfinite(value):
          steps, values = curves.setdefault(name, ([], []))
          steps.append(line["step"])
          values.append(value)
  return curves


def _lines(path: pathlib.Path) -> list[dict]:
  """The file's complete lines; the last one may have been cut by a kill."""
  if not path.exists():
    return []
  lines = []
  for text in path.read_text().splitlines():
    try:
      line = json.loads(text)
    except json.JSONDecodeError:
      break
    if not isinstance(line, dict) or not {"step", "kind"} <= set(line):
      break
    lines.append(line)
  return lines


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
