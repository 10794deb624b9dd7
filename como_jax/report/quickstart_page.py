"""The summary of a quickstart: its numbers, its page, and its last lines on the terminal.

Legend: F frames, H W pixels.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax.report.data import Curve, Exam, ReportData, Rollouts

SUMMARY, PAGE = "summary.json", "report.html"
# Curves on the page; the others are on the pages of the stages.
CURVES = ("loss", "psnr", "s_pcfc", "action", "latent", "action_mse", "latent_mse")

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Products:
  """What the stages of a quickstart have written; {} for a stage that was left out.

  Attributes:
    workdir: folder of the quickstart.
    config: config of the quickstart.
    rows: rows of the probe.
    exam: rows of the exam.
    motion_speed, policy_speed: speeds of the two trainings.
    curves: (stage, "train" or "validation") -> name -> curve, for the stages "motion" and "policy".
    rollout: results of the rollouts.
    served: times of the requests to the policy server.
  """

  workdir: pathlib.Path
  config: Json
  rows: Json
  exam: Json
  motion_speed: Json
  policy_speed: Json
  curves: Mapping[tuple[str, str], Mapping[str, Curve]]
  rollout: Json
  served: Json


def summary(
  products: Products, *, seconds: Mapping[str, float], skipped: Mapping[str, str]
) -> dict[str, Any]:
  """The numbers of all stages, as summary.json has them.

  Args:
    products: what the stages have written.
    seconds: stage -> duration.
    skipped: stage -> reason why it was skipped.
  """
  return {
    **motion_numbers(products),
    **exam_numbers(products),
    **policy_numbers(products),
    "seconds": sum(seconds.values()),
    "seconds_by_stage": seconds,
    "left_out": skipped,
    "report": str(products.workdir / PAGE),
  }


def motion_numbers(products: Products) -> dict[str, Any]:
  """The metrics of the motion model, as a flat dict."""
  rows, speed, workdir = products.rows, products.motion_speed, products.workdir
  trained, untrained, copy = rows["trained"], rows["untrained"], rows["copy-current-frame"]

  def value(row: Json, key: str) -> float | None:
    """A metric without its standard error; None: not measured."""
    metric = row.get(key)
    return metric[0] if isinstance(metric, list) else metric

  return {
    "lp_mse": value(trained, "lp_mse"),
    "lp_mse_random": value(untrained, "lp_mse"),
    "lp_gain": trained.get("lp_gain"),
    "state_lp_mse": value(trained, "state_lp_mse"),
    "state_lp_mse_random": value(untrained, "state_lp_mse"),
    "mlp_mse": value(trained, "mlp_mse"),
    "mlp_mse_random": value(untrained, "mlp_mse"),
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
    "weights": str(workdir / "motion" / "weights"),
  }


def exam_numbers(products: Products) -> dict[str, Any]:
  """The metrics of the exam, as a flat dict; None if it was left out or withheld.

  "appearance" is the excess of the label that z predicts best.
  """
  trained = products.exam.get("trained", {})
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


def policy_numbers(products: Products) -> dict[str, Any]:
  """The metrics of the policy, as a flat dict; None if a stage was left out."""
  validation = products.curves["policy", "validation"]
  last = {name: float(values[-1]) for name, (_, values) in validation.items()}
  speed, rollout = products.policy_speed, products.rollout.get("overall") or {}
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
    "round_trip_ms": products.served.get("round_trip_ms"),
    "policy_weights": str(products.workdir / "policy" / "weights") if speed else None,
  }


def page(
  products: Products,
  summary: Json,
  *,
  exam: Exam | None,
  rollouts: Rollouts | None,
  versions: Json,
  hardware: Json,
) -> ReportData:
  """The data of the page: motion, success of the policy, and times.

  The page of the probe has the details.

  Args:
    products: what the stages have written.
    summary: the numbers, see `summary`.
    exam: rows of the exam; None: it was left out.
    rollouts: success of the policy; None: there were none.
    versions: versions of the packages.
    hardware: of this machine.
  """
  return ReportData(
    title="Quick start: motion model and policy",
    metrics={
      name: {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
      for name, row in products.rows.items()
    },
    curves={
      f"{'validation/' if kind == 'validation' else ''}{stage} {name}": curve
      for (stage, kind), curves in products.curves.items()
      for name, curve in curves.items()
      if name in CURVES
    },
    rollouts=rollouts,
    exam=exam,
    notes=_notes(products, summary),
    config=products.config,
    versions=versions,
    hardware=hardware,
    time={
      f"{name}, seconds": round(value, 1) for name, value in summary["seconds_by_stage"].items()
    },
  )


def _notes(products: Products, summary: Json) -> list[str]:
  """What was left out, the policy's error and the server's times, in words."""
  notes = [f"{name} was left out: {reason}" for name, reason in summary["left_out"].items()]
  if summary["action_mse"] is not None:
    notes.append(
      "Policy: squared error of one sampled chunk on held-out demonstrations "
      f"{summary['action_mse']:.3f} in units of the actions' variance (0 is perfect; always "
      "saying the mean action gets 1, a random draw from the actions' distribution 2)."
    )
  if served := products.served:
    notes.append(
      f"Server: {served['requests']} requests of one client over a websocket, "
      f"{served['round_trip_ms']:.1f} ms a round trip (median), chunks of {served['chunk']} "
      "actions."
    )
  notes.append(
    "All metrics, reconstructions and probes of the motion model: probe/report.html beside this "
    "page."
  )
  return notes


def rollouts(results: Json, films: Mapping[str, np.ndarray]) -> Rollouts:
  """The success of each task, with recorded episodes.

  Args:
    results: results of the rollouts.
    films: caption -> frames of an episode, uint8 [F, H, W, 3].
  """
  tasks = results["tasks"]
  rates = {task: (row["value"], row["low"], row["high"]) for task, row in tasks.items()}
  return Rollouts(rates, max(row["count"] for row in tasks.values()), films)


def text(summary: Json, workdir: pathlib.Path) -> str:
  """The summary for the terminal.

  Args:
    summary: the numbers, see `summary`.
    workdir: folder of the quickstart.
  """
  lines = [
    *_motion_lines(summary),
    *_policy_lines(summary),
    *(f"no {name}: {reason}" for name, reason in summary["left_out"].items()),
    f"speed   {summary['pairs_per_s']:.0f} pairs/s, {summary['seconds']:.0f} s in all",
    f"summary {workdir / SUMMARY}",
    f"report  {workdir / PAGE}",
  ]
  return "\n" + "\n".join(lines)


def _motion_lines(summary: Json) -> list[str]:
  """Lines on the motion model and the exam."""

  def number(name: str) -> str:
    value = summary[name]
    return "not measured (no actions in the data)" if value is None else f"{value:.3f}"

  lines = [
    f"LP-MSE  {number('lp_mse')}  (untrained model {number('lp_mse_random')}; 1 = z says "
    "nothing of the action, 0 = everything)"
  ]
  if summary["lp_gain"]:
    gain, error = summary["lp_gain"]
    error_text = f" ± {error:.3f}" if error else ""
    lines.append(
      f"        gain over the untrained model {gain:.3f}{error_text} on the same held-out episodes"
    )
  if summary["exam_verdict"] is not None:
    score = [summary[f"motion_score{end}"] for end in ("", "_low", "_high")]
    score_text = "withheld" if None in score else "{:.2f} [{:.2f}, {:.2f}]".format(*score)
    appearance = (
      "not measured"
      if summary["appearance"] is None
      else f"{summary['appearance']:.2f} (0 = chance, 1 = read from z without error)"
    )
    lines.append(
      f"exam    {summary['exam_verdict']}: S {score_text} (0 = as one picture, 1 = as both); "
      f"appearance {appearance}"
    )
  return [
    *lines,
    f"S-PCFC  {summary['s_pcfc']:.3f}  (untrained {summary['s_pcfc_random']:.3f}; 1 = z only "
    "encodes the second frame)",
    f"PSNR    {summary['psnr']:.2f} dB  (copying the current frame "
    f"{summary['psnr_copy_last']:.2f} dB; error on moving pixels "
    f"{summary['copy_ratio_moving']:.3f} of the copy's)",
  ]


def _policy_lines(summary: Json) -> list[str]:
  """Lines on the policy; those of stages that were left out are left out."""
  lines = []
  if summary["action_mse"] is not None:
    lines.append(
      f"policy  action error {summary['action_mse']:.3f} on held-out demonstrations "
      "(0 = perfect, 1 = the mean action, 2 = a random draw)"
    )
  if summary["success"] is not None:
    low, high = summary["success_low"], summary["success_high"]
    lines.append(
      f"success {100 * summary['success']:.0f} %  (95 % interval {100 * low:.0f} to "
      f"{100 * high:.0f} %, {summary['episodes']} episodes)"
    )
  if summary["round_trip_ms"] is not None:
    lines.append(f"served  {summary['round_trip_ms']:.1f} ms a request")
  return lines
