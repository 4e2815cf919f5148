"""A plan is a function of its arguments: files, commands, no side effects."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / 'launch'
sys.path.insert(0, str(LAUNCH))
import launch  # noqa: E402

sys.path.remove(str(LAUNCH))

COMMON = ['--config=configs/smoke.py', '--workdir=/gcs/b/r', '--env=A=1']
IMAGE = ['--image=i', '--storage=gs://b']
CASES = {
  'local': ['--processes=2'],
  'docker': ['--extra=cuda', '--volume=/a:/b', '--workdir=runs/a'],
  'slurm': ['--nodes=2', '--gpus_per_node=8'],
  'tpu-vm': [*IMAGE, '--type=v5litepod-16', '--zone=z'],
  'gke': [*IMAGE, '--gpu=nvidia-l4', '--env=A_TOKEN=x'],
  'xpk': [IMAGE[0], '--cluster=c', '--tpu_type=v5litepod-16'],
  'skypilot': ['--accelerators=H100:8', IMAGE[1]],
  'vertex': [*IMAGE, '--region=r', '--machine_type=m'],
  'batch': [*IMAGE, '--location=l', '--machine_type=m'],
}


def forbidden(*_, **__):
  raise AssertionError('a plan touches nothing but its templates')


def test_there_is_a_case_for_each_target():
  assert set(CASES) == set(launch.TARGETS)


@pytest.mark.parametrize('name', CASES)
def test_a_plan_depends_on_its_arguments_alone(name, tmp_path, monkeypatch):
  monkeypatch.chdir(LAUNCH.parent)
  args = launch.parse([name, *COMMON, *CASES[name]])
  first = launch.TARGETS[name].plan(args)
  # Elsewhere, for somebody else, and on a machine that lets it do nothing.
  monkeypatch.chdir(tmp_path)
  for variable in list(os.environ):
    monkeypatch.delenv(variable)
  for module, function in (
    *((os, each) for each in ('getcwd', 'getuid', 'getgid', 'mkdir')),
    (socket, 'socket'),
    (subprocess, 'Popen'),
    (pathlib.Path, 'write_text'),
  ):
    monkeypatch.setattr(module, function, forbidden)
  again = launch.TARGETS[name].plan(args)
  monkeypatch.undo()
  assert again == first and first.commands
