"""What a config or a job chooses on the way of a training task, on paper."""

from como_jax.train import fit as fit_lib
from tests.train.test_fit import _fit as _fit  # the fixture `fit`


def test_an_evaluation_by_all_processes_has_the_weights_as_they_are_sharded(fit, monkeypatch):
  monkeypatch.setattr(fit_lib.job, "replicated", lambda params: "whole")
  for together, expected in ((False, "whole"), (True, fit.state(0).params.keys())):
    object.__setattr__(fit.job, "evaluate_together", together)
    fit()
    now, train_loop = fit.told.looped[-1]
    _, scored = train_loop.evaluate(now)
    assert scored == "whole" if not together else scored.keys() == expected


def test_a_compiled_step_is_looked_for_where_the_config_names_one(fit, monkeypatch):
  asked = []
  monkeypatch.setattr(fit_lib, "_use_saved_step", lambda *given: asked.append(given))
  fit()
  assert not asked
  fit(compiled_step="FILE")
  ((config, prepared, train_step, shapes),) = asked
  assert config.train.compiled_step == "FILE" and prepared.job is fit.job
  assert (train_step, shapes) == ("TRAIN_STEP", "SHAPES")
