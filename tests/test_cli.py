"""The command `como-jax`: its words, the list, and how words become the flags of the program."""

import subprocess
import sys

import pytest

from como_jax import cli, commands, interrupt, tasks
from como_jax import config as config_lib
from como_jax import main as main_lib
from tests.end_to_end import program


def run(capsys, *words):
  """(exit code, stdout, stderr) of the command."""
  code = cli.main(["como-jax", *words], program=("como-jax",))
  return (code, *capsys.readouterr())


@pytest.fixture(name="ran")
def _ran(monkeypatch):
  """The command lines that reach the tasks."""
  found = []
  monkeypatch.setattr(tasks, "run", lambda command: found.append(command) or 0)
  return found


def test_list_needs_no_device_and_says_what_there_is():
  code = (
    "import sys\nfrom como_jax import cli\ncode = cli.main(['como-jax', 'list'])\n"
    "assert not {'jax', 'numpy', 'flax'} & set(sys.modules), 'heavy modules'\nsys.exit(code)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=program.ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  named = {line.split()[0]: line.split(None, 1)[1] for line in lines if line.startswith("  ")}
  assert set(named) == {*tasks.TASKS, *(f"{name}.py" for name in tasks.TASKS)}
  assert named["serve"] == "A trained policy behind a websocket."
  assert named["mae.py"] == "L (default), B, S, tiny, debug"
  for name in commands.named("reserved"):
    assert name not in done.stdout.split()


@pytest.mark.parametrize("name", commands.named("task"))
def test_listed_variants_are_those_of_the_config(capsys, name):
  text = run(capsys, "list")[1]
  line = next(line for line in text.splitlines() if line.startswith(f"  {name}.py"))
  listed = line.split(None, 1)[1].partition(";")[0].replace(" and ", ", ")
  variants = [part.split("(")[0].strip() for part in listed.split(", ")]
  assert len(variants) > 1 and all(
    config_lib.load(f"{name}:{variant}")[0].task == name for variant in variants
  )


@pytest.mark.parametrize(
  "words, name",
  [
    (["motion:debug"], "motion-debug"),
    (["motion"], "motion"),
    (["motion", "--config=motion:debug"], "motion-debug"),
    (["motion", "--config", "configs/motion.py:debug"], "motion-debug"),
    (["--config=motion:debug"], "motion-debug"),
  ],
)
def test_a_word_and_flags_say_the_same(capsys, ran, words, name):
  code, _, err = run(capsys, *words, "--config.seed=7")
  assert (code, err) == (0, "")
  assert [(one.name, one.config.task, one.config.seed) for one in ran] == [(name, "motion", 7)]


@pytest.mark.parametrize(
  "words, says",
  [
    (["motoin"], "task 'motoin' is unknown: did you mean 'motion'?"),
    (["lst"], "did you mean 'list'?"),
    (["motion:smal"], "config argument 'smal' is unknown: did you mean 'small'?"),
    (["list", "all"], "list takes no arguments, 'all' was given"),
    (["motion:debug", "--config=motion:small"], "motion:debug and --config both name a variant"),
    (
      ["motion", "--config=policy:debug"],
      "config 'policy-debug' is for the task 'policy', not 'motion': como-jax policy --config=...",
    ),
    (["motion:debug", "more"], "unexpected argument 'more'"),
  ]
  + [([name], f"{name} (") for name in ("inspect", "doctor", "verify")]
  + [(["doctor"], "is not built yet: como-jax list shows what there is")],
)
def test_what_is_no_command_is_one_line(capsys, ran, words, says):
  code, out, err = run(capsys, *words)
  assert code == 2 and not out and not ran
  assert err.startswith("error: ") and says in err and err.count("\n") == 1, err


def test_help_names_the_commands_and_the_configs(capsys):
  code, out, _ = run(capsys, "--help")
  assert code == 0 and out.startswith("como-jax TASK[:VARIANT]") and "como-jax list" in out
  assert "  exam_set " in out
  assert "--config.train.steps=3" in run(capsys, "motion:debug", "--help")[1]


def test_ctrl_c_says_how_it_was_called(capsys, monkeypatch, tmp_path):
  def stop(command):
    raise KeyboardInterrupt

  monkeypatch.setattr(tasks, "run", stop)
  code, _, err = run(capsys, "motion:debug", f"--workdir={tmp_path}")
  assert code == 130 and err.strip() == (
    f"stopped by Ctrl-C: run it again with como-jax --config=motion:debug --workdir={tmp_path}"
  )


def test_the_installed_script_leaves_with_the_code(monkeypatch):
  left, prepared = [], []
  monkeypatch.setattr(interrupt, "exit_with", left.append)
  monkeypatch.setattr(interrupt, "prepare", prepared.append)
  monkeypatch.setattr(sys, "argv", ["/usr/bin/como-jax", "doctor"])
  cli.command()
  assert (left, prepared) == ([2], ["__main__"])


def test_python_m_como_jax_is_the_same_command():
  done = subprocess.run(
    [sys.executable, "-m", "como_jax", "verify"], cwd=program.ROOT, capture_output=True, text=True
  )
  assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: verify (")


def test_a_worker_of_the_installed_script_leaves_ctrl_c_to_its_parent(tmp_path):
  """A script as pip writes it, and a process of it that is spawned."""
  script = tmp_path / "como-jax"
  script.write_text(
    "import multiprocessing, signal, sys\nfrom como_jax.cli import command\n"
    "def handler(queue):\n  queue.put(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    "if __name__ == '__main__':\n  signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "  context = multiprocessing.get_context('spawn')\n"
    "  queue = context.Queue()\n  one = context.Process(target=handler, args=(queue,))\n"
    "  one.start()\n  print(queue.get(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    "  one.join()\n"
  )
  done = subprocess.run(
    [sys.executable, str(script)],
    env=program.environment(PYTHONPATH=str(program.ROOT)),
    capture_output=True,
    text=True,
  )
  assert done.stdout == "True False\n", done.stderr


def test_a_missing_config_of_configs_is_the_one_that_ships(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert config_lib.load("configs/motion.py:debug")[1] == config_lib.CONFIGS / "motion.py"
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "mine.py").write_text("")
  with pytest.raises(config_lib.errors.UserError) as error:
    config_lib.load("configs/min.py")
  assert str(error.value).startswith(
    f"config file 'configs/min.py' exists neither in {tmp_path / 'configs'} nor among those that "
    "come with the program: did you mean 'configs/mine.py'?"
  )
  with pytest.raises(config_lib.errors.UserError, match="did you mean 'configs/motion.py'"):
    config_lib.load("configs/motin.py")


def test_main_alone_takes_flags_and_no_words(capsys):
  assert main_lib.main(["main", "list"]) == 2
  assert "unexpected argument 'list'" in capsys.readouterr().err
