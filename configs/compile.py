r"""Plans a run without the hardware: does it fit, what does a step cost, what crosses the networks.

It compiles; it reads no data and no weights.

python -m como_jax.main --config=configs/compile.py --config.topology=v5e-256 \
    --config.of=configs/motion.py --config.batch_per_device=8
    published motion model on 256 chips: 1 CPU core, 1.5 GB, about a minute a program (needs pip
    install "libtpu==0.0.42.*", no TPU)
python -m como_jax.main --config=configs/compile.py:debug
    the small model on 8 CPU devices: under a minute, no libtpu

Topologies: v5e-N, v6e-N (chips), v4-N, v5p-N, tpu7x-N (cores), v5p-128x2 (two slices), cpu-N,
h100-8, h200-8x4, a100-1 (GPUs of a node, x nodes). A plan for GPUs needs no compiler of theirs: CPU
devices stand in, so its temporaries are an estimate and its traffic through memory is unknown.
`changes` are those of the planned config, for example
    --config.changes="train.mesh.data=2 train.mesh.fsdp=-1 model.remat=full"
Compare slices with one batch_per_device. Writes plan.json and plan.md into the workdir. Results:
benchmarks/results/2026-11-26-compile-plans.md
"""

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, debug."""
  debug = config_lib.variant(arg, ("default", "debug"), default="default") == "debug"
  return config_lib.ConfigDict(
    dict(
      task="compile",
      # a training config, with its argument
      of="configs/motion.py:debug" if debug else "configs/motion.py",
      changes="",  # keys of it: "train.accumulate=2 model.remat=full"
      topology="cpu-8" if debug else "v5e-16",
      programs=("train", "extract", "policy"),  # those that the config has
      # rows of a device in a train step; 0 = the config's train.batch_size over all
      batch_per_device=0,
      extract_batch=32,  # frames of a device in a pass of extraction, on one host
      policy_batch=1,  # observations in a call of the policy, on one chip
      largest=False,  # also look for the largest batch that fits: some ten compiles
      memory=0.0,  # GiB a device can use; 0 = what the chip has (a CPU: no limit)
      # of the compiler: -1 is some six times faster than 0, its default, which needs about a tenth
      # more memory
      effort=-1.0,
      # measured on a machine of this kind: a run's folder, a page of benchmarks/train_step.py, or a
      # .json of rates (assembly/plan_calibration.py); "" = the plan has no likely time
      calibration="",
      # where utilization is low, also compile other batches, machines, meshes and clips
      proposals=False,
    )
  )
