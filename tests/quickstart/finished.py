"""What the stages of a quickstart leave behind, written by hand."""

import json

from tests.data import makers


def write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


ROWS = {
  "trained": {
    "lp_mse": [0.25, 0.01],
    "lp_gain": [0.5, 0.02],
    "state_lp_mse": [0.3, 0.1],
    "mlp_mse": 0.2,
    "s_pcfc": 0.1,
    "effective_rank": 7.0,
    "psnr": 30.0,
    "copy_ratio": 0.8,
    "copy_ratio_moving": 0.7,
  },
  "untrained": {
    "lp_mse": [0.75, 0.01],
    "state_lp_mse": [0.6, 0.1],
    "mlp_mse": [0.7, 0.1],
    "s_pcfc": 0.9,
  },
  "copy-current-frame": {"psnr": 25.0},
}
MOTION = {
  "lp_mse": 0.25,
  "lp_mse_random": 0.75,
  "lp_gain": [0.5, 0.02],
  "state_lp_mse": 0.3,
  "state_lp_mse_random": 0.6,
  "mlp_mse": 0.2,
  "mlp_mse_random": 0.7,
  "s_pcfc": 0.1,
  "s_pcfc_random": 0.9,
  "effective_rank": 7.0,
  "psnr": 30.0,
  "psnr_copy_last": 25.0,
  "copy_ratio": 0.8,
  "copy_ratio_moving": 0.7,
  "pairs_per_s": 120.5,
  "wait_share": 0.25,
  "steps": 500,
}
RESULTS = {
  "overall": {"mean_over_tasks": {"value": 0.75, "low": 0.5, "high": 0.9, "count": 8}},
  "tasks": {
    "reach": {"value": 1.0, "low": 0.6, "high": 1.0, "count": 4},
    "push": {"value": 0.5, "low": 0.2, "high": 0.8, "count": 3},
  },
  "episodes": [
    {"task": "reach", "video": "a.mp4", "success": True},
    {"task": "push", "video": "", "success": True},
    {"task": "push", "video": "b.mp4", "success": False},
  ],
}
SERVED = {"requests": 20, "round_trip_ms": 12.34, "chunk": 8}


def half(folder):
  """A quickstart on data without actions: the first stage alone."""
  write(folder / "probe" / "metrics.json", {"rows": ROWS})
  write(
    folder / "motion" / "speed.json",
    {key: MOTION[key] for key in ("pairs_per_s", "wait_share", "steps")},
  )
  return folder


def whole(folder):
  """A quickstart of which all stages but the exam were run."""
  half(folder)
  lines = [
    {"step": step, "kind": "validation", "action_mse": value, "latent_mse": 2 * value, "other": 9.0}
    for step, value in ((1, 0.5), (2, 0.25))
  ]
  lines += [{"step": 2, "kind": "train", "loss": 1.5, "action": 0.5, "rate": 0.1}]
  (folder / "policy").mkdir()
  (folder / "policy" / "metrics.jsonl").write_text(
    "".join(json.dumps(line) + "\n" for line in lines)
  )
  (folder / "motion" / "metrics.jsonl").write_text(
    json.dumps({"step": 3, "kind": "train", "loss": 2.5, "psnr": 20.0})
    + "\n"
    + json.dumps({"step": 3, "kind": "validation", "s_pcfc": 0.5, "psnr": 21.0})
    + "\n"
  )
  write(folder / "policy" / "speed.json", {"steps": 300, "examples_per_s": 42.0})
  write(folder / "rollout" / "results.json", RESULTS)
  write(folder / "serve" / "serve.json", SERVED)
  write(folder / "quickstart.json", {"source": "bundled"})
  for name in ("a.mp4", "b.mp4"):
    makers.write_video(folder / "rollout" / name, 12)
  return folder
