"""PyAV, imported at its first use.

PyAV carries FFmpeg (36 MB). A machine that only reads JPEG shards does not need it.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from como_jax import errors as errors_lib

if TYPE_CHECKING:
  import av
  from av import logging
  from av.container import InputContainer, OutputContainer
  from av.stream import Disposition
  from av.video.frame import PictureType
  from av.video.reformatter import Colorspace, VideoReformatter
else:

  class _Lazy:
    """Stands for an object of PyAV until it is used; in annotations it is never used."""

    def __init__(self, module: str, name: str = ""):
      self._module, self._name = module, name

    def _load(self) -> Any:
      try:
        module = importlib.import_module(self._module)
      except ImportError as error:
        raise errors_lib.RunError(
          f"a video is to be read or written, and the package av cannot be imported ({error}): "
          "pip install av"
        ) from error
      return getattr(module, self._name) if self._name else module

    def __getattr__(self, name: str) -> Any:
      return getattr(self._load(), name)

    def __getitem__(self, name: str) -> Any:
      return self._load()[name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
      return self._load()(*args, **kwargs)

  av, logging = _Lazy("av"), _Lazy("av.logging")
  InputContainer = _Lazy("av.container", "InputContainer")
  OutputContainer = _Lazy("av.container", "OutputContainer")
  Disposition = _Lazy("av.stream", "Disposition")
  PictureType = _Lazy("av.video.frame", "PictureType")
  Colorspace = _Lazy("av.video.reformatter", "Colorspace")
  VideoReformatter = _Lazy("av.video.reformatter", "VideoReformatter")

__all__ = [
  "Colorspace",
  "Disposition",
  "InputContainer",
  "OutputContainer",
  "PictureType",
  "VideoReformatter",
  "av",
  "errors",
  "logging",
]


def errors() -> tuple[type[Exception], ...]:
  """PyAV's exceptions; empty while it is not imported, when none can have been raised."""
  module = sys.modules.get("av.error")
  return (module.FFmpegError,) if module else ()
