r"""Does openpi's own client work with a running server?

Handshake, inference, a bad message, recovery, chunk broker, health, latency.

python -m como_jax.main --config=configs/serve.py --config.checkpoint=RUN_DIR \
    --config.preset=libero &
python benchmarks/openpi_client.py --port 8000 --preset libero
    with a Python that has openpi-client, e.g.
    python3.11 -m venv openpi && openpi/bin/pip install openpi-client typing_extensions (its numpy
    is older than jax allows)
Prints one line per check, and the p50 and p99 of the round trip. The exit code is 1 when a check
fails. Needs only numpy and openpi_client.
"""

import argparse
import sys
import time
import urllib.request

import numpy as np

# removes this file's folder, where this file would hide the package of the same name
sys.path.pop(0)
from openpi_client import action_chunk_broker, websocket_client_policy


def observation(preset: str, metadata: dict, size: int, rng: np.random.Generator) -> dict:
  """Builds the observation that openpi's example client of a preset sends.

  Args:
    preset: name of the client.
    metadata: of the server.
    size: of the images, pixels.
    rng: of the values.
  """

  def image(*shape):
    return rng.integers(0, 256, shape, np.uint8)

  state = rng.normal(size=metadata.get("state_dim") or {"libero": 8, "aloha": 14}.get(preset, 8))
  if preset == "libero":
    return {
      "observation/image": image(size, size, 3),
      "observation/wrist_image": image(size, size, 3),
      "observation/state": state,
      "prompt": "put the bowl on the plate",
    }
  if preset == "droid":
    return {
      "observation/exterior_image_1_left": image(size, size, 3),
      "observation/wrist_image_left": image(size, size, 3),
      "observation/joint_position": state[:-1],
      "observation/gripper_position": state[-1:],
      "prompt": "open the drawer",
    }
  if preset == "aloha":
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    return {
      "images": {name: image(3, size, size) for name in cameras},
      "state": state,
      "prompt": "transfer the cube",
    }
  return {
    **{key: image(size, size, 3) for key in metadata["camera_keys"]},
    "observation.state": state,
    "task": "reach",
  }


def main() -> int:
  """Runs the checks; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--host", default="127.0.0.1")
  parser.add_argument("--port", type=int, default=8000)
  parser.add_argument("--preset", choices=("libero", "droid", "aloha", "como"), default="libero")
  parser.add_argument("--requests", type=int, default=100)
  parser.add_argument("--size", type=int, default=224, help="pixels of a side")
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  policy = websocket_client_policy.WebsocketClientPolicy(options.host, options.port)
  metadata = policy.get_server_metadata()
  print(f"handshake: {metadata}")
  if metadata.get("preset", options.preset) != options.preset:
    print(f"FAILED: the server's preset is {metadata['preset']!r}")
    return 1

  passed = []

  def check(name: str, good: bool, text: str = "") -> None:
    passed.append(good)
    print(f"{'ok' if good else 'FAILED'}: {name} {text}", flush=True)

  times, reply, message = [], {}, observation(options.preset, metadata, options.size, rng)
  for _ in range(options.requests):
    begin = time.perf_counter()
    reply = policy.infer(message)
    times.append(1e3 * (time.perf_counter() - begin))
  actions = reply["actions"]
  shape = (metadata.get("chunk", len(actions)), metadata.get("action_dim", actions.shape[-1]))
  check(
    "actions",
    actions.shape == shape and bool(np.isfinite(actions).all()),
    f"{actions.dtype} {list(actions.shape)}",
  )
  check(
    "timing",
    {"infer_ms", "prev_total_ms"} <= set(reply["server_timing"])
    and "infer_ms" in reply["policy_timing"],
  )
  p50, p99 = np.percentile(times, [50, 99])
  print(
    f"round trip of {options.requests} requests: p50 {p50:.2f} ms, p99 {p99:.2f} ms; "
    f"the policy took {reply['policy_timing']['infer_ms']:.2f} ms of the last"
  )

  for name, bad in (
    (
      "missing key",
      {key: value for key, value in message.items() if "state" not in key and "joint" not in key},
    ),
    ("text array", {**message, "prompt": np.array("text")}),
  ):
    try:
      policy.infer(bad)
      check(f"bad message, {name}", False, "was accepted")
    except RuntimeError as error:
      text = str(error).splitlines()
      check(f"bad message, {name}", len(text) == 2 and "Traceback" not in str(error), text[-1])
    check("answers the next good message", policy.infer(message)["actions"].shape == shape)

  broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=shape[0])
  chunk = np.stack([broker.infer(message)["actions"] for _ in range(shape[0])])
  check("chunk broker", chunk.shape == shape)
  with urllib.request.urlopen(f"http://{options.host}:{options.port}/healthz", timeout=5) as answer:
    check("health", answer.status == 200 and answer.read().startswith(b"OK"))
  return 0 if all(passed) else 1


if __name__ == "__main__":
  sys.exit(main())
