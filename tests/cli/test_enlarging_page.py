"""Pictures become larger in a real browser, and images are drawn there."""

import io
import re
import struct
import zlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from support import browsers, served_pictures, smoke_runs

from cdm.cli.web.enlarging.serving_limits import ServingLimits

pytest.importorskip('starlette', reason='needs the extra web')
pytest.importorskip('uvicorn', reason='needs the extra web')

LIMITS = ServingLimits(upload_bytes=200_000)
# Into the page as a person drops it, or pastes it.
GIVE = """([name, bytes]) => {
  const box = new DataTransfer();
  const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
  box.items.add(new File([data], name));
  const given = {bubbles: true, cancelable: true};
  document.dispatchEvent(EVENT);
}"""
DROP = GIVE.replace(
  'EVENT', "new DragEvent('drop', {...given, dataTransfer: box})"
)
PASTE = GIVE.replace(
  'EVENT', "new ClipboardEvent('paste', {...given, clipboardData: box})"
)
SAMPLES = """(id) => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext('2d')
      .getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, canvas.width, ...data];
}"""
CLIP = "document.getElementById('over').style.clipPath"


@pytest.fixture(scope='module')
def browser():
  with browsers.chromium() as found:
    yield found


@pytest.fixture(scope='module')
def link(browser, tmp_path_factory):
  """-> the address of a page with a real worker and a small model."""
  folder = tmp_path_factory.mktemp('real')
  packed = str(served_pictures.packed())
  with mock.patch.dict('os.environ', smoke_runs.programs()):
    command = served_pictures.worker(LIMITS, workdir=packed)
    with served_pictures.running(command, folder, LIMITS) as (_, link, *_):
      yield link


@pytest.fixture(scope='module')
def slow(browser, tmp_path_factory):
  """-> the address of a page where parts take until they are cancelled."""
  command = served_pictures.stand_in('photographs', 'slow')
  folder = tmp_path_factory.mktemp('slow')
  with served_pictures.running(command, folder) as (_, link, *_):
    yield link


def encoded(path):
  import base64

  return [path.name, base64.b64encode(path.read_bytes()).decode()]


def settled(page):
  """Waits until nothing is worked on, and the layers are shown."""
  page.wait_for_selector('#busy', state='hidden')


def samples(page, canvas):
  """-> the samples of a canvas, uint8 [H, W, 3]."""
  height, width, *data = page.evaluate(SAMPLES, canvas)
  found = np.array(data, np.uint8).reshape(height, width, 4)
  assert (found[..., 3] == 255).all()
  return found[..., :3]


def layer(page, which):
  """-> the samples of the layer that is chosen at a side, once it is there."""
  chosen = page.locator(which).input_value()
  canvas = {'#left': 'before', '#right': 'after'}[which]
  page.wait_for_selector(f'#{canvas}[data-layer="{chosen}"]', state='attached')
  return samples(page, canvas)


def choose(page, which, text):
  """Chooses a layer by its words. -> its samples."""
  page.locator(which).select_option(label=text)
  return layer(page, which)


def test_from_a_dropped_picture_to_the_file_of_the_command(
  browser, link, tmp_path
):
  exif = Image.Exif()
  exif[271] = 'Maker'
  photo = served_pictures.photo(tmp_path / 'cät <b>.jpg', exif=exif, quality=95)
  context = browser.new_context(viewport={'width': 1440, 'height': 1000})
  page, problems, asked = browsers.watched(context)
  page.goto(link)
  page.evaluate(DROP, encoded(photo))
  page.wait_for_selector('#right option:nth-child(6)', state='attached')
  settled(page)
  assert page.locator('#name').inner_text() == 'cät b.jpg'
  assert '40 × 30 pixels, 8 bits; with EXIF' in page.inner_text('#facts')
  # Layers: bicubic, the mean, and four guesses, blended with it at once.
  bicubic = layer(page, '#left')
  assert bicubic.shape == (96, 96, 3)
  mean = choose(page, '#left', 'faithful').astype(np.float64)
  page.locator('#detail').evaluate(SET, 100)
  drawn = [choose(page, '#right', f'guess {n}') for n in (1, 2)]
  assert (drawn[0] != drawn[1]).mean() > 0.5
  for share in (0, 37, 100):
    page.locator('#detail').evaluate(SET, share)
    found = layer(page, '#right')
    exact = mean + share / 100 * (drawn[1] - mean)
    assert np.abs(found - exact).max() <= 0.5 + 1e-9
  # The divider: by keys, by the mouse, and what is left of it is the other one.
  assert page.evaluate(CLIP) == 'inset(0px 0px 0px 50%)'
  page.locator('#divider').focus()
  page.keyboard.press('ArrowRight')
  assert page.evaluate(CLIP) == 'inset(0px 0px 0px 50.1%)'
  box = page.locator('#viewport').bounding_box()
  middle = box['y'] + box['height'] / 2
  page.mouse.move(box['x'] + 0.501 * box['width'], middle)
  page.mouse.down()
  page.mouse.move(box['x'] + 0.5 * box['width'] + 20, middle, steps=3)
  page.mouse.up()
  # One pixel is one of the screen, on both sides.
  screen = np.asarray(
    Image.open(io.BytesIO(page.locator('#viewport').screenshot()))
  )[..., :3]
  wide, high = screen.shape[1], screen.shape[0]
  left, top = round((wide - 96) / 2), round((high - 96) / 2)
  part = screen[top : top + 96, left : left + 96]
  both = [samples(page, 'before'), samples(page, 'after')]
  np.testing.assert_array_equal(part[:, :60], both[0][:, :60])
  np.testing.assert_array_equal(part[:, 76:], both[1][:, 76:])
  # Both move and grow in step.
  page.locator('#viewport').focus()
  before = page.locator('#before').bounding_box()
  page.keyboard.press('+')
  page.mouse.wheel(0, -100)
  assert page.inner_text('#zoomed') in ('300 %', '200 %')
  assert page.locator('#after').bounding_box()['width'] > before['width']
  assert (
    page.locator('#after').bounding_box()
    == page.locator('#before').bounding_box()
  )
  # Where eight guesses disagree.
  page.locator('#disagree').click()
  page.wait_for_selector('#legend:not([hidden])')
  settled(page)
  assert page.locator('#right option').count() == 11
  page.locator('#right').select_option(label='guess 2')
  # The whole, as the command writes it, at the detail of the slider.
  page.locator('#detail').evaluate(SET, 25)
  page.locator('#make').click()
  with page.expect_download() as download:
    page.locator('#files a').click()
  assert download.value.suggested_filename == 'cät b_x4.jpg'
  download.value.save_as(tmp_path / 'page.jpg')
  words = (
    '--scale=4',
    '--seed=1',
    '--detail=0.25',
    f'--out={tmp_path}/own.jpg',
  )
  workdir = f'--workdir={served_pictures.packed()}'
  assert smoke_runs.cdm('upscale', workdir, photo, *words) == 0
  written = (tmp_path / 'own.jpg').read_bytes()
  assert (tmp_path / 'page.jpg').read_bytes() == written
  shown = layer(page, '#right')
  np.testing.assert_array_equal(
    shown, np.asarray(Image.open(tmp_path / 'own.jpg'))
  )
  # A reload finds it again; it goes when its user says so.
  page.reload()
  page.wait_for_selector('#files a')
  assert page.locator('#history li').count() == 1
  page.locator('#history button[aria-label^="Remove"]').click()
  page.wait_for_selector('#past', state='hidden')
  assert page.locator('#work').is_hidden()
  assert problems == [] and asked == {'/'.join(link.split('/')[:3])}
  context.close()


SET = """(input, value) => {
  input.value = value;
  input.dispatchEvent(new Event('input', {bubbles: true}));
}"""


def bomb():
  """-> a PNG file of a few bytes that says it has 50,000 x 50,000 pixels."""
  head = b'IHDR' + struct.pack('>IIBBBBB', 50_000, 50_000, 8, 2, 0, 0, 0)
  data = b'IDAT' + zlib.compress(bytes(1000))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(chunk) - 4)
    + chunk
    + struct.pack('>I', zlib.crc32(chunk))
    for chunk in (head, data, b'IEND')
  )


def test_what_is_no_picture_is_said_on_a_phone(browser, link, tmp_path):
  """Dark, 320 px wide, by touch; a wrong kind, too many bytes, a bomb."""
  context = browser.new_context(
    viewport={'width': 320, 'height': 568},
    device_scale_factor=2,
    has_touch=True,
    is_mobile=True,
    color_scheme='dark',
  )
  page, problems, _ = browsers.watched(context)
  page.goto(link)
  for name, data, said in (
    ('letter.pdf', b'%PDF-1.4 nothing', 'is a PDF document, not a'),
    ('large.png', bytes(200_001), 'this page takes 0.19'),
    ('bomb.png', bomb(), 'has 50,000x50,000 pixels; this page takes 40 mega'),
  ):
    page.set_input_files(
      '#chosen', dict(name=name, mimeType='image/png', buffer=data)
    )
    page.wait_for_selector(f'#problem:has-text("{said}")')
  # The picture before is not in the way of the next one.
  photo = served_pictures.photo(tmp_path / 'wide.png', width=100)
  page.evaluate(PASTE, encoded(photo))
  page.wait_for_selector('#right option:nth-child(6)', state='attached')
  settled(page)
  assert page.locator('#problem').is_hidden()
  assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
  assert (
    page.evaluate('getComputedStyle(document.body).backgroundColor')
    == 'rgb(22, 24, 26)'
  )
  # By touch: the divider, and another part.
  page.locator('#divider').scroll_into_view_if_needed()
  box = page.locator('#divider').bounding_box()
  page.touchscreen.tap(
    box['x'] + 0.8 * box['width'], box['y'] + box['height'] / 2
  )
  share = float(re.search(r'([\d.]+)%', page.evaluate(CLIP))[1])
  assert 75 < share < 85
  page.locator('#overview').scroll_into_view_if_needed()
  box = page.locator('#overview').bounding_box()
  # What has most texture stands somewhere; the other end is looked at.
  at = page.locator('#frame').bounding_box()['x'] - box['x']
  end = 2 if at > box['width'] / 2 else box['width'] - 2
  with page.expect_request('**/part') as request:
    page.touchscreen.tap(box['x'] + end, box['y'] + 1)
  sent = request.value.post_data_json
  assert (sent['top'], sent['height'], sent['width']) == (0, 24, 24)
  assert sent['left'] == (0 if end == 2 else 76)
  settled(page)
  assert problems == []
  context.close()


def test_two_tabs_a_reload_in_the_middle_and_a_cancel(browser, slow, tmp_path):
  context = browser.new_context(viewport={'width': 1440, 'height': 1000})
  (one, *problems), (two, *_) = (
    browsers.watched(context),
    browsers.watched(context),
  )
  photo = served_pictures.photo(tmp_path / 'cat.png')
  one.goto(slow)
  one.set_input_files('#chosen', photo)
  one.wait_for_selector('#told:has-text("Enlarging the part")')
  two.goto(slow)
  two.set_input_files('#chosen', photo)
  two.wait_for_selector('#told:has-text("Waiting: 1 before it")')
  one.wait_for_selector('#told:has-text("left")')
  one.reload()  # It goes on where it was.
  one.wait_for_selector('#told:has-text("left")')
  assert one.locator('#name').inner_text() == 'cat.png'
  assert one.locator('#history li').count() == 1
  # Without events, the page asks every second.
  two.route('**/events', lambda route: route.abort())
  two.reload()
  two.wait_for_selector('#told:has-text("Waiting")')
  one.locator('#cancel').click()
  settled(one)
  two.wait_for_selector('#told:has-text("Enlarging the part")')
  two.locator('#cancel').click()
  settled(two)
  assert one.locator('#problem').is_hidden()
  assert problems[0] == []
  context.close()


def test_a_cascade_is_drawn_by_class_seed_and_guidance(browser, tmp_path):
  command = served_pictures.stand_in('cascade', 'good')
  context = browser.new_context()
  with served_pictures.running(command, tmp_path) as (_, link, _, app):
    page, problems, asked = browsers.watched(context)
    page.goto(link)
    page.locator('#class').select_option(label='a dog')
    page.locator('#seed').fill('7')
    page.get_by_label('Guidance of base').fill('1.5')
    page.get_by_role('button', name='Draw').click()
    page.wait_for_selector('.draw figure:nth-child(2)')
    page.reload()
    page.wait_for_selector('.draw figure:nth-child(2)')
    title = page.locator('.draw h2').inner_text()
    widths = page.locator('.draw img').evaluate_all(
      'images => images.map((image) => image.naturalWidth)'
    )
    (entry,) = app.entries._entries.values()
    request = entry.tasks[0].request
  assert title == 'seed 7, a dog' and widths == [8, 16, 8, 16]
  assert (request['label'], request['seed'], request['count']) == (1, 7, 2)
  assert request['guidance'] == {'base': 1.5}
  assert problems == [] and len(asked) == 1
  context.close()
