"""Closed-loop success of a policy in a simulator."""

import json

from como_jax import config as config_lib
from como_jax.evaluate import outcomes, rollout_table
from como_jax.inference import rollout_options, rollout_run
from como_jax.sim import planner
from como_jax.train import atomic, rundir

RESULTS, EVAL_INFO, CHECKPOINT = "results.json", "eval_info.json", "checkpoint.json"


def run(command: config_lib.CommandLine, *, policy: planner.Policy | None = None) -> int:
  """Plays the missing episodes and writes their results.

  Writes checkpoint.json, episodes.jsonl, results.json, eval_info.json and videos/.

  Args:
    command: of the command line.
    policy: used instead of the one of config.checkpoint.

  Returns:
    0, or 1 when episodes could not be played.

  Raises:
    errors.UserError: a setting, task, camera or checkpoint does not fit, or a run is resumed with
      other weights; nothing has been written.
  """
  workdir, resume, overwrite = command.workdir, command.resume, command.overwrite
  options = rollout_options.from_config(command.config)
  rundir.check(workdir, command.config, resume=resume, overwrite=overwrite)
  rollout = rollout_run.prepare(
    options, policy=policy, record=workdir / CHECKPOINT if resume else None
  )
  rundir.open_run(workdir, command.config, resume=resume, overwrite=overwrite)
  if rollout.identity:
    atomic.write(workdir / CHECKPOINT, json.dumps(rollout.identity, indent=2))
  if rollout.loaded:
    rollout.loaded.warm_up()  # every batch size is compiled before an episode waits for it
  episodes = rollout_run.play(rollout, workdir)
  config = json.loads(config_lib.to_json(command.config))
  result = rollout_run.results(rollout, episodes, config=config)
  info = outcomes.eval_info(episodes, rollout.groups)
  atomic.write(workdir / RESULTS, json.dumps(result, indent=1))
  atomic.write(workdir / EVAL_INFO, json.dumps(info, indent=2))
  print(rollout_table.text(result, info))
  print(f"results: {workdir / RESULTS}")
  return 1 if result["errors"] else 0
