"""The memory of the machine, where each system tells it."""

import os

import pytest

from cdm.data import host_memory


@pytest.fixture(autouse=True)
def asked_anew():
  host_memory.total_bytes.cache_clear()
  yield
  host_memory.total_bytes.cache_clear()


def play_sysctl(folder, monkeypatch, script):
  program = folder / 'sysctl'
  program.write_text(f'#!/bin/sh\n{script}\n', encoding='utf-8')
  program.chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:/bin:/usr/bin')


def unknown(name):
  raise ValueError(f'unrecognized configuration name: {name}')


def untold(name):
  return 4096 if name == 'SC_PAGE_SIZE' else -1


def test_a_machine_that_runs_this_has_memory():
  assert host_memory.total_bytes() > 2**28


@pytest.mark.parametrize('sysconf', [unknown, untold, None])
@pytest.mark.parametrize(
  ('script', 'found'),
  [
    ('[ "$*" = "-n hw.memsize" ] && echo 17179869184', 2**34),
    ('echo no such name >&2; exit 1', None),
    ('echo unknown', None),
  ],
)
def test_sysctl_is_asked_where_sysconf_does_not_tell(
  tmp_path, monkeypatch, sysconf, script, found
):
  if sysconf:
    monkeypatch.setattr(os, 'sysconf', sysconf)
  else:
    monkeypatch.delattr(os, 'sysconf')  # As on Windows.
  play_sysctl(tmp_path, monkeypatch, script)
  assert host_memory.total_bytes() == found


def test_a_system_that_tells_nothing_has_unknown_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'sysconf', unknown)
  monkeypatch.setenv('PATH', str(tmp_path))
  assert host_memory.total_bytes() is None
