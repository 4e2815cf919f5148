"""One self-contained HTML document: pictures, curves and tables in one file.

Everything is inside: pictures as data URIs, curves as SVG, the style sheet in
the head. No script, no font and no request, so the file can be mailed or
opened offline; it follows the reader's light or dark setting. Pure functions:
strings and bytes in, text out, all of it escaped.
"""

import base64
import html
import math
import numbers
from typing import NamedTuple

from cdm.reporting import line_chart

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --ink: #1c1d1f; --quiet: #63666b; --line: #dfe0dd;
  --panel: #ffffff; --good: #eef5ee;
  --c0: #0068a8; --c1: #c2500a; --c2: #00805c; --c3: #a8487f; --c4: #8a6d00;
  --c5: #3d5a80;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181a; --ink: #e7e6e3; --quiet: #9a9da3; --line: #34373b;
    --panel: #1e2124; --good: #1f2b22;
    --c0: #5cb3ea; --c1: #f0954f; --c2: #4cc79d; --c3: #e08fbd; --c4: #dcc04a;
    --c5: #9db4d6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; font-weight: 650; }
h2 {
  margin: 2.75rem 0 .75rem; padding-top: 1rem; font-size: 1.15rem;
  font-weight: 650; border-top: 1px solid var(--line);
}
h3 { margin: 1.75rem 0 .25rem; font-size: 1rem; font-weight: 650; }
p { max-width: 46rem; margin: .75rem 0; }
.subtitle, footer { color: var(--quiet); }
footer {
  margin-top: 3rem; padding-top: 1rem; font-size: .85rem;
  border-top: 1px solid var(--line);
}
figure { margin: 1rem 0; }
figcaption {
  margin-top: .5rem; color: var(--quiet); font-size: .875rem;
  max-width: 46rem;
}
img {
  display: block; max-width: 100%; height: auto; border-radius: 4px;
  border: 1px solid var(--line);
}
img.sharp { image-rendering: pixelated; }
.row { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: flex-start; }
.row > * { flex: 1 1 18rem; min-width: 0; }
.wide { overflow-x: auto; }
table {
  border-collapse: collapse; font-size: .925rem;
  font-variant-numeric: tabular-nums;
}
caption {
  padding-bottom: .5rem; color: var(--quiet); font-size: .875rem;
  text-align: left;
}
th, td {
  padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: baseline;
}
th { color: var(--quiet); font-weight: 550; white-space: nowrap; }
.number { text-align: right; }
tr.marked td { background: var(--good); font-weight: 600; }
.stacked { white-space: nowrap; }
.stacked small { color: var(--quiet); font-weight: 400; }
tr.faint td { color: var(--quiet); }
.strip { font-size: .8rem; }
.strip th, .strip td { padding: 0 .35rem .35rem 0; border: 0; }
.strip img { max-width: none; }
.strip tbody th { font-weight: 400; vertical-align: middle; }
.notice {
  max-width: 46rem; margin: .75rem 0; padding: .6rem .9rem;
  border-left: 3px solid var(--c1); background: var(--panel);
}
ul { max-width: 46rem; margin: .75rem 0; padding-left: 1.2rem; }
li { margin: .35rem 0; }
pre {
  overflow-x: auto; margin: .75rem 0; padding: .75rem 1rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: 4px;
  font: .85rem/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, monospace;
}
svg {
  display: block; width: 100%; max-width: 46rem; height: auto;
  background: var(--panel);  border: 1px solid var(--line); border-radius: 4px;
}
svg text { fill: var(--quiet); font-size: 13px; }
svg .label { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .raw { fill: none; stroke-width: 1; opacity: .3; }
svg .end { stroke-width: 2; fill: var(--panel); }
svg .whisker { fill: none; stroke-width: 1.5; opacity: .55; }
svg .ideal {
  fill: none; stroke: var(--quiet); stroke-width: 1.5; stroke-dasharray: 5 4;
}
svg .bar { fill: var(--c0); }
svg .curve {
  fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round;
}
@media print { body { max-width: none; padding: 0; } }
"""


class Html(str):
  """Text that already is HTML; every other string is escaped on the way in."""


class Section(NamedTuple):
  """A heading and what stands under it.

  Attributes:
    heading: text.
    parts: sequence of `Html`, or of plain strings, which become paragraphs.
  """

  heading: str
  parts: tuple


def build_page(title, sections, *, subtitle='', footer=''):
  """Builds the document.

  Args:
    title: text, in the window's title and on top of the page.
    sections: sequence of `Section` (or of (heading, parts)).
    subtitle: text under the title.
    footer: text at the end.

  Returns:
    A whole HTML document as str.
  """
  body = [f'<h1>{_escape(title)}</h1>']
  if subtitle:
    body.append(f'<p class="subtitle">{_escape(subtitle)}</p>')
  for heading, parts in sections:
    inner = '\n'.join(_part(part) for part in parts)
    body.append(f'<section>\n<h2>{_escape(heading)}</h2>\n{inner}\n</section>')
  if footer:
    body.append(f'<footer>{_escape(footer)}</footer>')
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
    '<body>\n' + '\n'.join(body) + '\n</body>\n</html>\n'
  )


def paragraph(text):
  """text -> Html of a paragraph."""
  return Html(f'<p>{_escape(text)}</p>')


def code(text):
  """text -> Html that keeps line breaks, for commands and their output."""
  return Html(f'<pre>{_escape(text)}</pre>')


def row(*parts):
  """Html beside each other, one under the other where there is no room."""
  return Html(f'<div class="row">{"".join(_part(p) for p in parts)}</div>')


def subheading(text):
  """text -> Html of a heading inside a section."""
  return Html(f'<h3>{_escape(text)}</h3>')


def notice(text):
  """text -> Html of a paragraph that stands out, for a warning."""
  return Html(f'<p class="notice" role="note">{_escape(text)}</p>')


def bullets(texts):
  """texts -> Html of a list; `Html` is put in as it is."""
  items = (x if isinstance(x, Html) else _escape(x) for x in texts)
  return Html(f'<ul>{"".join(f"<li>{item}</li>" for item in items)}</ul>')


def strong(text):
  """text -> Html of words in bold."""
  return Html(f'<strong>{_escape(text)}</strong>')


def joined(*parts):
  """Text and `Html` one after the other, in one line."""
  return Html(''.join(p if isinstance(p, Html) else _escape(p) for p in parts))


def stacked(text, below):
  """Two lines in a cell, the second one small."""
  return Html(
    f'<span class="stacked">{_escape(text)}<br>'
    f'<small>{_escape(below)}</small></span>'
  )


def figure(drawing, caption=''):
  """An <svg> element of `line_chart.svg` or `bar_chart.svg` -> Html."""
  return Html(f'<figure>{drawing}{_caption(caption)}</figure>')


def strip(rows, *, heads, names, scale=1, caption=''):
  """Pictures in rows and columns, each as sharp squares; it scrolls sideways.

  Args:
    rows: sequence of rows of PNG bytes; None leaves a place empty.
    heads: text over each column.
    names: text before each row.
    scale: how many screen pixels a pixel is wide; of one picture, or a
      sequence, one for each row.
    caption: text below.

  Returns:
    Html.

  Raises:
    ValueError: rows or texts of different lengths, or bytes that are no PNG.
  """
  scales = [scale] * len(rows) if isinstance(scale, numbers.Real) else scale
  if len(names) != len(rows) or any(len(r) != len(heads) for r in rows):
    raise ValueError(
      f'A strip has a name per row and a head per column; given were '
      f'{len(names)} names, {len(heads)} heads and rows of '
      f'{[len(r) for r in rows]}.'
    )
  head = ''.join(f'<th>{_escape(text)}</th>' for text in ('', *heads))
  lines = []
  for name, pngs, wide in zip(names, rows, scales, strict=True):
    cells = ''.join(
      '<td></td>'
      if png is None
      else f'<td>{_img(png, f"{name}, {text}", wide)}</td>'
      for png, text in zip(pngs, heads, strict=True)
    )
    lines.append(f'<tr><th>{_escape(name)}</th>{cells}</tr>')
  return Html(
    f'<figure><div class="wide"><table class="strip"><thead><tr>{head}</tr>'
    f'</thead><tbody>{"".join(lines)}</tbody></table></div>'
    f'{_caption(caption)}</figure>'
  )


def picture(png, caption='', *, alt=None, scale=1):
  """A picture with its caption.

  Args:
    png: bytes of a PNG file.
    caption: text below.
    alt: text for those who cannot see it; default the caption.
    scale: how many screen pixels a pixel is wide. Above 1 pixels stay sharp
      squares, so that a small image is judged as it is.

  Returns:
    Html of a figure, the picture inside.

  Raises:
    ValueError: bytes that are no PNG.
  """
  image = _img(png, caption if alt is None else alt, scale)
  return Html(f'<figure>{image}{_caption(caption)}</figure>')


def _img(png, alt, scale):
  if png[:8] != b'\x89PNG\r\n\x1a\n' or png[12:16] != b'IHDR':
    raise ValueError(
      f'picture takes the bytes of a PNG file; given were {png[:16]!r}...'
    )
  width = round(scale * int.from_bytes(png[16:20], 'big'))
  data = base64.b64encode(png).decode('ascii')
  sharp = ' class="sharp"' if scale > 1 else ''
  return (
    f'<img{sharp} width="{width}" alt="{_escape(alt)}" '
    f'src="data:image/png;base64,{data}">'
  )


def table(rows, *, header=None, caption='', mark=None, faint=()):
  """Rows of numbers and text.

  Args:
    rows: sequence of dicts with the same keys, which then are the header, or
      of sequences of equal length. Numbers are right-aligned and rounded to
      four digits; None is a dash; `Html` is put in as it is.
    header: texts over the columns, for sequences.
    caption: text above.
    mark: index of a row to stand out, or None.
    faint: indices of rows to step back.

  Returns:
    Html.

  Raises:
    ValueError: no rows, or rows of different lengths or keys.
  """
  rows = list(rows)
  if not rows:
    raise ValueError('table was given no rows.')
  if isinstance(rows[0], dict):
    header = list(rows[0])
    if any(set(r) != set(header) for r in rows):
      raise ValueError(
        f'Every row of a table has the same keys; the first has {header}, the '
        f'others {[sorted(r) for r in rows[1:]]}.'
      )
    rows = [[r[key] for key in header] for r in rows]
  width = len(rows[0]) if header is None else len(header)
  if any(len(r) != width for r in rows):
    raise ValueError(
      f'Every row of this table has {width} cells; given were rows of '
      f'{[len(r) for r in rows]}.'
    )
  # A column is one of numbers if nothing in it is a word.
  numeric = [
    any(_is_number(r[i]) for r in rows)
    and all(_is_number(r[i]) or r[i] is None for r in rows)
    for i in range(width)
  ]
  lines = []
  if caption:
    lines.append(f'<caption>{_escape(caption)}</caption>')
  if header is not None:
    cells = (
      _cell('th', text, n) for text, n in zip(header, numeric, strict=True)
    )
    lines.append(f'<thead><tr>{"".join(cells)}</tr></thead>')
  lines.append('<tbody>')
  for i, values in enumerate(rows):
    cells = (
      _cell('td', value, n) for value, n in zip(values, numeric, strict=True)
    )
    marked = ' class="marked"' if i == mark else ''
    marked = ' class="faint"' if i in faint else marked
    lines.append(f'<tr{marked}>{"".join(cells)}</tr>')
  lines.append('</tbody>')
  return Html(f'<div class="wide"><table>{"".join(lines)}</table></div>')


def curve_svg(series, *, caption='', **options):
  """Loss curves as a figure.

  Args:
    series: dict of name -> sequence of (x, y).
    caption: text below.
    **options: x_label, y_label, log_y, smoothing of `line_chart.svg`.

  Returns:
    Html; a sentence instead of a figure if no value was recorded.
  """
  drawing = line_chart.svg(series, **options)
  if drawing is None:
    return paragraph(f'{caption or "This curve"}: no values were recorded.')
  return Html(f'<figure>{drawing}{_caption(caption)}</figure>')


def _part(part):
  return part if isinstance(part, Html) else paragraph(part)


def _caption(text):
  return f'<figcaption>{_escape(text)}</figcaption>' if text else ''


def _cell(tag, value, numeric):
  align = ' class="number"' if numeric else ''
  inner = value if isinstance(value, Html) else _escape(_shown(value))
  return f'<{tag}{align}>{inner}</{tag}>'


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _shown(value):
  """A value as it is read by people: four digits, thousands apart."""
  if value is None:
    return '\u2013'
  if not _is_number(value) or not math.isfinite(value):
    return str(value)
  if isinstance(value, numbers.Integral):
    return f'{int(value):,}'.replace(',', '\u202f').replace('-', '\u2212')
  if value and not 1e-3 <= abs(value) < 1e6:
    return f'{value:.3e}'.replace('-', '\u2212')
  digits = math.floor(math.log10(abs(value))) if value else 0
  return f'{value:.{min(max(3 - digits, 0), 4)}f}'.replace('-', '\u2212')


def _escape(text):
  return html.escape(str(text), quote=True)
