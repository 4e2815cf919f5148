"""What the system says when a checkpoint cannot be written."""

import errno
import os

import pytest

from cdm.checkpointing import write_errors


@pytest.mark.parametrize(
  ('error', 'reason'),
  [
    (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on dev'),
    (OSError('no number'), 'no number'),
    (OSError(errno.EMFILE, 'Too many open files', 'a'), 'Too many open files'),
    (
      OSError(errno.EMFILE, 'Too many open files', 'a', None, 'b'),
      'the file system renames no folder with so many files, as gcsfuse',
    ),
    (
      ValueError(f"INTERNAL: [os_error_code='{errno.EDQUOT}'] writing x"),
      os.strerror(errno.EDQUOT),
    ),
    (ValueError('shapes differ'), None),
  ],
)
def test_a_failed_write_is_told_by_the_reason_of_the_system(error, reason):
  found = write_errors.of_the_system(error)
  assert found is None if reason is None else found.startswith(reason)


@pytest.mark.parametrize(
  ('error', 'code'),
  [
    (OSError(errno.ENOSPC, 'No space left on device'), errno.ENOSPC),
    (OSError('no number'), 0),
    (OSError(errno.EMFILE, 'Too many open files', 'a'), errno.EMFILE),
    (OSError(errno.EMFILE, 'Too many', 'a', None, 'b'), errno.ENOTSUP),
    (TimeoutError('not complete'), errno.ETIMEDOUT),
    (ValueError("INTERNAL: [os_error_code='5'] writing x"), errno.EIO),
    (ValueError('shapes differ'), 0),
  ],
)
def test_the_number_of_the_systems_error_is_found(error, code):
  assert write_errors.code(error) == code
