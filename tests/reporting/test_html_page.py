import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from cdm.reporting import bar_chart, html_page, line_chart

VOID = {'meta', 'img', 'br', 'link'}


class Document(html.parser.HTMLParser):
  """Parses strictly: every tag that opens is closed, in order."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.text = [], [], []
    self.feed(text)
    self.close()
    assert not self.open, f'left open: {self.open}'

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)

  def all(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]


def png(size=(4, 6)):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue(), pixels


def whole_page():
  picture, _ = png()
  return html_page.build_page(
    'A cascade',
    [
      html_page.Section(
        'Pictures', ('Text.', html_page.image(picture, 'A crop'))
      ),
      (
        'Numbers',
        [html_page.table([{'n': 3, 'psnr': 27.3}]), html_page.code('cdm')],
      ),
      (
        'Curves',
        [html_page.row(html_page.curve_svg({'a': [(0, 2.0), (9, 1.0)]}))],
      ),
    ],
    subtitle='small',
    footer='end',
  )


def test_a_page_is_one_well_formed_document():
  document = Document(whole_page())
  assert [tag for tag, _ in document.tags].count('html') == 1
  assert document.all('meta')[0] == {'charset': 'utf-8'}
  for text in ('A cascade', 'Pictures', 'Text.', 'A crop', 'small', 'end'):
    assert any(text in found for found in document.text), text


def test_a_page_asks_for_nothing_outside_itself():
  text = whole_page()
  for _, attributes in Document(text).tags:
    for name in ('src', 'href', 'xlink:href', 'data', 'action', 'srcset'):
      assert attributes.get(name, 'data:').startswith('data:')
    assert not any(name.startswith('on') for name in attributes)
  assert '<script' not in text and '<link' not in text
  assert not re.search(r'url\(|@import|https?://', text)


def test_a_page_follows_light_and_dark():
  text = whole_page()
  assert 'prefers-color-scheme: dark' in text
  light, dark = text.split('prefers-color-scheme: dark', 1)
  for i in range(line_chart.COLORS):
    assert f'--c{i}:' in light and f'--c{i}:' in dark


def test_a_picture_is_the_very_bytes_that_were_given():
  data, pixels = png()
  (image,) = Document(html_page.image(data, 'crop', scale=3)).all('img')
  stored = base64.b64decode(image['src'].removeprefix('data:image/png;base64,'))
  assert stored == data
  np.testing.assert_array_equal(Image.open(io.BytesIO(stored)), pixels)
  assert image['width'] == '18' and image['alt'] == 'crop'


LOG_Y = line_chart.Axes(log_y=True)
EVIL = '<script>alert("1")</script> & \'x\''


def test_no_string_can_become_markup():
  data, _ = png()
  parts = [
    EVIL,
    html_page.paragraph(EVIL),
    html_page.code(EVIL),
    html_page.image(data, EVIL),
    html_page.image(data, alt=EVIL),
    html_page.table([[EVIL, 1]], header=[EVIL, 'n'], caption=EVIL),
    html_page.curve_svg(
      {EVIL: [(0, 1), (1, 2)]},
      axes=line_chart.Axes(x_label=EVIL, y_label=EVIL),
      caption=EVIL,
    ),
    html_page.curve_svg({EVIL: []}, caption=EVIL),
    html_page.row(EVIL),
    html_page.strip([[data]], heads=[EVIL], names=[EVIL], caption=EVIL),
    html_page.notice(EVIL),
    html_page.subheading(EVIL),
    html_page.bullets([EVIL, html_page.joined(EVIL, html_page.strong(EVIL))]),
    html_page.stacked(EVIL, EVIL),
    html_page.figure(
      bar_chart.svg([1, 2], x_label=EVIL, y_label=EVIL, names=[EVIL, '']), EVIL
    ),
    html_page.curve_svg(
      {'a': [(0, 1), (1, 2)]},
      axes=line_chart.Axes(x_names=[EVIL, 'x']),
      smoothing=0,
    ),
  ]
  text = html_page.build_page(EVIL, [(EVIL, parts)], subtitle=EVIL, footer=EVIL)
  document = Document(text)  # well-formed, and without a script
  assert not document.all('script')
  assert text.count(html_page._escape(EVIL)) >= 15
  assert EVIL in document.all('img')[0]['alt']


def points(svg, kind):
  """-> [[x, y], ...] of each path of a class, in drawing units."""
  return [
    np.array([p.split(',') for p in path['d'][1:].split()], float)
    for path in Document(svg).all('path')
    if path['class'] == kind
  ]


def test_a_curve_is_drawn_where_its_values_are():
  svg = line_chart.svg({'a': [(0, 1.0), (50, 3.0), (100, 2.0)]}, smoothing=0)
  (drawn,) = points(svg, 'curve')
  assert not points(svg, 'raw')
  np.testing.assert_allclose(
    (drawn[:, 0] - drawn[0, 0]) / np.ptp(drawn[:, 0]), [0, 0.5, 1]
  )
  up = (drawn[0, 1] - drawn[:, 1]) / (drawn[0, 1] - drawn[1, 1])
  np.testing.assert_allclose(up, [0, 1, 0.5], atol=0.01)


def test_the_axes_name_values_where_they_are():
  """The tick labelled v stands at the height of a point of value v."""
  svg = line_chart.svg({'a': [(0, 0.01), (1, 100.0)]}, LOG_Y, smoothing=0)
  (drawn,) = points(svg, 'curve')
  labels = dict(re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', svg))
  heights = {float(v): float(y) - 4 for y, v in labels.items()}
  np.testing.assert_allclose(heights[0.01], drawn[0, 1], atol=0.11)
  np.testing.assert_allclose(heights[100], drawn[1, 1], atol=0.11)
  np.testing.assert_allclose(heights[1], drawn[:, 1].mean(), atol=0.11)


def test_smoothing_keeps_the_level_and_does_not_lag():
  n = np.arange(400)
  noise = np.random.default_rng(0).normal(0, 0.2, 400)
  noisy = list(zip(n, 3.0 - n / 200 + noise, strict=True))
  svg = line_chart.svg({'a': noisy}, smoothing=0.1)
  (raw,), (smooth,) = points(svg, 'raw'), points(svg, 'curve')
  line = np.polyval(np.polyfit(n, raw[:, 1], 1), n)
  middle = slice(40, -40)
  assert np.std(smooth[middle, 1] - line[middle]) < 0.3 * np.std(
    raw[:, 1] - line
  )
  assert abs(np.mean(smooth[middle, 1] - line[middle])) < 1.0


def test_intervals_stand_on_their_points_and_inside_the_drawing():
  series, bands = {'a': [(0, 2.0), (1, 3.0)]}, {'a': [(0, 1.0, 4.0)]}
  svg = line_chart.svg(
    series,
    line_chart.Axes(x_names=['clean', '5']),
    bands=bands,
    smoothing=0,
    size=(360, 240),
  )
  (drawn,), (whisker,) = points(svg, 'curve'), points(svg, 'whisker')
  np.testing.assert_allclose(whisker[:, 0], drawn[0, 0], atol=0.1)
  step = drawn[0, 1] - drawn[1, 1]  # of one unit
  np.testing.assert_allclose(
    whisker[:, 1], drawn[0, 1] + step * np.array([1, -2]), atol=0.2
  )
  assert whisker[:, 1].min() > line_chart.TOP
  assert whisker[:, 1].max() < 240 - line_chart.BOTTOM
  texts = Document(svg).text
  assert 'clean' in texts and '5' in texts and '0.5' not in texts
  none = {'a': [(0, float('nan'), 4.0)], 'b': [(0, 1.0, 2.0)]}
  assert not points(line_chart.svg(series, bands=none, smoothing=0), 'whisker')


def test_points_without_an_order_are_not_joined():
  svg = line_chart.svg({'a': [(0, 2.0), (1, 3.0)]}, smoothing=0, joined=False)
  assert not points(svg, 'curve')
  assert len(Document(svg).all('circle')) == 2


def test_the_diagonal_is_where_both_are_equal():
  """Axes of one range, so a point on it lies on the line."""
  given = [(2.0, 2.0), (5.0, 9.0), (7.0, 7.0)]
  svg = line_chart.svg(
    {'a': given}, line_chart.Axes(diagonal=True), smoothing=0
  )
  (drawn,), (ideal,) = points(svg, 'curve'), points(svg, 'ideal')
  along = np.polyfit(ideal[:, 0], ideal[:, 1], 1)
  apart = drawn[:, 1] - np.polyval(along, drawn[:, 0])
  np.testing.assert_allclose(apart[[0, 2]], 0.0, atol=0.2)
  assert apart[1] < -20
  # Ends at opposite corners: both axes have the same range.
  corners = [
    (line_chart.LEFT, line_chart.HEIGHT - line_chart.BOTTOM),
    (line_chart.WIDTH - line_chart.RIGHT, line_chart.TOP),
  ]
  np.testing.assert_allclose(ideal, corners, atol=0.1)


def test_long_names_of_ticks_stand_in_two_lines():
  def heights(names):
    svg = line_chart.svg(
      {'a': [(i, 1.0 + i) for i in range(6)]},
      line_chart.Axes(x_names=names),
      smoothing=0,
      size=(360, 240),
      joined=False,
    )
    return {re.search(f'y="([0-9.]+)" text-anchor="middle">{n}<', svg)[1]
            for n in names}  # fmt: skip

  assert len(heights(list('abcdef'))) == 1
  assert len(heights(['bilinear', *'bcdef'])) == 2


def test_bars_are_as_high_as_their_numbers():
  svg = bar_chart.svg([1.0, 0.0, 3.0], x_label='x', y_label='y', ideal=1.0)
  drawn = Document(svg).all('rect')
  high = np.array([float(bar['height']) for bar in drawn])
  np.testing.assert_allclose(high / high[2], [1 / 3, 0, 1], atol=0.01)
  (ideal,) = points(svg, 'ideal')
  np.testing.assert_allclose(ideal[:, 1], float(drawn[0]['y']), atol=0.1)
  feet = [float(bar['y']) + float(bar['height']) for bar in drawn]
  np.testing.assert_allclose(feet, 240 - line_chart.BOTTOM, atol=0.2)
  lefts = [float(bar['x']) for bar in drawn]
  assert sorted(lefts) == lefts
  with pytest.raises(ValueError, match='none below zero'):
    bar_chart.svg([], x_label='x', y_label='y')


def test_a_strip_has_every_picture_in_its_place():
  small, _ = png((2, 2))
  large, _ = png((4, 4))
  text = html_page.strip(
    [[small, None], [large, large]],
    heads=['clean', '5'],
    names=['given', 'ours'],
    scale=[4, 2],
  )
  images = Document(text).all('img')
  assert [i['width'] for i in images] == ['8', '8', '8']
  assert [i['alt'] for i in images] == [
    'given, clean', 'ours, clean', 'ours, 5'
  ]  # fmt: skip
  with pytest.raises(ValueError, match='a name per row and a head per column'):
    html_page.strip([[small]], heads=['a', 'b'], names=['x'])


def test_values_that_are_no_numbers_are_left_out():
  noisy = [(0, 1.0), (1, float('nan')), (2, float('inf')), (3, 2.0)]
  (drawn,) = points(line_chart.svg({'a': noisy}, smoothing=0), 'curve')
  assert len(drawn) == 2
  (drawn,) = points(
    line_chart.svg({'a': [(0, -1.0), (1, 0.0), (2, 3.0)]}, LOG_Y), 'curve'
  )
  assert len(drawn) == 1


def test_a_long_curve_stays_small_and_keeps_its_end():
  long = [(i, 1.0 + i) for i in range(100_000)]
  svg = line_chart.svg({'a': long}, smoothing=0)
  assert len(svg) < 20_000
  (drawn,) = points(svg, 'curve')
  np.testing.assert_allclose(
    drawn[-1, 0], line_chart.WIDTH - line_chart.RIGHT, atol=0.1
  )


@pytest.mark.parametrize(
  'values', [[(5, 0.0)], [(5, -2.0), (5, -2.0)], [(0, 1e-9), (1e6, 2e-9)]]
)
def test_flat_and_single_and_tiny_curves_are_drawn(values):
  svg = line_chart.svg({'a': values})
  (drawn,) = points(svg, 'curve')
  assert np.isfinite(drawn).all()
  assert (drawn[:, 0] >= line_chart.LEFT).all()
  assert (drawn[:, 0] <= line_chart.WIDTH - line_chart.RIGHT).all()
  assert 'nan' not in svg


def test_nothing_recorded_is_said_in_words():
  text = html_page.curve_svg({'a': []}, caption='Loss of the base')
  assert 'Loss of the base: no values were recorded' in text


def test_numbers_are_right_aligned_and_words_are_not():
  text = html_page.table(
    [
      {'method': 'bicubic', 'psnr': 27.31874, 'n': 1200, 'c': 2.68e-5},
      {'method': 'ours', 'psnr': None, 'n': np.int64(-3), 'c': np.float32(0.5)},
    ],
    caption='Held out',
    mark=1,
  )
  document = Document(text)
  words = [word for word in document.text if word.strip()]
  assert words == [
    'Held out', 'method', 'psnr', 'n', 'c', 'bicubic', '27.32', '1\u202f200',
    '2.680e\u221205', 'ours', '\u2013', '\u22123', '0.5000',
  ]  # fmt: skip
  assert [cell.get('class') for cell in document.all('td')] == 2 * [
    None, 'number', 'number', 'number'
  ]  # fmt: skip
  assert [r.get('class') for r in document.all('tr')] == [None, None, 'marked']


def test_html_in_a_cell_or_a_part_is_put_in_as_it_is():
  picture = html_page.image(png()[0], 'in a cell')
  document = Document(
    html_page.table([['crop', picture], ['words', 'no picture']])
  )
  assert len(document.all('img')) == 1


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: html_page.image(b'GIF89a'), 'bytes of a PNG'),
    (lambda: html_page.table([]), 'at least one row'),
    (lambda: html_page.table([[1, 2], [3]]), r'2 cells.*\[2, 1\]'),
    (lambda: html_page.table([{'a': 1}, {'b': 1}]), r'same keys.*a.*b'),
    (
      lambda: line_chart.svg({'a': [(0, 1)]}, smoothing=1.0),
      'smoothing is 1.0',
    ),
  ],
)
def test_what_cannot_be_shown_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
