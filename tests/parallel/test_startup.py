"""Addresses from the environment, and processes that do not come.

Real processes: tests/end_to_end/test_processes.py.
"""

import socket

import jax
import pytest

from como_jax import errors
from como_jax.parallel import startup


def given(**changes):
  return {
    "COMO_JAX_COORDINATOR": "localhost:1",
    "COMO_JAX_PROCESSES": "2",
    "COMO_JAX_PROCESS_INDEX": "0",
    **changes,
  }


@pytest.mark.parametrize(
  "environment, expected",
  [
    ({"COMO_JAX_PROCESSES": "2"}, "COMO_JAX_PROCESSES is set and COMO_JAX_COORDINATOR is not"),
    (given(COMO_JAX_PROCESS_INDEX=""), "COMO_JAX_PROCESS_INDEX is not"),
    (
      given(COMO_JAX_PROCESS_INDEX="2"),
      "COMO_JAX_PROCESS_INDEX=2, expected less than COMO_JAX_PROCESSES=2",
    ),
    (given(COMO_JAX_PROCESSES="two"), "COMO_JAX_PROCESSES='two', expected a whole number"),
    (given(COMO_JAX_COORDINATOR="localhost"), "expected HOST:PORT"),
    (given(COMO_JAX_JOIN_SECONDS="-3"), "COMO_JAX_JOIN_SECONDS"),
    (
      {"COMO_JAX_CPU_DEVICES": "0"},
      "COMO_JAX_CPU_DEVICES='0', expected a whole number of at least 1",
    ),
  ],
)
def test_half_an_address_is_refused(environment, expected):
  with pytest.raises(errors.UserError, match=expected):
    startup.initialize(environment=environment)


def because(error, cause):
  error.__cause__ = cause
  return error


@pytest.mark.parametrize(
  "raised, expected",
  [
    (
      jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmore"),
      errors.TransientError,
    ),
    (ValueError("coordinator_address should be defined."), errors.UserError),
    # what jax 0.10 says where pod 0 has no name yet, where the metadata service or Kubernetes does
    # not answer; a cluster whose settings are wrong stays bad input
    (RuntimeError("Failed to recognize coordinator address a-0:8476"), errors.TransientError),
    (RuntimeError("Getting metadata['agent'] failed for 6 tries\nmore"), errors.TransientError),
    (ConnectionError("HTTPConnectionPool(host='metadata')\nmore"), errors.TransientError),
    (because(RuntimeError("gave up"), socket.gaierror(-2, "Name unknown")), errors.TransientError),
    (RuntimeError("Kubernetes API Error: 503 - busy"), errors.TransientError),
    (RuntimeError("Kubernetes API Error: 403 - Forbidden"), errors.UserError),
    (KeyError("SLURM_JOB_NUM_NODES"), errors.UserError),
    (None, None),
  ],
)
def test_what_jax_says_at_the_start(monkeypatch, raised, expected):
  def initialize(**unused):
    if raised:
      raise raised

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  monkeypatch.setattr(jax.config, "update", lambda *unused: None)
  environment = given(COMO_JAX_PROCESSES="1")
  if expected:
    with pytest.raises(expected, match="jax.distributed cannot start") as caught:
      startup.initialize(environment=environment)
    assert "\n" not in str(caught.value) and "more" not in str(caught.value)
  else:
    assert startup.initialize(environment=environment)


def test_processes_that_jax_waits_for_in_vain_are_no_bad_input(monkeypatch, capsys):
  codes = []
  monkeypatch.setattr(startup.os, "_exit", codes.append)
  startup._give_up(3)
  assert codes == [75] and "within 3 s" in capsys.readouterr().err


def test_without_an_address_there_is_one_process():
  assert not startup.initialize(environment={})
  assert not startup.initialize(environment={"COMO_JAX_DISTRIBUTED": "0"})


def test_a_fault_of_the_program_is_no_bad_input(monkeypatch):
  def initialize(**unused):
    raise FileNotFoundError(2, "a file of jax's own")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  monkeypatch.setattr(jax.config, "update", lambda *unused: None)
  with pytest.raises(FileNotFoundError):
    startup.initialize(environment=given(COMO_JAX_PROCESSES="1"))
