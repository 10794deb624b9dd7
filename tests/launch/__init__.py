"""The scripts of launch/ import each other by their names alone; so do their tests."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent.parent / "launch"))
