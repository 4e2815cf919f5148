"""From folders of pictures to a study, and to a folder for panels."""

import json
import pathlib
import re
import tomllib

import numpy as np
import pytest
from PIL import Image

from cdm.cli import main
from cdm.evaluation.human import (
  make_study,
  panel_folder,
  picture_sets,
  study_file,
)


def cdm(*words):
  return main.main(words)


def write(folder, names, size=16, seed=0):
  """Writes random pictures."""
  folder.mkdir()
  draw = np.random.default_rng(seed)
  for name in names:
    pixels = draw.integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
  return str(folder)


@pytest.fixture
def sets(tmp_path):
  names = [f'{i}.png' for i in range(12)]
  return {
    'original': write(tmp_path / 'o', names),
    'sr3': write(tmp_path / 'm', names, seed=1),
  }


def test_the_pictures_are_the_same_and_their_names_tell_nothing(tmp_path, sets):
  options = make_study.Options('2afc')
  made = make_study.make(tmp_path / 's', sets, None, options)
  assert study_file.read(tmp_path / 's') == made
  assert len(made['items']) == made['trials'] == 7
  assert len(made['catch']) == 1 and len(made['practice']) == 4
  names = study_file.media(made)
  assert len(set(names)) == len(names) == 24
  assert sorted(p.name for p in (tmp_path / 's' / 'media').iterdir()) == sorted(
    names
  )
  for item in made['items']:
    for method, file in item['pictures'].items():
      kept = Image.open(tmp_path / 's' / 'media' / file)
      given = Image.open(f'{sets[method]}/{item["name"]}.png')
      np.testing.assert_array_equal(np.asarray(kept), np.asarray(given))
      assert not kept.info


def test_a_tenth_of_the_trials_at_least_have_a_known_answer():
  # Of 50 judged trials, 6 more: 5 right are the 80% that are required.
  assert make_study.share_out(100, None) == (50, 6)
  assert make_study.share_out(60, 50) == (50, 6)
  assert make_study.share_out(6, None) == (1, 1)
  for trials in range(1, 60):
    _, catch = make_study.share_out(100, trials)
    assert catch / (catch + trials) >= 0.1 > (catch - 1) / (catch + trials - 1)
  with pytest.raises(ValueError, match='59 scenes, which is enough for 49'):
    make_study.share_out(59, 50)
  with pytest.raises(ValueError, match='There are 5 scenes'):
    make_study.share_out(5, None)


def test_a_blurred_picture_keeps_its_mean_and_loses_its_detail():
  draw = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
  soft = make_study.blurred(draw)
  assert soft.shape == draw.shape
  assert abs(soft.mean() - draw.mean()) < 2 and soft.std() < draw.std() / 3


def test_pictures_are_matched_by_name_or_else_by_order(tmp_path):
  first = write(tmp_path / 'a', ['x.png', 'y.png'])
  other = write(tmp_path / 'b', ['y.jpg', 'x.png'])
  number = write(tmp_path / 'c', ['0.png', '1.png'])
  scenes = picture_sets.match({'a': first, 'b': other}, number)
  assert [s.name for s in scenes] == ['x', 'y']
  assert scenes[1].files['b'].endswith('y.jpg')
  assert scenes[1].lowres.endswith('1.png')
  more = write(tmp_path / 'd', ['x.png', 'y.png', 'z.png'])
  with pytest.raises(ValueError, match="a has no picture 'z'"):
    picture_sets.match({'a': first, 'd': more})
  with pytest.raises(ValueError, match="a has no picture 'z', which .*d has"):
    picture_sets.match({'d': more, 'a': first})


def test_pictures_of_another_size_are_refused_and_leave_no_study(
  tmp_path, sets
):
  Image.new('RGB', (9, 9)).save(f'{sets["sr3"]}/3.png')
  with pytest.raises(ValueError, match='3.png has 9x9 pixels, but the other'):
    make_study.make(tmp_path / 's', sets, None, make_study.Options('2afc'))
  assert not list((tmp_path / 's').iterdir())


@pytest.mark.parametrize(
  'words, message',
  [
    (['make', '--methods=a=A'], 'needs the photographs'),
    (['make', '--methods=a'], "'a' is not NAME=DIR"),
    (['make', '--methods=a=A,a=B'], "the name 'a' is taken"),
    (['make', '--methods=a=A', '--task=rank'], 'the tasks are 2afc'),
    (['make', '--methods=a=A', '--task=preference'], 'two methods or more'),
    (['make', '--methods=a=A', '--task=rating', '--seconds=0'], 'above 0'),
    (['make', '--host=x'], 'an option of `cdm study serve`'),
    (['make'], 'needs --methods'),
    (['begin'], 'the actions are make'),
    (['serve'], 'holds no study'),
    (['serve', '--host=0.0.0.0'], 'which needs a token'),
    (['serve', '--token=short'], 'needs 16 letters'),
    (['serve', '--port=70000'], 'ports are 1 to 65535'),
    (['export'], 'needs --out'),
    (['report', '--answers=x'], 'holds no study'),
  ],
)
def test_bad_input_gets_one_clear_error(words, message, tmp_path, capsys):
  action, *rest = words
  assert cdm('study', action, str(tmp_path / 's'), *rest) == 2
  error = capsys.readouterr().err
  assert message in error and 'Traceback' not in error


def test_a_panel_gets_files_alone_and_no_right_answers(tmp_path, sets, capsys):
  folder, out = tmp_path / 's', tmp_path / 'panel'
  assert not cdm(
    *('study', 'make', str(folder), f'--originals={sets["original"]}'),
    f'--methods=sr3={sets["sr3"]}',
  )
  assert not cdm('study', 'export', str(folder), f'--out={out}', '--lists=3')
  made = study_file.read(folder)
  lists = sorted(p.name for p in (out / 'lists').iterdir())
  assert lists == ['0.js', '1.js', '2.js']
  text = (out / 'lists' / '0.js').read_text(encoding='utf-8')
  trials = json.loads(re.fullmatch(r'window.CDM_LIST = (.*);\n', text)[1])
  assert [t['practice'] for t in trials] == 4 * [True] + 8 * [False]
  # What is judged and what is a control look alike, and name no method.
  assert {tuple(t) for t in trials[4:]} == {
    ('trial_type', 'stimulus', 'lowres', 'width', 'height', 'practice')
  }
  whole = ''.join(p.read_text(encoding='utf-8') for p in out.rglob('*.js'))
  assert 'sr3' not in whole and 'original' not in whole
  page = (out / 'index.html').read_text(encoding='utf-8')
  order = re.findall(r'src="(\w+\.js)"', page)
  assert order == ['study_data.js', 'shown.js', 'store.js', 'study.js']
  assert {p.name for p in (out / 'media').iterdir()} == set(
    study_file.media(made)
  )
  assert cdm('study', 'export', str(folder), f'--out={out}') == 2
  assert 'is not empty' in capsys.readouterr().err


def test_the_page_loads_nothing_from_elsewhere():
  for name in panel_folder.PAGE:
    text = panel_folder.page_file(name).decode()
    assert not re.search(r'https?://|innerHTML|eval\(|document\.write', text)
    assert not re.search(r'\son\w+="|<style|style="', text)  # the policy's rule


def test_the_wheel_holds_the_page():
  """What setuptools copies besides modules: patterns below the package."""
  root = pathlib.Path(__file__).resolve().parents[3]
  project = tomllib.loads((root / 'pyproject.toml').read_text('utf-8'))
  patterns = project['tool']['setuptools']['package-data']['cdm']
  copied = {p for one in patterns for p in (root / 'cdm').glob(one)}
  pages = set((root / 'cdm' / 'evaluation' / 'human' / 'page').iterdir())
  assert {path.name for path in pages} == set(panel_folder.PAGE)
  assert pages <= copied
