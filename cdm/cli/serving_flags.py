"""Flags of the commands that open a page in a browser of this machine."""

from __future__ import annotations

import argparse
from typing import Any


def arguments(group: Any) -> None:
  """Adds the flags.

  Args:
    group: a parser, or a group of one.
  """
  group.add_argument(
    '--host', help='address to listen at (default: 127.0.0.1, this machine)'
  )
  group.add_argument(
    '--port', type=int, metavar='N', help='port (default: a free one)'
  )
  group.add_argument(
    '--token',
    nargs='?',
    const='made',
    metavar='TEXT',
    help='token in the link, which other hosts need; without TEXT, one is made',
  )
  group.add_argument(
    *('--no_browser', '--no-browser'),
    action='store_true',
    default=None,
    help='do not open a browser',
  )


def place(args: argparse.Namespace) -> Any:
  """Returns the `local_server.Place` that is asked for, checked.

  Args:
    args: the parsed arguments.

  Raises:
    ValueError: a value is impossible; the message names its flag.
  """
  from cdm.cli.web import local_server

  return local_server.check(
    local_server.Place(args.host or '127.0.0.1', args.port or 0, args.token)
  )
