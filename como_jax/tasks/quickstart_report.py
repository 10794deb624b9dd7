"""The end of a quickstart: a test of the policy server, summary.json, the page and the summary."""

import asyncio
import json
import pathlib
import threading
import time

import numpy as np

from como_jax import report
from como_jax.data import reader, shards, video
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import client, server
from como_jax.serve import policy as serving
from como_jax.tasks import exam, probe
from como_jax.train import atomic, checkpoint, log, rundir

SUMMARY, PAGE = "summary.json", "report.html"
REQUESTS = 20
FILM = 6  # pictures per episode on the page


def serve_one(checkpoint_path: pathlib.Path, data: pathlib.Path, product: pathlib.Path) -> None:
  """Starts a server on a free local port, sends requests over a websocket and writes latencies.

  Args:
    checkpoint_path: checkpoint of the policy.
    data: folder of the shards; a request has their first frame.
    product: file for {"requests", "chunk", "action_dim", "first_ms", "round_trip_ms" (median),
      "warm_up_s"}.
  """
  policy = serving.Policy.load(str(checkpoint_path))
  table = shards.read_table(str(data))
  frames = reader.SegmentReader(str(data), shards.segments(table))
  observation = {IMAGE + camera: frames.images(0, camera, [0])[0] for camera in policy.cameras}
  observation |= {
    STATE: frames.numbers(0, "state", 0, 1)[0] if policy.state_dim else np.zeros(0, np.float32),
    TASK: table.tasks[table.task[0]],
  }
  ready, ports, begin = threading.Event(), [], time.monotonic()
  loop, stop = asyncio.new_event_loop(), asyncio.Event()

  def started(port: int) -> None:
    ports.append(port)
    ready.set()

  def serve() -> None:
    try:
      loop.run_until_complete(
        server.Server(policy, server.Settings(port=0, batch_size=1)).serve(stop, started=started)
      )
    finally:
      ready.set()  # also after a failure, so that the main thread does not wait forever

  thread = threading.Thread(target=serve, daemon=True)
  thread.start()
  ready.wait()
  if not ports:
    raise RuntimeError("the policy server did not start; its error is above")
  warm_up, times = time.monotonic() - begin, []
  with client.Client("127.0.0.1", ports[0]) as robot:
    for _ in range(REQUESTS):
      begin_request = time.perf_counter()
      actions = np.asarray(robot.infer(observation)["actions"])
      times.append(1e3 * (time.perf_counter() - begin_request))
  loop.call_soon_threadsafe(stop.set)
  thread.join()
  product.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(
    product,
    json.dumps(
      {
        "requests": REQUESTS,
        "chunk": actions.shape[0],
        "action_dim": actions.shape[1],
        "first_ms": times[0],
        "round_trip_ms": float(np.median(times)),
        "warm_up_s": warm_up,
      },
      indent=2,
    ),
  )
  print(
    f"served: {REQUESTS} requests over a websocket, chunks {list(actions.shape)}, "
    f"{np.median(times):.1f} ms a round trip"
  )


def finish(workdir: pathlib.Path, *, seconds: dict[str, float], skipped: dict[str, str]) -> None:
  """Writes summary.json and report.html from the products of the stages; prints the summary.

  Args:
    workdir: folder of the quickstart.
    seconds: stage -> duration.
    skipped: stage -> reason why it was skipped.
  """
  summary = {
    **motion_numbers(workdir),
    **exam_numbers(workdir),
    **policy_numbers(workdir),
    "seconds": sum(seconds.values()),
    "seconds_by_stage": seconds,
    "left_out": skipped,
    "report": str(workdir / PAGE),
  }
  atomic.write(workdir / SUMMARY, json.dumps(summary, indent=2))
  report.write(workdir / PAGE, page(workdir, summary))
  show(summary, workdir)


def motion_numbers(workdir: pathlib.Path) -> dict:
  """The metrics of the motion model, as a flat dict."""
  rows = _json(workdir / "probe" / probe.METRICS)["rows"]
  speed = _json(workdir / "motion" / "speed.json")
  trained, untrained, copy = rows["trained"], rows["untrained"], rows["copy-current-frame"]

  def value_of(value):
    return value[0] if isinstance(value, list) else value

  return {
    "lp_mse": value_of(trained.get("lp_mse")),
    "lp_mse_random": value_of(untrained.get("lp_mse")),
    "lp_gain": trained.get("lp_gain"),
    "state_lp_mse": value_of(trained.get("state_lp_mse")),
    "state_lp_mse_random": value_of(untrained.get("state_lp_mse")),
    "mlp_mse": value_of(trained.get("mlp_mse")),
    "mlp_mse_random": value_of(untrained.get("mlp_mse")),
    "s_pcfc": trained["s_pcfc"],
    "s_pcfc_random": untrained["s_pcfc"],
    "effective_rank": trained["effective_rank"],
    "psnr": trained["psnr"],
    "psnr_copy_last": copy["psnr"],
    "copy_ratio": trained["copy_ratio"],
    "copy_ratio_moving": trained["copy_ratio_moving"],
    "pairs_per_s": speed["pairs_per_s"],
    "wait_share": speed["wait_share"],
    "steps": speed["steps"],
    "probe_report": str(workdir / "probe" / "report.html"),
    "weights": str(workdir / "motion" / checkpoint.WEIGHTS),
  }


def exam_numbers(workdir: pathlib.Path) -> dict:
  """The metrics of the exam, as a flat dict; None if it was left out or withheld.

  "appearance" is the excess of the label that z predicts best.
  """
  rows = _json(workdir / "exam" / exam.METRICS).get("rows", {})
  trained = rows.get("trained", {})
  excesses = [
    value
    for key, value in trained.items()
    if key.startswith("excess/") and "_" not in key and value is not None
  ]
  return {
    "motion_score": trained.get("s"),
    "motion_score_low": trained.get("s_low"),
    "motion_score_high": trained.get("s_high"),
    "appearance": max(excesses, default=None),
    "exam_error": trained.get("e_z"),
    "exam_error_minus_components": trained.get("minus_components"),
    "exam_verdict": trained.get("verdict"),
  }


def policy_numbers(workdir: pathlib.Path) -> dict:
  """The metrics of the policy, as a flat dict; None if a stage was left out."""
  last = {
    name: float(values[-1])
    for name, (_, values) in log.read(workdir / "policy", kind="validation").items()
  }
  speed = _json(workdir / "policy" / "speed.json")
  rollout = _json(workdir / "rollout" / "results.json").get("overall") or {}
  mean = rollout.get("mean_over_tasks", {})
  return {
    "action_mse": last.get("action_mse"),
    "latent_mse": last.get("latent_mse"),
    "policy_steps": speed.get("steps"),
    "examples_per_s": speed.get("examples_per_s"),
    "success": mean.get("value"),
    "success_low": mean.get("low"),
    "success_high": mean.get("high"),
    "episodes": mean.get("count"),
    "round_trip_ms": _json(workdir / "serve" / "serve.json").get("round_trip_ms"),
    "policy_weights": str(workdir / "policy" / checkpoint.WEIGHTS) if speed else None,
  }


def page(workdir: pathlib.Path, summary: dict) -> report.ReportData:
  """The data of the page: motion, success of the policy, and times.

  The page of the probe has the details.
  """
  rows = {
    name: {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    for name, row in _json(workdir / "probe" / probe.METRICS)["rows"].items()
  }
  curves = {}
  for stage in ("motion", "policy"):
    for kind, prefix in (("train", ""), ("validation", "validation/")):
      curves |= {
        f"{prefix}{stage} {name}": curve
        for name, curve in log.read(workdir / stage, kind=kind).items()
        if name in ("loss", "psnr", "s_pcfc", "action", "latent", "action_mse", "latent_mse")
      }
  exam_result = _json(workdir / "exam" / exam.METRICS)
  results, served = (
    _json(workdir / "rollout" / "results.json"),
    _json(workdir / "serve" / "serve.json"),
  )
  notes = [f"{name} was left out: {reason}" for name, reason in summary["left_out"].items()]
  if summary["action_mse"] is not None:
    notes.append(
      "Policy: squared error of one sampled chunk on held-out demonstrations "
      f"{summary['action_mse']:.3f} in units of the actions' variance (0 is perfect; always "
      "saying the mean action gets 1, a random draw from the actions' distribution 2)."
    )
  if served:
    notes.append(
      f"Server: {served['requests']} requests of one client over a websocket, "
      f"{served['round_trip_ms']:.1f} ms a round trip (median), chunks of {served['chunk']} "
      "actions."
    )
  notes.append(
    "All metrics, reconstructions and probes of the motion model: probe/report.html beside this "
    "page."
  )
  return report.ReportData(
    title="Quick start: motion model and policy",
    metrics=rows,
    curves=curves,
    rollouts=rollouts(workdir, results) if results else None,
    exam=exam.as_report(exam_result["rows"]) if exam_result else None,
    notes=notes,
    config=_json(workdir / "quickstart.json"),
    versions=rundir.versions(),
    hardware=rundir.hardware(),
    time={
      f"{name}, seconds": round(value, 1) for name, value in summary["seconds_by_stage"].items()
    },
  )


def rollouts(workdir: pathlib.Path, results: dict) -> report.Rollouts:
  """The success of each task, and the recorded episodes as film strips."""
  rates = {task: (row["value"], row["low"], row["high"]) for task, row in results["tasks"].items()}
  films = {}
  for episode in results["episodes"]:
    if episode["video"]:
      frames = [
        image
        for _, image in video.read(
          str(workdir / "rollout" / episode["video"]), video.Geometry(128, "squash")
        )
      ]
      chosen = np.linspace(0, len(frames) - 1, FILM).round().astype(int)
      films[f"{episode['task']}: {'success' if episode['success'] else 'failure'}"] = np.stack(
        [frames[i] for i in chosen]
      )
  return report.Rollouts(rates, max(row["count"] for row in results["tasks"].values()), films)


def show(summary: dict, workdir: pathlib.Path) -> None:
  """Prints the summary for people."""

  def number(name):
    value = summary[name]
    return "not measured (no actions in the data)" if value is None else f"{value:.3f}"

  print(
    f"\nLP-MSE  {number('lp_mse')}  (untrained model {number('lp_mse_random')}; 1 = z says "
    "nothing of the action, 0 = everything)"
  )
  if summary["lp_gain"]:
    gain, error = summary["lp_gain"]
    print(
      f"        gain over the untrained model {gain:.3f}"
      + (f" ± {error:.3f}" if error else "")
      + " on the same held-out episodes"
    )
  if summary["exam_verdict"] is not None:
    score = [summary[f"motion_score{end}"] for end in ("", "_low", "_high")]
    score_text = "withheld" if None in score else "{:.2f} [{:.2f}, {:.2f}]".format(*score)
    print(
      f"exam    {summary['exam_verdict']}: S {score_text} (0 = as one picture, 1 = as both); "
      "appearance "
      + (
        "not measured"
        if summary["appearance"] is None
        else f"{summary['appearance']:.2f} (0 = chance, 1 = read from z without error)"
      )
    )
  print(
    f"S-PCFC  {summary['s_pcfc']:.3f}  (untrained {summary['s_pcfc_random']:.3f}; 1 = z only "
    "encodes the second frame)"
  )
  print(
    f"PSNR    {summary['psnr']:.2f} dB  (copying the current frame "
    f"{summary['psnr_copy_last']:.2f} dB; error on moving pixels "
    f"{summary['copy_ratio_moving']:.3f} of the copy's)"
  )
  if summary["action_mse"] is not None:
    print(
      f"policy  action error {summary['action_mse']:.3f} on held-out demonstrations "
      "(0 = perfect, 1 = the mean action, 2 = a random draw)"
    )
  if summary["success"] is not None:
    print(
      f"success {100 * summary['success']:.0f} %  (95 % interval "
      f"{100 * summary['success_low']:.0f} to {100 * summary['success_high']:.0f} %, "
      f"{summary['episodes']} episodes)"
    )
  if summary["round_trip_ms"] is not None:
    print(f"served  {summary['round_trip_ms']:.1f} ms a request")
  for name, reason in summary["left_out"].items():
    print(f"no {name}: {reason}")
  print(f"speed   {summary['pairs_per_s']:.0f} pairs/s, {summary['seconds']:.0f} s in all")
  print(f"summary {workdir / SUMMARY}\nreport  {workdir / PAGE}")


def _json(path: pathlib.Path) -> dict:
  """Reads a JSON file; {} if it does not exist, because its stage was left out."""
  return json.loads(path.read_text()) if path.is_file() else {}
