"""Whose handlers are replaced, and given back."""

import signal

from como_jax.train import signals


def refuse(*unused):
  raise ValueError("signal only works in main thread of the main interpreter")


def test_outside_the_main_thread_the_caller_keeps_the_signals(monkeypatch):
  monkeypatch.setattr(signals.signal, "signal", refuse)
  with signals.Signals() as caught:
    assert caught.number == 0


def test_a_handler_that_python_did_not_set_is_given_back_as_the_default(monkeypatch):
  calls = []
  monkeypatch.setattr(
    signals.signal, "signal", lambda number, handler: calls.append((number, handler))
  )
  with signals.Signals():
    del calls[:]
  assert calls == [
    (number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
  ]


def test_the_first_signal_is_a_request_and_the_second_acts_as_usual(monkeypatch):
  came = []
  monkeypatch.setattr(signal, "default_int_handler", lambda *unused: came.append("usual"))
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with signals.Signals() as caught:
      signal.raise_signal(signal.SIGINT)
      assert signals.name(caught.number) == "SIGINT" and not came
      signal.raise_signal(signal.SIGINT)
      assert came == ["usual"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)
  assert signals.name(0) == ""


def test_a_request_for_a_profile_stops_nothing_and_is_ignored_elsewhere():
  before = signal.getsignal(signals.PROFILE)
  try:
    signals.ignore_profile()
    signal.raise_signal(signals.PROFILE)
    with signals.Signals() as caught:
      for _ in range(2):
        signal.raise_signal(signals.PROFILE)
      assert caught.profile and not caught.number
    with signals.Signals() as caught:
      assert not caught.profile
    assert signal.getsignal(signals.PROFILE) == signal.SIG_IGN
  finally:
    signal.signal(signals.PROFILE, before)


def test_outside_the_main_thread_nothing_is_ignored(monkeypatch):
  monkeypatch.setattr(signals.signal, "signal", refuse)
  signals.ignore_profile()
