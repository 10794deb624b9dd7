"""What launch/gke.py would do, word for word, and what it refuses."""

import shlex

import pytest
import yaml

from tests.launch.dry_run import PROGRAM, ROOT, launch

IMAGE = "--image=us-docker.pkg.dev/p/como/como_jax:1"
GKE = ["--name=first", IMAGE, "--claim=runs", "--at=/mnt/my runs"]


def jobset(*words):
  done = launch("gke.py", *words, "--", *PROGRAM)
  text, _, rest = done.stdout.partition("\n\nkubectl ")
  return yaml.safe_load(text), "kubectl " + rest


def test_gke_jobset():
  found, rest = jobset(*GKE, "--type=v5e-16x2", "--spot", "--env=TEXT=a: 'b' $(c)\n#d")
  spec = found["spec"]
  assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (
    "jobset.x-k8s.io/v1alpha2",
    "JobSet",
    "first",
  )
  assert spec["failurePolicy"] == {
    "maxRestarts": 20,
    "rules": [
      {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
      {
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["BackoffLimitExceeded"],
      },
    ],
  }
  (job,) = spec["replicatedJobs"]
  assert job["replicas"] == 2 and (
    job["template"]["spec"]["parallelism"],
    job["template"]["spec"]["completions"],
  ) == (4, 4)
  final, preempted = job["template"]["spec"]["podFailurePolicy"]["rules"]
  assert final["action"] == "FailJob" and final["onExitCodes"]["values"] == [2, 3]
  assert preempted == {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
  }
  pod = job["template"]["spec"]["template"]["spec"]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "4x4",
    "cloud.google.com/gke-spot": "true",
  }
  (container,) = pod["containers"]
  assert container["command"] == [
    "python",
    "launch/supervise.py",
    "--go-on",
    "--restarts-per-hour=0",
    "--",
    "python",
    "-m",
    "como_jax.main",
    *PROGRAM,
    "--expect=tpu",
  ]
  assert container["env"] == [
    {"name": "COMO_JAX_DISTRIBUTED", "value": "1"},
    {"name": "PYTHONUNBUFFERED", "value": "1"},
    # Kubernetes makes one $ of two
    {"name": "TEXT", "value": "a: 'b' $$(c)\n#d"},
  ]
  assert (
    container["resources"]["limits"] == {"google.com/tpu": 4}
    and pod["restartPolicy"] == "Never"
    and pod["hostNetwork"] is True
  )
  assert pod["volumes"][1] == {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
  assert container["volumeMounts"][1] == {"name": "runs", "mountPath": "/mnt/my runs"}
  lines = rest.splitlines()
  assert lines[0] == "kubectl apply --namespace=default --filename=gke-first.yaml"
  xpk = shlex.split(rest[rest.index("xpk workload") :])
  assert {
    "--tpu-type=v5litepod-16",
    "--num-slices=2",
    "--max-restarts=20",
    "--restart-on-exit-codes=1,75",
    "--spot",
    "--storage=runs",
  } <= set(xpk)
  assert shlex.split(xpk[-1].removeprefix("--command="))[-4:] == [*PROGRAM, "--expect=tpu"]


def test_without_a_volume_for_the_ledger_restarts_are_bounded():
  words = ["--name=first", IMAGE, "--type=v5e-16", "--restarts=7"]
  found, _ = jobset(*words)
  assert found["spec"]["failurePolicy"] == {
    "maxRestarts": 7,
    "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
  }


@pytest.mark.parametrize(
  "kind, hosts, chips, topology, label",
  [
    ("v5e-1", 1, 1, "1x1", "tpu-v5-lite-podslice"),
    ("v5e-8", 1, 8, "2x4", "tpu-v5-lite-podslice"),
    ("v5e-256", 64, 4, "16x16", "tpu-v5-lite-podslice"),
    ("v6e-64", 16, 4, "8x8", "tpu-v6e-slice"),
    ("v4-32", 4, 4, "2x2x4", "tpu-v4-podslice"),
    ("v5p-128", 16, 4, "4x4x4", "tpu-v5p-slice"),
    ("tpu7x-32", 4, 4, "2x2x4", "tpu7x"),
    ("v5litepod-16", 4, 4, "4x4", "tpu-v5-lite-podslice"),
  ],
)
def test_gke_kinds_of_slices(kind, hosts, chips, topology, label):
  found, _ = jobset(*GKE, f"--type={kind}")
  (job,) = found["spec"]["replicatedJobs"]
  pod = job["template"]["spec"]["template"]["spec"]
  assert job["template"]["spec"]["completions"] == hosts and "hostNetwork" not in pod
  assert pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == chips
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": label,
    "cloud.google.com/gke-tpu-topology": topology,
  }


def test_gke_bucket():
  found, _ = jobset(
    "--name=first",
    IMAGE,
    "--bucket=b",
    "--at=/mnt/my runs",
    "--type=v5e-8",
    "--chips-per-host=4",
    "--service-account=s",
  )
  template = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
  assert found["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == 2
  assert (
    template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    and template["spec"]["serviceAccountName"] == "s"
  )
  assert template["spec"]["volumes"][1]["csi"]["volumeAttributes"]["bucketName"] == "b"


@pytest.mark.parametrize(
  "words, says",
  [
    (["--name=First", IMAGE, "--type=v5e-16"], "'first'"),
    (["--name=first", "--image=a b", "--type=v5e-16"], "--image='a b'"),
    (
      ["--name=first", IMAGE, "--type=v5e-16", "--claim=a", "--bucket=b", "--at=/mnt"],
      "exclude each other",
    ),
    (["--name=first", IMAGE, "--type=v5e-16", "--claim=a"], "--at=DIRECTORY goes with"),
    (["--name=first", IMAGE, "--type=v5e-16", "--claim=a", "--at=/other"], "is not below --at"),
    (["--name=first", IMAGE, "--type=v5e-16", "--env=a"], "expected NAME=VALUE"),
    (["--name=first", IMAGE, "--tpe=v5e-16", "--type=v5e-16"], "did you mean '--type'?"),
  ],
)
def test_gke_refuses(words, says):
  done = launch("gke.py", *words, "--", *PROGRAM, code=2)
  assert says in done.stderr and done.stderr.count("\n") == 1


def test_gke_image_holds_what_a_pod_runs():
  text = (ROOT / "launch" / "Dockerfile").read_text()
  for folder in ("como_jax", "configs", "launch"):
    assert f"COPY {folder} {folder}" in text
  assert (
    ROOT / "requirements-tpu.txt"
  ).is_file() and "ARG REQUIREMENTS=requirements-tpu.txt" in text
