"""Whose handlers are replaced, and given back."""

import signal

from como_jax.train import signals


def test_outside_the_main_thread_the_caller_keeps_the_signals(monkeypatch):
  def refused(*unused):
    raise ValueError("signal only works in main thread of the main interpreter")

  monkeypatch.setattr(signals.signal, "signal", refused)
  with signals.Signals() as caught:
    assert caught.number == 0


def test_a_handler_that_python_did_not_set_is_given_back_as_the_default(monkeypatch):
  calls = []
  monkeypatch.setattr(
    signals.signal, "signal", lambda number, handler: calls.append((number, handler))
  )
  with signals.Signals():
    del calls[:]
  assert calls == [(signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_DFL)]


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
