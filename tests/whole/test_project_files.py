"""README, CHANGELOG, hooks and metadata agree with the project."""

import pathlib
import re
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))[
  'project'
]
PAGES = sorted((ROOT / 'docs').glob('*.md'))
# The order of a reader's questions.
SECTIONS = (
  'See it',
  'Install',
  'Train on your images',
  'Launch on accelerators, pods and clusters',
  'Judge',
  'Reproduce the papers',
  'Look it up',
)


def hooks():
  """-> {id: hook} of the pre-commit configuration."""
  config = yaml.safe_load(
    (ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8')
  )
  return {
    hook['id']: hook for repo in config['repos'] for hook in repo['hooks']
  }


def test_every_check_of_ci_is_a_hook():
  script = (ROOT / 'launch' / 'test.sh').read_text(encoding='utf-8')
  checks = re.findall(r'^"\$PYTHON" -m ((?:\w+ ?)+)', script, re.M)
  entries = ' '.join(hook['entry'] for hook in hooks().values())
  assert len(checks) >= 3
  for check in checks:
    assert f'-m {check.strip()}' in entries, check
  assert hooks()['ci']['entry'] == 'bash launch/test.sh'
  assert 'launch/test.sh' in (ROOT / '.ci' / 'run').read_text(encoding='utf-8')


def test_the_test_files_that_hooks_name_are_there():
  for path in re.findall(r'tests/\S+\.py', hooks()['texts']['entry']):
    assert (ROOT / path).is_file(), path


def test_the_licence_is_named_once_and_its_text_is_there():
  assert PROJECT['license'] == 'Apache-2.0'
  assert PROJECT['license-files'] == ['LICENSE']
  assert 'Apache License' in (ROOT / 'LICENSE').read_text(encoding='utf-8')
  # A packaging tool refuses a classifier beside the expression.
  assert not [c for c in PROJECT['classifiers'] if c.startswith('License')]


def test_the_oldest_python_is_the_same_everywhere():
  oldest = PROJECT['requires-python'].removeprefix('>=')
  versions = [c.rpartition(' ')[2] for c in PROJECT['classifiers'] if '3.' in c]
  assert versions[0] == oldest
  for name in ('README.md', 'CONTRIBUTING.md', 'docs/one_gpu.md'):
    assert f'Python {oldest} or newer' in (ROOT / name).read_text(
      encoding='utf-8'
    ), name


def test_the_readme_names_the_pinned_jax():
  pins = (ROOT / 'constraints.txt').read_text(encoding='utf-8')
  assert re.search(r'^jax==(\S+)', pins, re.M)[1] in README


def test_the_readme_opens_with_two_commands_and_stays_short():
  opening = README.split('\n## ')[0]
  assert re.findall(r'^bash (\S+)', opening, re.M) == [
    'launch/demo.sh',
    'launch/test.sh',
  ]
  assert len(README.splitlines()) <= 250
  titles = re.findall(r'^## (.*)', README, re.M)
  assert titles[: len(SECTIONS)] == list(SECTIONS)


def test_every_page_can_be_found_from_the_readme():
  pages = [*PAGES, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md']
  for page in pages:
    assert f']({page.relative_to(ROOT)})' in README, page.name


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_a_page_begins_with_what_it_is_for(path):
  title, paragraph, *_ = path.read_text(encoding='utf-8').split('\n\n')
  assert title.startswith('# ')
  assert paragraph.startswith('This page '), paragraph


def test_links_inside_the_documents_lead_somewhere():
  for page in [*PAGES, *ROOT.glob('*.md')]:
    for target in re.findall(
      r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8')
    ):
      assert (page.parent / target).exists(), f'{page.name}: {target}'


def test_the_changelog_has_a_place_for_what_is_new():
  text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  headings = re.findall(r'^## \[(.*?)\]', text, re.M)
  assert headings[0] == 'Unreleased'
