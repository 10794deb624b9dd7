"""Takes the client's modules from como_jax before they are packed; the rest is in pyproject.toml.

In a checkout the modules are copied anew at every build, into a folder that git ignores. In a
source distribution they are there already.
"""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parent
# module of como_jax_client -> the file of como_jax that it is
MODULES = {
  "errors.py": "errors.py",
  "chunks.py": "chunks.py",
  "codec.py": "serve/codec.py",
  "client.py": "serve/client.py",
  "player.py": "serve/player.py",
}


def copy_modules(package: pathlib.Path) -> None:
  """Writes the modules and the version into a package folder; their imports name it."""
  source = CHECKOUT / "como_jax"
  for name, path in MODULES.items():
    text = (source / path).read_text(encoding="utf-8")
    text = re.sub(
      r"^from como_jax(\.serve)? import", "from como_jax_client import", text, flags=re.MULTILINE
    )
    (package / name).write_text(f"# Copied from como_jax/{path}.\n{text}", encoding="utf-8")
  version = re.search(r'^__version__ = "(.+)"$', (source / "__init__.py").read_text(), re.MULTILINE)
  text = f'"""Of como_jax."""\n\n__version__ = "{version.group(1)}"\n'
  (package / "version.py").write_text(text, encoding="utf-8")


if __name__ == "__main__":
  if (CHECKOUT / "como_jax" / "serve").is_dir():
    copy_modules(HERE / "src" / "como_jax_client")
    for name in ("LICENSE", "NOTICE"):
      (HERE / name).write_bytes((CHECKOUT / name).read_bytes())
  setuptools.setup()
