"""Paths are folders and files of this machine, or of a file system mounted on it."""

from como_jax import errors


def local(name: str, path: str) -> str:
  """The path as it is.

  Args:
    name: of the flag, key or variable that holds it, for the message.
    path: as it was given.

  Raises:
    errors.UserError: it is a URL. Nothing here reads or writes one; as a path it would become a
      local folder called "gs:".
  """
  if "://" in str(path):
    scheme = str(path).partition("://")[0]
    advice = (
      "give the path alone"
      if scheme == "file"
      else "give a local folder (download or mount it first: gcsfuse, NFS)"
    )
    raise errors.UserError(f"{name}={path}: URLs are not supported, {advice}")
  return path
