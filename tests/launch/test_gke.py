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
  check_fields(found)
  spec = found["spec"]
  assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (
    "jobset.x-k8s.io/v1alpha2",
    "JobSet",
    "first",
  )
  assert spec["failurePolicy"] == {
    "maxRestarts": 20,
    "rules": [
      {
        "name": "deterministic",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
      },
      {
        "name": "transient",
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
  assert container["resources"]["requests"] == {"google.com/tpu": 4, "cpu": "32", "memory": "96Gi"}
  assert container["imagePullPolicy"] == "IfNotPresent" and "labels" not in found["metadata"]
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


# Fields of jobset.x-k8s.io/v1alpha2, batch/v1 and v1 that a JobSet of ours may have.
FIELDS = {
  "": {"apiVersion", "kind", "metadata", "spec"},
  "metadata": {"name", "namespace", "annotations", "labels"},
  "spec": {"network", "failurePolicy", "replicatedJobs"},
  "network": {"enableDNSHostnames", "publishNotReadyAddresses"},
  "failurePolicy": {"maxRestarts", "rules"},
  "failurePolicy.rules": {"name", "action", "onJobFailureReasons"},
  "replicatedJobs": {"name", "replicas", "template"},
  "job": {
    "parallelism",
    "completions",
    "completionMode",
    "backoffLimit",
    "podFailurePolicy",
    "template",
  },
  "podFailurePolicy.rules": {"action", "onExitCodes", "onPodConditions"},
  "pod": {
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "nodeSelector",
    "tolerations",
    "serviceAccountName",
    "hostNetwork",
    "dnsPolicy",
    "containers",
    "volumes",
  },
  "tolerations": {"key", "operator", "effect"},
  "containers": {"name", "image", "imagePullPolicy", "command", "env", "resources", "volumeMounts"},
  "resources": {"requests", "limits"},
  "volumes": {"name", "emptyDir", "persistentVolumeClaim", "csi"},
  "volumeMounts": {"name", "mountPath"},
}


def check_fields(found):
  """Every field of a JobSet is one of the API, and every text a text."""
  job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  places = [
    ("", found),
    ("metadata", found["metadata"]),
    ("spec", found["spec"]),
    ("network", found["spec"]["network"]),
    ("failurePolicy", found["spec"]["failurePolicy"]),
    *(("failurePolicy.rules", rule) for rule in found["spec"]["failurePolicy"]["rules"]),
    *(("replicatedJobs", one) for one in found["spec"]["replicatedJobs"]),
    ("job", job),
    *(("podFailurePolicy.rules", rule) for rule in job["podFailurePolicy"]["rules"]),
    ("pod", pod),
    *(("tolerations", one) for one in pod["tolerations"]),
    ("containers", container),
    ("resources", container["resources"]),
    *(("volumes", one) for one in pod["volumes"]),
    *(("volumeMounts", one) for one in container["volumeMounts"]),
  ]
  for place, value in places:
    assert set(value) <= FIELDS[place], place
  assert all(rule["name"] for rule in found["spec"]["failurePolicy"]["rules"]), "required"
  assert {one["name"] for one in container["volumeMounts"]} == {
    one["name"] for one in pod["volumes"]
  }
  for one in container["env"]:
    assert isinstance(one.get("value", ""), str) and set(one) in (
      {"name", "value"},
      {"name", "valueFrom"},
    )
  assert all(isinstance(word, str) for word in container["command"])
  assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]


def test_gke_nodes_of_gpus():
  """One process on each node, which finds the first by the name that JobSet gives its pod."""
  found, rest = jobset(
    *GKE,
    "--type=h100-8x2",
    "--spot",
    "--queue=team-a",
    "--pull=Always",
    "--cache=/mnt/my runs/xla",
    "--env=NCCL_DEBUG=INFO",
  )
  check_fields(found)
  assert found["metadata"] == {
    "name": "first",
    "namespace": "default",
    "labels": {"kueue.x-k8s.io/queue-name": "team-a"},
  }
  (job,) = found["spec"]["replicatedJobs"]
  assert (job["name"], job["replicas"], job["template"]["spec"]["completions"]) == ("node", 1, 2)
  pod = job["template"]["spec"]["template"]["spec"]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
    "cloud.google.com/gke-spot": "true",
  }
  assert [one["key"] for one in pod["tolerations"]] == [
    "nvidia.com/gpu",
    "cloud.google.com/gke-spot",
  ]
  assert pod["volumes"][0] == {"name": "memory", "emptyDir": {"medium": "Memory"}}
  (container,) = pod["containers"]
  assert container["volumeMounts"][0] == {"name": "memory", "mountPath": "/dev/shm"}
  assert container["resources"] == {
    "requests": {"nvidia.com/gpu": 8, "cpu": "64", "memory": "1024Gi"},
    "limits": {"nvidia.com/gpu": 8},
  }
  assert container["imagePullPolicy"] == "Always" and "hostNetwork" not in pod
  assert container["command"][-2:] == ["--workdir=/mnt/my runs/first", "--expect=gpu:16"]
  index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  assert container["env"] == [
    {"name": "NCCL_DEBUG", "value": "INFO"},
    {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
    {"name": "COMO_JAX_COORDINATOR", "value": "first-node-0-0.first:8476"},
    {"name": "COMO_JAX_PROCESSES", "value": "2"},
    {"name": "COMO_JAX_PROCESS_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    {"name": "PYTHONUNBUFFERED", "value": "1"},
    {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/my runs/xla"},
  ]
  assert "xpk" not in rest


@pytest.mark.parametrize(
  "kind, label, count, memory",
  [
    ("h100-1", "nvidia-h100-80gb", 1, "128Gi"),
    ("h100-mega-8", "nvidia-h100-mega-80gb", 8, "1024Gi"),
    ("h200-8", "nvidia-h200-141gb", 8, "1024Gi"),
    ("a100-4", "nvidia-a100-80gb", 4, "512Gi"),
  ],
)
def test_gke_kinds_of_gpus(kind, label, count, memory):
  found, _ = jobset(*GKE, f"--type={kind}")
  check_fields(found)
  pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
  assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": label}
  (container,) = pod["containers"]
  assert container["resources"]["requests"]["memory"] == memory
  assert container["command"][-1] == f"--expect=gpu:{count}"
  names = [one["name"] for one in container["env"]]
  assert not [name for name in names if name.startswith("COMO_JAX_")], "one process needs no others"


def test_gke_requests_and_the_cache_of_tpus():
  found, rest = jobset(
    *GKE, "--type=v5e-16x2", "--cpu=100", "--memory=150Gi", "--cache=/mnt/my runs/xla"
  )
  check_fields(found)
  (container,) = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
    "containers"
  ]
  assert container["resources"] == {
    "requests": {"google.com/tpu": 4, "cpu": "100", "memory": "150Gi"},
    "limits": {"google.com/tpu": 4},
  }
  assert {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/my runs/xla"} in container["env"]
  assert "'--env=JAX_COMPILATION_CACHE_DIR=/mnt/my runs/xla'" in rest
  assert found["metadata"]["annotations"] == {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
  }


def test_without_a_volume_for_the_ledger_restarts_are_bounded():
  words = ["--name=first", IMAGE, "--type=v5e-16", "--restarts=7"]
  found, _ = jobset(*words)
  assert found["spec"]["failurePolicy"] == {
    "maxRestarts": 7,
    "rules": [
      {"name": "deterministic", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ],
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
    (["--name=first", IMAGE, "--type=h100-9"], "did you mean 'h100-8'?"),
    (["--name=first", IMAGE, "--type=h100-8x0"], "at least one node"),
    (["--name=first", IMAGE, "--type=h200-8", "--slices=2"], "are for TPUs: say --type=h100-8x2"),
    (["--name=first", IMAGE, "--type=v5e-16", "--cpu=many"], "--cpu='many': expected an amount"),
    (["--name=first", IMAGE, "--type=v5e-16", "--memory=9GB"], "--memory='9GB': expected an"),
    (["--name=first", IMAGE, "--type=v5e-16", "--cache=gs://b/x"], "mount a bucket and give the"),
    (["--name=first", IMAGE, "--type=v5e-16", "--cache=runs/x"], "expected an absolute path"),
    (["--name=first", IMAGE, "--type=v5e-16", "--queue=A"], "--queue 'A'"),
    (["--name=first", IMAGE, "--type=v5e-16", "--pull=never"], "invalid choice: 'never'"),
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
