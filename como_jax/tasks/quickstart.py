"""Ingest -> train -> probe -> report in one directory, going on where an earlier attempt stopped, with one summary.json."""

import json
import pathlib
import time

from como_jax import config as config_lib
from como_jax import errors, tasks
from como_jax.data.sources import shards
from como_jax.tasks import probe
from como_jax.train import checkpoint, files

SUMMARY = "summary.json"
ROOT = pathlib.Path(__file__).parent.parent.parent


def run(command: config_lib.CommandLine) -> int:
  """Runs the stages that are not finished yet and writes DIR/summary.json."""
  workdir, config = command.workdir.absolute(), command.config
  if command.overwrite:
    raise errors.UserError(f"quickstart never deletes: remove {workdir} by hand, or give another --workdir")
  asked, file = json.loads(config_lib.to_json(config)), workdir / "quickstart.json"
  changed = config_lib.differences(json.loads(file.read_text()), asked) if file.exists() else {}
  if changed:
    key, (was, now) = next(iter(changed.items()))
    raise errors.UserError(f"{workdir} was started with {key}={was!r}, now it is {now!r}: give another --workdir")
  workdir.mkdir(parents=True, exist_ok=True)
  files.write(file, json.dumps(asked, indent=2))
  folders = {name: workdir / name for name in ("shards", "motion", "probe")}
  seconds = {}
  stages = {
      "ingest": (folders["shards"] / shards.MANIFEST, folders["shards"], config.ingest, [f"--config.source.path={config.source}"]),
      "motion": (folders["motion"] / checkpoint.WEIGHTS, folders["motion"], config.motion,
                 [f"--config.data.path={folders['shards']}", f"--config.train.steps={config.steps}"]),
      "probe": (folders["probe"] / "report.html", folders["probe"], config.probe, [f"--config.checkpoint={folders['motion']}"]),
  }
  for name, (product, folder, config_file, overrides) in stages.items():
    clock = folder.parent / f".{name}-seconds"
    if product.exists():
      print(f"== {name}: done already ({folder})", flush=True)
    else:
      print(f"== {name}", flush=True)
      begin = time.monotonic()
      again = {"ingest": [], "motion": ["--resume"] if (folder / "config.json").exists() else [],
               "probe": ["--overwrite"] if (folder / "config.json").exists() else []}[name]
      code = tasks.run(config_lib.parse(["main", f"--config={ROOT / config_file}", f"--workdir={folder}", *overrides, *again]))
      if code:
        return code
      clock.write_text(str(time.monotonic() - begin))
    seconds[name] = float(clock.read_text()) if clock.exists() else 0.0
  summary = summarise(folders["motion"], folders["probe"], seconds)
  files.write(workdir / SUMMARY, json.dumps(summary, indent=2))
  show(summary, workdir)
  return 0


def summarise(motion: pathlib.Path, probed: pathlib.Path, seconds: dict[str, float]) -> dict:
  """The numbers of a run in one flat dict."""
  rows = json.loads((probed / probe.METRICS).read_text())["rows"]
  speed = json.loads((motion / "speed.json").read_text())
  trained, untrained, copied = rows["trained"], rows["untrained"], rows["copy-current-frame"]
  def first(value):
    return value[0] if isinstance(value, list) else value
  return {
      "lp_mse": first(trained.get("lp_mse")), "lp_mse_random": first(untrained.get("lp_mse")), "lp_gain": trained.get("lp_gain"),
      "state_lp_mse": first(trained.get("state_lp_mse")), "state_lp_mse_random": first(untrained.get("state_lp_mse")),
      "mlp_mse": first(trained.get("mlp_mse")), "mlp_mse_random": first(untrained.get("mlp_mse")),
      "s_pcfc": trained["s_pcfc"], "s_pcfc_random": untrained["s_pcfc"], "effective_rank": trained["effective_rank"],
      "psnr": trained["psnr"], "psnr_copy_last": copied["psnr"], "copy_ratio": trained["copy_ratio"],
      "copy_ratio_moving": trained["copy_ratio_moving"], "pairs_per_s": speed["pairs_per_s"], "wait_share": speed["wait_share"],
      "steps": speed["steps"], "seconds": sum(seconds.values()), "seconds_by_stage": seconds,
      "report": str(probed / "report.html"), "weights": str(motion / checkpoint.WEIGHTS)}


def show(summary: dict, workdir: pathlib.Path) -> None:
  """The end of the job, for a person."""
  def number(name):
    value = summary[name]
    return "not measured (no actions in the data)" if value is None else f"{value:.3f}"
  print(f"\nLP-MSE  {number('lp_mse')}  (untrained model {number('lp_mse_random')}; 1 = z says nothing of the action, 0 = everything)")
  if summary["lp_gain"]:
    gain, error = summary["lp_gain"]
    print(f"        gain over the untrained model {gain:.3f}" + (f" ± {error:.3f}" if error else "") + " on the same held-out episodes")
  print(f"S-PCFC  {summary['s_pcfc']:.3f}  (untrained {summary['s_pcfc_random']:.3f}; 1 = z only encodes the second frame)")
  print(f"PSNR    {summary['psnr']:.2f} dB  (copying the current frame {summary['psnr_copy_last']:.2f} dB; "
        f"error on moving pixels {summary['copy_ratio_moving']:.3f} of the copy's)")
  print(f"speed   {summary['pairs_per_s']:.0f} pairs/s, {summary['seconds']:.0f} s in all")
  print(f"summary {workdir / SUMMARY}\nreport  {summary['report']}")
