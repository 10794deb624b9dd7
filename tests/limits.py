"""How long tests wait for another process or thread.

A safety net against waiting for ever, not a measurement: no test may fail because the machine is
busy.
"""

import time
from collections.abc import Callable

SAFETY_NET = 3600.0  # seconds


def wait_until(condition: Callable[[], bool], *, while_alive=None) -> bool:
  """Waits for a condition; False once the process `while_alive` (a Popen) has ended without it, or
  the safety net has torn.
  """
  end = time.monotonic() + SAFETY_NET
  while not condition():
    if time.monotonic() > end or (while_alive is not None and while_alive.poll() is not None):
      return condition()
    time.sleep(0.002)
  return True
