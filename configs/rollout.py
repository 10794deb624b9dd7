r"""Closed-loop success of a policy in a simulator.

python -m como_jax.main --config=configs/rollout.py --config.checkpoint=RUN \
    --config.tasks="('reach','push')"
    Meta-World (pip install -r requirements-sim.txt): 50 episodes a task
python -m como_jax.main --config=configs/rollout.py:libero --config.checkpoint=RUN \
    --config.tasks="('libero_10',)"
    a suite of LIBERO, 50 episodes a task from its 50 fixed initial states; also :pusht, :fetch
python -m como_jax.main --config=configs/rollout.py --config.policy=expert \
    --config.tasks="('reach',)"
    scripted expert, random or zero
python -m como_jax.main --config=configs/rollout.py:debug
    2 episodes of the expert with video: 20 seconds
Writes results.json (success with intervals, every episode, versions, hashes), eval_info.json
(LeRobot's layout), episodes.jsonl (a line as each episode ends: --resume plays what is missing) and
videos/. Episode e starts from seed + e, so two runs with equal seed, episodes and scene can be
compared in pairs.
"""

import ml_collections

from como_jax import config as config_lib

# What differs between simulators: tasks (or suites; () = all), image size of their data, further
# arguments of `build`.
SIMULATORS = {
  "metaworld": dict(tasks=("reach",), image_size=128, build={}),
  # or limits="openpi"
  "libero": dict(
    tasks=("libero_spatial",), image_size=256, build=dict(initial="fixed", limits="lerobot")
  ),
  "pusht": dict(tasks=(), image_size=96, build={}),
  "fetch": dict(tasks=(), image_size=128, build={}),
}


def get_config(arg=None):
  """Variants: metaworld (default), libero, pusht, fetch, debug."""
  name = config_lib.variant(arg, (*SIMULATORS, "debug"), default="metaworld")
  simulator = "metaworld" if name == "debug" else name
  placeholder = ml_collections.config_dict.placeholder
  config = config_lib.ConfigDict(
    dict(
      task="rollout",
      seed=0,
      policy="checkpoint",  # or expert | random | zero, which need no checkpoint
      checkpoint="",  # run directory or weights folder of a policy
      robot="",  # which of the checkpoint's robots; "" = the only one
      num_sampling_steps=placeholder(int),  # of the sampler; None: as configured in the checkpoint
      # weight of the instruction; None: as configured in the checkpoint
      guidance_scale=placeholder(float),
      simulator=simulator,
      **SIMULATORS[simulator],
      # the simulator's camera for each of the policy's slots; () = those of the same names
      cameras=(),
      scene=0,  # appearance; 0 = the simulator's own
      episodes=50,  # a task
      max_steps=0,  # control steps after which an episode has failed; 0 = the simulator's limit
      # time an action is held; 0 = as the checkpoint was trained (0.05 without one)
      step_seconds=0.0,
      # elements of a chunk executed before the policy is asked again; 0 = the whole chunk
      execute=0,
      # decay of the average over overlapping chunks (0.01 in ACT, with execute=1); 0 = off
      ensemble=0.0,
      workers=2,  # simulator processes, and the batch size of the policy
      videos=0,  # episodes a task to record
      timeout=300.0,  # seconds without a word from a worker after which it is replaced
    )
  )
  if name == "debug":
    config.policy, config.episodes, config.workers, config.videos, config.image_size = (
      "expert",
      2,
      1,
      1,
      64,
    )
  return config
