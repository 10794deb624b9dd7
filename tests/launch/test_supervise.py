"""The restart supervisor with tiny programs: what it restarts, what it does not, and what it leaves
behind.
"""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest
import supervise as supervise_lib

from como_jax.train import watchdog
from tests import limits
from tests.launch import fake

ROOT = pathlib.Path(__file__).parent.parent.parent
FAKE = pathlib.Path(__file__).parent / "fake.py"
QUICK = ("--first-pause=0.01", "--longest-pause=0.05")


def command(folder, plan, *options, words=()):
  workdir = folder / "a run"
  return [
    sys.executable,
    str(ROOT / "launch" / "supervise.py"),
    f"--workdir={workdir}",
    *QUICK,
    *options,
    "--",
    sys.executable,
    "-S",
    str(FAKE),
    str(workdir),
    plan,
    *words,
  ]


def environment(**changes):
  return {
    **{key: value for key, value in os.environ.items() if not key.startswith("COMO_JAX_")},
    **changes,
  }


def supervise(folder, plan, *options, words=(), code=0, **changes):
  done = subprocess.run(
    command(folder, plan, *options, words=words),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
    env=environment(**changes),
  )
  assert done.returncode == code, done.stdout + done.stderr
  return ledger(folder), starts(folder), done


def ledger(folder):
  return [json.loads(line) for line in (folder / "a run.supervise.jsonl").read_text().splitlines()]


def starts(folder):
  return (folder / "a run.starts").read_text().split("\n")[:-1]


def ends(lines):
  return [line for line in lines if line["event"] == "end"]


def test_a_run_that_works_is_started_once(tmp_path):
  lines, times, _ = supervise(tmp_path, "done")
  assert times == [""] and [line["event"] for line in lines] == ["start", "end"]
  assert (
    ends(lines)[0]["code"] == 0
    and ends(lines)[0]["reason"] == "done"
    and lines[0]["resume"] is False
  )
  assert (tmp_path / "a run").is_dir()  # the ledger lies beside it


def test_crashes_with_progress_between_are_restarted_with_resume(tmp_path):
  lines, times, _ = supervise(tmp_path, "crash@3,die@5,stop@8,crash@9,done")
  assert times == ["", "--resume", "--resume", "--resume", "--resume"]
  assert [line["code"] for line in ends(lines)] == [1, 137, 143, 1, 0]
  assert [line["step"] for line in ends(lines)] == [3, 5, 8, 9, 9]
  assert ends(lines)[1]["reason"] == "signal SIGKILL" and ends(lines)[0]["next"].startswith(
    "restart in"
  )


def test_a_crash_at_the_same_step_twice_is_deterministic(tmp_path):
  lines, times, done = supervise(tmp_path, "crash@3,crash@5,crash@5,done", code=3)
  assert len(times) == 3 and "deterministic: twice in a row at step 5" in ends(lines)[-1]["reason"]
  assert "deterministic" in done.stderr


def test_a_crash_before_any_step_is_deterministic_too(tmp_path):
  lines, times, _ = supervise(tmp_path, "crash,crash,done", code=3)
  assert len(times) == 2 and ends(lines)[-1]["step"] is None


def test_death_by_signal_at_the_same_step_is_not_deterministic_but_not_tried_for_ever(tmp_path):
  lines, times, _ = supervise(tmp_path, "die@5", "--stuck=3", code=3)
  assert len(times) == 4  # the first moved to step 5, three more did not
  assert "3 ends without a step after 5" in ends(lines)[-1]["reason"]


def test_signal_between_crashes_at_the_same_step_is_not_deterministic(tmp_path):
  lines, _, _ = supervise(tmp_path, "crash@5,die@5,crash@5,done")
  assert [line["code"] for line in ends(lines)] == [1, 137, 1, 0]


def test_restarts_in_an_hour_are_limited(tmp_path):
  plan = ",".join(f"crash@{i}" for i in range(1, 9))
  lines, times, _ = supervise(tmp_path, plan, "--restarts-per-hour=4", code=3)
  assert len(times) == 5 and "restarted 4 times within an hour" in ends(lines)[-1]["reason"]


def test_without_restarts_the_code_is_passed_on(tmp_path):
  lines, times, _ = supervise(tmp_path, "die@5", "--restarts-per-hour=0", code=137)
  assert len(times) == 1 and ends(lines)[0]["next"] == "leave with 137"


def test_bad_input_is_not_restarted(tmp_path):
  lines, times, _ = supervise(tmp_path, "crash@1,bad,done", code=2)
  assert len(times) == 2 and ends(lines)[-1]["reason"] == "bad input"


def test_what_is_transient_is_restarted_without_limit(tmp_path):
  plan = ",".join(["later", "stop@2"] * 7 + ["crash@3", "later", "done"])
  bounds = ("--stuck=2", "--restarts-per-hour=1")
  lines, times, _ = supervise(tmp_path, plan, *bounds)
  assert len(times) == 17 and ends(lines)[0]["reason"] == "exit code 75, transient"


def test_an_abort_is_transient_for_one_of_several_processes_only(tmp_path):
  plan = ",".join(["abort"] * 4 + ["done"])
  _, times, _ = supervise(tmp_path, plan, "--stuck=2", code=3)
  assert len(times) == 2
  several = command(tmp_path / "b", plan, "--stuck=2", "--settle=0")
  (tmp_path / "b").mkdir()
  env = environment(COMO_JAX_DISTRIBUTED="1")
  subprocess.run(several, check=True, timeout=limits.SAFETY_NET, env=env, capture_output=True)
  assert len(starts(tmp_path / "b")) == 5


def test_a_loss_that_is_not_finite_is_not_tried_again(tmp_path):
  lines, times, _ = supervise(tmp_path, "crash@1,nan,done", code=3)
  assert len(times) == 2 and ends(lines)[-1]["reason"] == "exit code 3, deterministic"


def test_a_scheduler_that_restarts_for_ever_is_stopped(tmp_path):
  options = ("--go-on", "--restarts-per-hour=0", "--stuck=3")
  plan = "die@5,die@5,later,die@5,die@5"
  for code in (137, 137, 75, 137):
    supervise(tmp_path, plan, *options, code=code)
  lines, _, _ = supervise(tmp_path, plan, *options, code=3)
  assert "3 ends without a step after 5" in ends(lines)[-1]["reason"]
  # somebody has mended it and starts it again: it has all its tries
  supervise(tmp_path, plan, *options, code=137)


def test_survivors_of_a_lost_process_are_never_called_deterministic(tmp_path):
  lines, times, _ = supervise(tmp_path, "lost,abort,lost,abort,done")  # before any step is logged
  assert len(times) == 5 and [line["code"] for line in ends(lines)] == [75, 134, 75, 134, 0]
  assert not any("deterministic" in line["reason"] for line in ends(lines))


def test_what_a_killed_run_leaves_behind_is_ended(tmp_path):
  lines, _, _ = supervise(tmp_path, "leave@2,done")
  assert [line["code"] for line in ends(lines)] == [137, 0]
  assert not fake.lives(int((tmp_path / "a run.left").read_text()))


def test_a_directory_in_use_is_refused_by_the_run_itself(tmp_path):
  (tmp_path / "a run").mkdir()
  (tmp_path / "a run" / "config.json").write_text("{}")
  (tmp_path / "a run" / "versions.json").write_text("{}")
  _, times, _ = supervise(tmp_path, "done", code=2)
  assert times == [""]
  _, times, _ = supervise(tmp_path, "done", "--go-on")  # what a scheduler's second start says
  assert times == ["", "--resume"]


def test_a_second_supervisor_remembers_the_crash_before_it(tmp_path):
  supervise(tmp_path, "crash@5", "--go-on", "--restarts-per-hour=0", code=1)
  lines, times, _ = supervise(tmp_path, "crash@5", "--go-on", "--restarts-per-hour=0", code=3)
  assert times == ["", "--resume"] and "deterministic" in ends(lines)[-1]["reason"]


def test_overwrite_is_said_once_and_what_it_was_to_delete_is_not_resumed(tmp_path):
  run = tmp_path / "a run"
  run.mkdir()
  for name in ("config.json", "versions.json"):
    (run / name).write_text("{}")
  script = tmp_path / "two"  # dies before it has deleted the old run, then after
  script.write_text(f'''#!/bin/sh
echo "$*" >> "{tmp_path}/words"
case $(wc -l < "{tmp_path}/words") in
  1) kill -9 $$ ;;
  2) rm "{run}/config.json"; echo new > "{run}/config.json"; kill -9 $$ ;;
esac
''')
  script.chmod(0o755)
  words = [
    sys.executable,
    str(ROOT / "launch" / "supervise.py"),
    *QUICK,
    "--",
    str(script),
    "--workdir",
    str(run),
    "--overwrite",
  ]
  subprocess.run(
    words, check=True, timeout=limits.SAFETY_NET, env=environment(), capture_output=True
  )
  said = (tmp_path / "words").read_text().splitlines()
  assert [line.split()[-1] for line in said] == [
    "--overwrite",
    "--overwrite",
    "--resume",
  ] and "--overwrite" not in said[2]


def started(folder, plan, *options, **changes):
  process = subprocess.Popen(
    command(folder, plan, *options), stderr=subprocess.PIPE, text=True, env=environment(**changes)
  )
  assert limits.wait_until((folder / "a run" / "metrics.jsonl").exists, while_alive=process)
  return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_the_supervision(tmp_path, number):
  process = started(tmp_path, "wait,done")
  process.send_signal(number)
  process.wait(timeout=limits.SAFETY_NET)
  expected = 143 if number == signal.SIGTERM else 130
  assert process.returncode == expected and len(starts(tmp_path)) == 1
  assert ends(ledger(tmp_path))[-1]["reason"].endswith(f"after {number.name} was passed on")


def test_sigterm_between_two_starts_leaves_at_once(tmp_path):
  process = started(tmp_path, "crash@2,done", "--settle=30")
  assert limits.wait_until(lambda: ends(ledger(tmp_path)))
  process.send_signal(signal.SIGTERM)
  process.wait(timeout=limits.SAFETY_NET)
  assert (
    process.returncode == 143
    and len(starts(tmp_path)) == 1
    and ledger(tmp_path)[-1]["event"] == "leave"
  )


def test_usr1_means_no_more_restarts(tmp_path):
  process = started(tmp_path, "wait,done")
  process.send_signal(signal.SIGUSR1)
  time.sleep(0.1)
  assert process.poll() is None
  os.kill(
    next(line["pid"] for line in ledger(tmp_path) if line["event"] == "start"), signal.SIGTERM
  )
  process.wait(timeout=limits.SAFETY_NET)
  assert process.returncode == 143 and len(starts(tmp_path)) == 1


def test_a_killed_child_is_restarted_and_a_killed_supervisor_keeps_its_lock(tmp_path):
  process = started(tmp_path, "wait,wait,done")
  first = ledger(tmp_path)[0]["pid"]
  os.kill(first, signal.SIGKILL)
  assert limits.wait_until(lambda: len(starts(tmp_path)) > 1)
  process.kill()
  process.wait(timeout=limits.SAFETY_NET)
  done = subprocess.run(
    command(tmp_path, "done"),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
    env=environment(),
  )
  # its command lives on and would be doubled
  assert done.returncode == 2 and "is in use" in done.stderr
  os.kill(
    [line["pid"] for line in ledger(tmp_path) if line["event"] == "start"][-1], signal.SIGKILL
  )
  time.sleep(0.1)
  _, times, _ = supervise(tmp_path, "wait,wait,done", "--go-on")
  assert times[-1] == "--resume"


def test_leave_when_stopped(tmp_path):
  _, times, _ = supervise(tmp_path, "stop@4,done", "--leave-when-stopped", code=143)
  assert times == [""]


def test_one_of_several_processes_waits_for_the_others_and_has_its_own_ledger(tmp_path):
  done = subprocess.run(
    command(tmp_path, "done", "--dry-run"),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
    env=environment(COMO_JAX_DISTRIBUTED="1", COMO_JAX_HEARTBEAT_SECONDS="50"),
  )
  assert (
    done.returncode == 0
    and "at least 70 s" in done.stdout
    and f"supervise-{os.uname().nodename}.jsonl" in done.stdout
  )


def test_dry_run_starts_nothing(tmp_path):
  done = subprocess.run(
    command(tmp_path, "done", "--dry-run", words=("--config.tasks=('a','b')",)),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
    env=environment(),
  )
  assert done.returncode == 0 and not list(tmp_path.iterdir())
  first = next(line for line in done.stdout.splitlines() if line.startswith("would start: "))
  assert shlex.split(first.partition(": ")[2])[-2:] == ["done", "--config.tasks=('a','b')"]
  assert "--resume" in done.stdout and "ledger: " in done.stdout


@pytest.mark.parametrize(
  "words, says",
  [
    (["--", "true"], "--workdir is missing"),
    (["--workdir=x"], "expected a command after --"),
    (["--stuk=3", "--workdir=x", "--", "true"], "did you mean '--stuck'?"),
    (["--go-on", "--", "true", "--workdir=x", "--overwrite"], "exclude each other"),
  ],
)
def test_bad_arguments(words, says, tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / "launch" / "supervise.py"), *words],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_a_command_that_does_not_exist(tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / "launch" / "supervise.py"), "--workdir=x", "--", "no-such-program"],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.returncode == 2 and "no-such-program: No such file" in done.stderr


def test_the_run_knows_that_somebody_starts_it_again(tmp_path):
  assert supervise_lib.SUPERVISED == watchdog.SUPERVISED
  told = tmp_path / "told"
  words = [sys.executable, str(ROOT / "launch" / "supervise.py"), f"--workdir={tmp_path}/run", "--"]
  subprocess.run(
    [*words, "sh", "-c", f'echo "${watchdog.SUPERVISED}" > "{told}"'],
    check=True,
    timeout=limits.SAFETY_NET,
    env=environment(),
    capture_output=True,
  )
  assert told.read_text() == "1\n"
