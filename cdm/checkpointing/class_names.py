"""Keeps the names of the classes beside the checkpoints of a run."""

import json
import pathlib

import jax

from cdm.reporting import atomic_files

CLASSES = 'classes.json'  # beside the checkpoints of a stage


def class_names(workdir):
  """-> the names of the classes a stage was trained on, or None."""
  path = pathlib.Path(workdir) / CLASSES
  return json.loads(path.read_text()) if path.exists() else None


def write_classes(workdir, source):
  """Writes the names of the classes, so that labels keep their meaning."""
  if not source.class_names or jax.process_index() != 0:
    return
  text = json.dumps(list(source.class_names)) + '\n'
  atomic_files.write_text_atomically(workdir / CLASSES, text)
