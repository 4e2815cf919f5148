"""Errors that may pass are told from those that only a person can mend."""

import errno
import os

import pytest

from cdm.data.files import damaged_file, transient_errors

PASS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
STAY = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOENT),
  *(errno.EROFS, errno.EISDIR, errno.EMFILE, errno.ENOMEM, errno.EPIPE),
)


def of_system(code):
  return OSError(code, os.strerror(code), 'photo.png')


def caused_by(cause):
  error = ValueError('Cannot write the reports')
  error.__cause__ = cause
  return error


@pytest.mark.parametrize('code', PASS, ids=errno.errorcode.get)
def test_an_error_of_a_disk_or_a_connection_may_pass(code):
  error = of_system(code)
  assert transient_errors.of_the_system(error)
  assert transient_errors.of_the_system(caused_by(error))
  assert transient_errors.not_of_the_file(error)


@pytest.mark.parametrize('code', STAY, ids=errno.errorcode.get)
def test_a_full_disk_and_a_missing_file_or_permission_stay(code):
  """Whatever the words are: of such an error only the number counts."""
  error = OSError(code, os.strerror(errno.EIO), 'photo.png')
  for each in (of_system(code), error, caused_by(error)):
    assert not transient_errors.of_the_system(each)
    assert not transient_errors.of_a_library(each)


@pytest.mark.parametrize(
  ('text', 'passes'),
  [
    ('UNKNOWN: pread() failed: Input/output error; reading a-3.record', True),
    ('UNAVAILABLE: the bucket does not answer', True),
    ('Stale file handle', True),
    ('DATA_LOSS: chunk header is damaged', False),
    ('No space left on device', False),
  ],
)
def test_the_words_of_a_library_count_only_where_data_is_read(text, passes):
  error = RuntimeError(text)
  assert transient_errors.of_a_library(error) is passes
  assert not transient_errors.of_the_system(error)


def test_too_many_open_files_are_neither_damage_nor_wait_for_anything():
  error = of_system(errno.EMFILE)
  assert damaged_file.too_many_open(error)
  assert transient_errors.not_of_the_file(error)
  assert not transient_errors.of_a_library(error)
