"""Persons go through studies in a real browser."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support import browsers, served

from cdm.evaluation.human import (
  answer_file,
  panel_folder,
  report,
  study_results,
  trial_lists,
)
from cdm.evaluation.human.study_file import ANSWERS, MEDIA

pytest.importorskip('starlette', reason='needs the extra web')
pytest.importorskip('uvicorn', reason='needs the extra web')


@pytest.fixture(scope='module')
def browser():
  with browsers.chromium() as found:
    yield found


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """-> (study of 4 + 2 trials, its folder)."""
  where = tmp_path_factory.mktemp('study')
  return served.make(where, scenes=6), where / 'study'


@pytest.fixture(scope='module')
def link(made):
  with served.running(*made) as (_, link, _):
    yield link


def sharp(made, number, index):
  """-> 0 or 1: the side of the original, or of the sharp picture."""
  trial = trial_lists.trial_list(made, number)[index]
  return next(
    i for i, m in enumerate(trial.shown) if m in ('original', 'better')
  )


def go(page, answer, first=0, last=6, practice=4):
  """Answers the trials first to last - 1; answer(index) presses something."""
  for index in range(first, last):
    page.wait_for_selector('#answers button:enabled')
    answer(index)
    if index < practice:
      page.locator('#next').click()


def rows_of(folder, code):
  rows = [
    json.loads(s)
    for s in (folder / ANSWERS).read_text(encoding='utf-8').splitlines()
  ]
  return [row for row in rows if row['person'] == code]


def test_two_persons_at_once_one_reloads_one_touches(browser, made, link):
  study, folder = made
  desk = browser.new_context(viewport={'width': 1440, 'height': 900})
  phone = browser.new_context(
    viewport={'width': 320, 'height': 568},
    device_scale_factor=2,
    has_touch=True,
    is_mobile=True,
    color_scheme='dark',
  )
  (one, *seen), (two, *also) = browsers.watched(desk), browsers.watched(phone)
  for page in (one, two):
    page.goto(link)
    page.locator('#agree').click()
  go(one, lambda i: one.keyboard.press('fj'[sharp(study, 0, i)]), last=3)
  go(
    two,
    lambda i: two.locator('#answers button').nth(1 - sharp(study, 1, i)).tap(),
    last=5,
  )
  # In the middle of the fourth trial, which has no answer yet.
  one.wait_for_selector('#answers button:enabled')
  one.reload()
  assert one.locator('#agree').inner_text() == 'Go on where you stopped'
  one.locator('#agree').click()
  one.wait_for_selector('#answers button:enabled')
  assert one.locator('#place').inner_text() == 'Practice 4 of 4'
  keys = ('ArrowLeft', 'ArrowRight')
  go(one, lambda i: one.keyboard.press(keys[sharp(study, 0, i)]), first=3)
  # The other one closes the tab, and comes back.
  two.close()
  two, *also = browsers.watched(phone)
  two.goto(link)
  two.locator('#agree').tap()
  go(
    two,
    lambda i: two.locator('#answers button').nth(1 - sharp(study, 1, i)).tap(),
    first=5,
  )
  codes = []
  for page in (one, two):
    page.wait_for_selector('#end:not([hidden])')
    codes.append(page.locator('#code').inner_text())
    # Nothing is wider than the screen.
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
  rows = [rows_of(folder, code) for code in codes]
  for number, own in enumerate(rows):
    assert [row['trial_index'] for row in own] == list(range(6))
    assert {row['list'] for row in own} == {number}
    right = [sharp(study, number, i) for i in range(6)]
    given = [row['response'] for row in own]
    assert given == (right if number == 0 else [1 - side for side in right])
    assert not any(row['hidden'] for row in own)
  assert {row['device_pixel_ratio'] for row in rows[1]} == {2}
  assert seen[0] == also[0] == []
  own = '/'.join(link.split('/')[:3])
  assert seen[1] == also[1] == {own}
  # The report says the same, whatever the time of the pictures was.
  found = study_results.analysis(
    study,
    [
      t
      for t in study_results.scored_trials.score(
        study, answer_file.read([folder / ANSWERS], study)
      )
      if t.part == 'judged'
    ],
  )
  assert found['conditions'][0]['chosen'] == 1
  assert found['conditions'][0]['trials'] == 2
  for context in (desk, phone):
    context.close()


def test_a_bad_network_loses_no_picture_and_no_answer(browser, made, link):
  study, folder = made
  context = browser.new_context()
  failed = {'media': set(), 'answers': 0}

  held = []  # the first pictures, which do not come for a while

  def picture(route):
    # Each comes at the second try.
    if route.request.url in failed['media']:
      route.continue_()
    else:
      failed['media'].add(route.request.url)
      if len(failed['media']) <= 2:
        held.append(route)
      else:
        route.abort()

  def kept(route):
    failed['answers'] += 1
    if failed['answers'] == 1:
      route.abort()
    elif failed['answers'] == 2:  # a proxy that is out of order
      route.fulfill(status=502, body='')
    else:
      route.continue_()

  context.route('**/media/*', picture)
  context.route('**/answers', kept)
  page, _, _ = browsers.watched(context)
  page.goto(link)
  page.locator('#agree').click()
  page.wait_for_selector('text=Loading the pictures')
  assert page.locator('#answers button:enabled').count() == 0
  for route in held:
    route.abort()
  go(page, lambda i: page.locator('#answers button').first.click())
  page.wait_for_selector('#end:not([hidden])')
  rows = rows_of(folder, page.locator('#code').inner_text())
  assert [row['trial_index'] for row in rows] == list(range(6))
  assert failed['answers'] == 8 and len(failed['media']) == 12
  context.close()


def test_a_server_that_starts_anew_is_found_again(browser, tmp_path):
  study = served.make(tmp_path, scenes=6)
  folder = tmp_path / 'study'
  context = browser.new_context()
  page, _, _ = browsers.watched(context)
  with served.running(study, folder) as (host, link, _):
    page.goto(link)
    page.locator('#agree').click()
    go(page, lambda i: page.locator('#answers button').first.click(), last=2)
  place = served.local_server.Place(port=int(host.split(':')[1]))
  with served.running(study, folder, place=place):
    go(page, lambda i: page.locator('#answers button').first.click(), first=2)
    page.wait_for_selector('#end:not([hidden])')
    rows = rows_of(folder, page.locator('#code').inner_text())
  assert [row['trial_index'] for row in rows] == list(range(6))
  context.close()


def test_a_folder_of_files_needs_no_server(browser, tmp_path):
  study = served.make(
    tmp_path, task='rating', scenes=6, methods=('original', 'a', 'b')
  )
  folder, out = tmp_path / 'study', tmp_path / 'panel'
  panel_folder.write(study, folder, out, lists=2)
  context = browser.new_context(accept_downloads=True)
  page, problems, asked = browsers.watched(context)
  page.goto(f'{(out / "index.html").as_uri()}?list=1')
  page.locator('#agree').click()
  go(page, lambda i: page.keyboard.press('4'), last=4)
  page.close()  # The tab is closed, and opened again.
  page, *_ = browsers.watched(context)
  page.goto((out / 'index.html').as_uri())
  page.locator('#agree').click()
  buttons = page.get_by_role('button', name='2 poor')
  go(page, lambda i: buttons.click(), first=4)
  page.wait_for_selector('#end:not([hidden])')
  with page.expect_download() as download:
    page.locator('#download').click()
  code = page.locator('#code').inner_text()
  assert download.value.suggested_filename == f'answers_{code}.json'
  given = tmp_path / download.value.suggested_filename
  download.value.save_as(given)
  rows = answer_file.read([given], study)
  assert [row['response'] for row in rows] == [4, 4, 4, 4, 2, 2]
  assert {row['list'] for row in rows} == {1}
  assert problems == [] and asked == {'file://'}
  found = report.write(
    study, folder, [str(given)], tmp_path / 'r.html', overwrite=False
  )
  assert found['persons'][0]['answered'] == 2
  context.close()


@pytest.mark.parametrize('ratio', [1, 1.25, 2])
def test_a_picture_s_pixels_are_whole_pixels_of_the_screen(
  browser, made, link, ratio
):
  study, folder = made
  context = browser.new_context(
    viewport={'width': 500, 'height': 400}, device_scale_factor=ratio
  )
  page = context.new_page()
  page.goto(link)
  page.wait_for_selector('#begin:not([hidden])')
  names = list(study['items'][0]['pictures'].values())
  zoom = page.evaluate(
    """async (names) => {
      for (const id of ['begin', 'trial']) {
        document.getElementById(id).hidden = id !== 'trial';
      }
      const trial = {stimulus: names, lowres: null, width: 16, height: 16};
      const images = await cdmShown.load(trial);
      const stage = document.getElementById('stage');
      const zoom = cdmShown.place(trial, images, stage);
      stage.className = 'shown';
      return zoom;
    }""",
    names,
  )
  screen = np.asarray(
    Image.open(io.BytesIO(page.screenshot())).convert('RGB'), np.int32
  )
  for index, name in enumerate(names):
    box = page.evaluate(
      """(i) => {
        const at = document.querySelectorAll('.box:not(#lowres)')[i]
            .getBoundingClientRect();
        return [at.left * devicePixelRatio, at.top * devicePixelRatio];
      }""",
      index,
    )
    left, top = np.round(box).astype(int)
    pixels = np.asarray(Image.open(folder / MEDIA / name))
    wanted = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    side = 16 * zoom
    np.testing.assert_array_equal(
      screen[top : top + side, left : left + side], wanted
    )
  context.close()


@pytest.mark.parametrize('hertz', [59.94, 144])
def test_the_time_is_the_nearest_whole_number_of_frames(
  browser, made, link, hertz
):
  """With a clock of our own: frames that come as a screen's do."""
  context = browser.new_context()
  page = context.new_page()
  page.goto(link)
  found = page.evaluate(
    """async (hertz) => {
      let count = 0;
      window.requestAnimationFrame = (call) =>
          queueMicrotask(() => call(1000 * (count += 1) / hertz));
      const stage = document.createElement('div');
      let start = 0;
      const seen = await cdmShown.show(stage, 3, (time) => { start = time; });
      return {...seen, start, end: 1000 * count / hertz};
    }""",
    hertz,
  )
  assert found['frames'] == round(3 * hertz)
  assert found['shown_ms'] == pytest.approx(1000 * round(3 * hertz) / hertz)
  assert found['end'] - found['start'] == pytest.approx(found['shown_ms'])
  assert abs(found['shown_ms'] - 3000) <= 500 / hertz
  context.close()


def test_a_window_that_is_too_small_is_said_to_be(browser, made, link):
  context = browser.new_context(viewport={'width': 320, 'height': 568})
  page = context.new_page()
  page.goto(link)

  def at(width, lowres=None):
    return page.evaluate(
      """([width, lowres]) => cdmShown.layout(
          {stimulus: ['a', 'b'], lowres, width, height: width}, 300, 320, 1)
      """,
      [width, lowres],
    )

  assert at(128)['zoom'] == 1 and at(143)['zoom'] == 0
  # Three of 100 pixels are too wide, but the low-res one fits above the two.
  assert at(100, 'c') == {'zoom': 1, 'above': True}
  assert at(20, 'c') == {'zoom': 7, 'above': True}
  context.close()
