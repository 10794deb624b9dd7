"""kill -9 at a random step, then --resume: the losses are bitwise those of an uninterrupted run,
also with other data workers.
"""

import random
import signal
import subprocess

import pytest

from como_jax.train import log
from tests import limits
from tests.end_to_end import program

STEPS = 12
CONFIG = "configs/motion.py:debug"
WORDS = [
  "--config.train.checkpoint_every=2",
  "--config.train.tensorboard=False",
  "--config.train.evaluate_every=0",
  "--config.train.batch_size=4",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("kill") / "whole"
  program.run(CONFIG, folder, f"--config.train.steps={STEPS}", *WORDS)
  return losses(folder)


def losses(folder):
  return {
    name: values
    for name, values in log.read(folder, kind="train").items()
    if name in ("loss", "reconstruction", "contrastive", "grad_norm")
  }


def kill_at(folder, step):
  """Starts the run and kills it, without any warning, once its log has reached a step."""
  process = subprocess.Popen(
    program.command(CONFIG, folder, f"--config.train.steps={STEPS}", *WORDS),
    cwd=program.ROOT,
    env=program.environment(),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  assert limits.wait_until(lambda: program.logged(folder) >= step, while_alive=process), (
    f"the run ended by itself with {process.returncode}"
  )
  process.send_signal(signal.SIGKILL)
  process.wait()


@pytest.mark.flow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, whole, workers):
  step = random.randint(2, 5)
  print(f"killed at step {step}")
  kill_at(tmp_path / "run", step)
  for attempt in range(2):  # the second --resume finds a finished run and leaves it as it is
    program.run(
      CONFIG,
      tmp_path / "run",
      "--resume",
      f"--config.train.steps={STEPS}",
      f"--config.data.workers={workers}",
      *WORDS,
    )
    resumed = losses(tmp_path / "run")
    assert resumed == whole, f"attempt {attempt}"
