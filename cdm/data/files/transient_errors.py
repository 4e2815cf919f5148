"""Tells errors that the same action may not meet again from all others.

This is the one place that decides it. An error of a disk, of a network file
system or of a connection may be gone in a second, or on another host. A full
disk, a missing file and a missing permission stay until a person has acted.
"""

import errno
import os

from cdm.data.files import damaged_file

# Linux has all of these; other systems lack some.
_NAMES = (
  'EIO', 'EREMOTEIO', 'ESTALE', 'EINTR', 'ETIMEDOUT', 'ENOTCONN', 'ESHUTDOWN',
  'ECONNRESET', 'ECONNABORTED', 'ECONNREFUSED', 'EHOSTUNREACH', 'EHOSTDOWN',
  'ENETUNREACH', 'ENETDOWN', 'ENETRESET', 'ENOLINK', 'ECOMM', 'EPROTO',
  'ENOBUFS',
)  # fmt: skip
CODES = frozenset(getattr(errno, n) for n in _NAMES if hasattr(errno, n))
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries written in C++ raise types of their own, with the system's words or
# with one of gRPC's words for a service that is away.
_WORDS = tuple(os.strerror(code) for code in sorted(CODES - {errno.EINTR}))
_WORDS += ('UNAVAILABLE', 'DEADLINE_EXCEEDED')


class NotAnswering(OSError):
  """A storage or a service failed for longer than is waited for it.

  `distributed.exit_codes`, which this package does not know, recognizes the
  attribute. It leads to an exit code after which launchers start again.
  """

  is_unavailable = True


def of_the_system(error: BaseException | None) -> bool:
  """Returns whether the system says that an error, or its cause, may pass.

  It goes by types and error numbers, never by the words of an error.
  """
  return any(_by_number(each) for each in _chain(error))


def of_a_library(error: BaseException | None) -> bool:
  """Returns whether an error of reading or writing data may pass.

  It also goes by the words of errors that carry no error number, so it must
  only be asked about an error of a function that reads or writes.
  """
  return any(
    _by_number(each) or (not _has_number(each) and _by_words(each))
    for each in _chain(error)
  )


def of_a_full_disk(error: BaseException | None) -> bool:
  """Returns whether an error, or its cause, is that there is no space left."""
  return any(
    _has_number(each) and each.errno in _FULL for each in _chain(error)
  )


def not_of_the_file(error: BaseException | None) -> bool:
  """Returns whether an error of reading tells nothing about the file itself.

  Whoever reads a file raises it as it is, and neither calls the file damaged
  nor goes on without it: the error may pass, or too many files are open.
  """
  return bool(damaged_file.too_many_open(error)) or of_a_library(error)


def _by_number(error):
  if getattr(error, 'is_unavailable', False):
    return True
  if _has_number(error):
    return error.errno in CODES
  return isinstance(error, TimeoutError)


def _has_number(error):
  return isinstance(error, OSError) and error.errno is not None


def _by_words(error):
  return any(word in str(error) for word in _WORDS)


def _chain(error):
  """Returns an error, its cause, the cause of that, and so on."""
  chain = []
  while error is not None and error not in chain:
    chain.append(error)
    error = error.__cause__
  return chain
