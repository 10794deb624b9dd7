"""A process of a run that evaluates the debug model on the shipped data. Started by a test.

Prints as JSON the figures, the windows' times, and how many windows this process has read.
"""

import json
import traceback

import jax

from como_jax import config as config_lib
from como_jax import models
from como_jax.assembly import motion_data
from como_jax.data import evaluation
from como_jax.inference import motion_evaluator
from como_jax.parallel import distributed, rules, startup
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import reading, rng

WINDOWS, BATCH = 21, 8


def main() -> None:
  startup.initialize()
  config, _, _ = config_lib.load("motion:debug")
  reading.cores()
  model = models.build(config.model.to_dict())
  load, read = evaluation._LoadWindow.__call__, []
  evaluation._LoadWindow.__call__ = lambda self, i: read.append(i) or load(self, i)
  windows = motion_data.MotionData(config).windows(
    "validation", frames=3, batch_size=BATCH, max_windows=WINDOWS
  )
  mesh = mesh_lib.make()
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  params = jax.jit(model.init, out_shardings=rules.shardings(shapes, mesh))(rng.key(0, "init"))
  found = motion_evaluator.MotionEvaluator(model)(params, windows)
  result = {"scalars": found.scalars(), "time": found.columns["time"].tolist(), "read": len(read)}
  print("RESULT " + json.dumps(result))


if __name__ == "__main__":
  try:
    main()
  except Exception:  # the other process would be waited for
    traceback.print_exc()
    distributed.exit_immediately(1)
