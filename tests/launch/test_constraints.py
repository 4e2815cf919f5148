"""Both ends of the supported range are pinned, package by package."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def name(requirement):
  """-> name of a package, as PyPI compares names."""
  return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


def pins(file):
  """-> {name: version}; every line that is no comment is a pin."""
  lines = (ROOT / file).read_text(encoding='utf-8').splitlines()
  pinned = [line.split('==') for line in lines if not line.startswith('#')]
  assert all(len(pair) == 2 for pair in pinned)
  return {name(package): version for package, version in pinned}


def numbers(version):
  return [int(number) for number in re.findall(r'\d+', version)]


@pytest.mark.parametrize('file', ['constraints.txt', 'constraints-newest.txt'])
def test_every_package_is_pinned_within_its_range(file):
  project = tomllib.loads(
    (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  )['project']
  extras = project['optional-dependencies'].values()
  pinned = pins(file)
  for requirement in sum(extras, project['dependencies']):
    package, least = re.match(r'([\w.-]+).*?>=([\d.]+)', requirement).groups()
    if package == 'tensorflow':  # Where there is no tensorflow-cpu.
      continue
    assert numbers(pinned[name(package)]) >= numbers(least), requirement


def test_the_ends_of_the_range_differ_in_jax():
  old, new = pins('constraints.txt'), pins('constraints-newest.txt')
  assert numbers(old['jax']) < numbers(new['jax'])
  for ends in (old, new):
    assert ends['jax'] == ends['jaxlib']
