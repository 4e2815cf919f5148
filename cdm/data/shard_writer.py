"""Writes one ArrayRecord shard, which appears only when it is complete."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Generator
from typing import Any

from cdm.data import record_format, shell_commands
from cdm.data.files import atomic_files, storage_retry, transient_errors
from cdm.data.files.damaged_file import too_many_open


@contextlib.contextmanager
def new_shard(
  path: str | os.PathLike[str],
) -> Generator[Callable[[bytes], None]]:
  """Context manager that yields write(record); the file appears at its exit.

  An error inside leaves no file, and a kill an unfinished one of another name,
  which `atomic_files.remove_abandoned` removes.

  Raises:
    transient_errors.NotAnswering: an error that may pass keeps it from being
      written.
    ValueError: the shard cannot be written, or the package array-record is not
      installed.
  """
  path, new_writer = pathlib.Path(path), writer_class()
  with contextlib.ExitStack() as writing:
    with failing_clearly(path):
      partial = writing.enter_context(atomic_files.write_atomically(path))
      writer = new_writer(str(partial), record_format.WRITER_OPTIONS)

    def write(record):
      with failing_clearly(path):
        writer.write(record)

    yield write
    with failing_clearly(path):
      writer.close()
      writing.close()


def writer_class() -> Any:
  """Returns the class that writes ArrayRecord files.

  Raises:
    ValueError: the package array-record is not installed.
  """
  try:
    # The compiled module has no stub.
    from array_record.python import array_record_module  # ty: ignore[missing-module-member]
  except ImportError as error:
    raise ValueError(
      'Writing ArrayRecord needs the package array-record, which exists for '
      f'Linux and macOS. Run: {shell_commands.install("array-record")}'
    ) from error
  return array_record_module.ArrayRecordWriter


@contextlib.contextmanager
def failing_clearly(path: str | os.PathLike[str]) -> Generator[None]:
  """Context manager in which a failed write becomes a ValueError.

  An error that may pass becomes a `transient_errors.NotAnswering`.
  """
  try:
    yield
  except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError.
    if too_many_open(error):
      raise
    if transient_errors.of_a_library(error):
      raise storage_retry.not_answering(f'Writing {path}', error) from error
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'Cannot write {path}: {reason}.') from error
