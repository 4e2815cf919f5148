"""Two real processes count the errors of a set as one does."""

import json

from support import grey_classes, smoke_runs
from whole.test_two_processes import together

STAND_IN = """
import os
from support import grey_classes
from cdm.data import folder
grey_classes.stand_in()
read = folder.Folder.__getitem__
def told(self, i):
  with open({log!r} + os.environ['CDM_PROCESS_ID'], 'a') as file:
    file.write(self.files[i] + '\\n')
  return read(self, i)
folder.Folder.__getitem__ = told
"""


def test_they_count_as_one_does_and_each_reads_its_own(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  grey_classes.write_pictures(tmp_path / 'set')

  def words(out):
    return [
      *('accuracy', f'--samples={tmp_path / "set"}', '--batch_size=4'),
      f'--out={tmp_path / out}',
    ]

  log = str(tmp_path / 'read by ')
  together(words('two.json'), both=STAND_IN.format(log=log))
  grey_classes.stand_in(patch=monkeypatch.setattr)
  assert smoke_runs.cdm(*words('one.json')) == 0
  two, one = (
    json.loads((tmp_path / f'{name}.json').read_text(encoding='utf-8'))
    for name in ('two', 'one')
  )
  assert one['n'] == 12 and one['top1_error'] == 1 / 12
  assert two == one
  first, second = (
    (tmp_path / f'read by {n}').read_text(encoding='utf-8').splitlines()
    for n in range(2)
  )
  assert len(first) == len(second) == 6
  assert len({*first, *second}) == 12
