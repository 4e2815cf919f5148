"""Builds one self-contained HTML page of images, curves and tables.

The file holds everything: images as data URIs, curves as SVG, the style sheet
in its head. It has no script and no font and makes no request, so it can be
mailed or opened offline. It follows the reader's light or dark setting. All
functions are pure: they take strings, numbers and bytes, and return escaped
text.
"""

import base64
import html
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cdm.reporting import line_chart, page_style


class Html(str):
  """Text that is HTML already; the functions below escape every other str."""


class Section(NamedTuple):
  """A section of a page.

  Attributes:
    heading: text.
    parts: contents of the section: `Html`, or plain strings, which become
      paragraphs.
  """

  heading: str
  parts: Sequence[str]


def build_page(
  title: str,
  sections: Iterable[tuple[str, Iterable[str]]],
  *,
  subtitle: str = '',
  footer: str = '',
) -> str:
  """Builds the document.

  Args:
    title: text of the window's title and of the page's first heading.
    sections: each a `Section`, or (heading, parts).
    subtitle: text under the title.
    footer: text at the end.

  Returns:
    A complete HTML document.
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
    f'<title>{_escape(title)}</title>\n<style>{page_style.STYLE}</style>\n</head>\n'
    '<body>\n' + '\n'.join(body) + '\n</body>\n</html>\n'
  )


def paragraph(text: str) -> Html:
  """Returns a paragraph."""
  return Html(f'<p>{_escape(text)}</p>')


def code(text: str) -> Html:
  """Returns a block that keeps line breaks, for commands and their output."""
  return Html(f'<pre>{_escape(text)}</pre>')


def row(*parts: str) -> Html:
  """Puts parts side by side, or one below the other on a narrow screen."""
  return Html(f'<div class="row">{"".join(_part(p) for p in parts)}</div>')


def subheading(text: str) -> Html:
  """Returns a heading inside a section."""
  return Html(f'<h3>{_escape(text)}</h3>')


def notice(text: str) -> Html:
  """Returns a highlighted paragraph, for a warning."""
  return Html(f'<p class="notice" role="note">{_escape(text)}</p>')


def bullets(texts: Iterable[str]) -> Html:
  """Returns a bulleted list. `Html` is inserted unchanged."""
  items = (x if isinstance(x, Html) else _escape(x) for x in texts)
  return Html(f'<ul>{"".join(f"<li>{item}</li>" for item in items)}</ul>')


def strong(text: str) -> Html:
  """Returns words in bold."""
  return Html(f'<strong>{_escape(text)}</strong>')


def joined(*parts: str) -> Html:
  """Joins plain text and `Html` without breaking the line."""
  return Html(''.join(p if isinstance(p, Html) else _escape(p) for p in parts))


def stacked(text: str, below: str) -> Html:
  """Returns two lines for a cell of a table, the second in small print."""
  return Html(
    f'<span class="stacked">{_escape(text)}<br>'
    f'<small>{_escape(below)}</small></span>'
  )


def figure(drawing: str, caption: str = '') -> Html:
  """Returns a figure with its caption.

  Args:
    drawing: an <svg> element, from `line_chart.svg` or `bar_chart.svg`.
    caption: text below.
  """
  return Html(f'<figure>{drawing}{_caption(caption)}</figure>')


def strip(
  rows: Sequence[Sequence[bytes | None]],
  *,
  heads: Sequence[str],
  names: Sequence[str],
  scale: float | Sequence[float] = 1,
  zoom: float = 0,
  caption: str = '',
) -> Html:
  """Returns a table of images, which scrolls sideways if it is wide.

  Args:
    rows: rows of PNG bytes; None leaves a cell empty.
    heads: text over each column.
    names: text before each row.
    scale: screen pixels per image pixel, for all rows or one for each. Above 1
      the image pixels stay sharp squares.
    zoom: how many times as large an image is shown alone when it is clicked;
      0 is never.
    caption: text below.

  Raises:
    ValueError: if rows and texts differ in length, or bytes are not a PNG file.
  """
  scales = scale if isinstance(scale, Sequence) else [scale] * len(rows)
  if len(names) != len(rows) or any(len(r) != len(heads) for r in rows):
    raise ValueError(
      f'A strip needs a name per row and a head per column; given were '
      f'{len(names)} names, {len(heads)} heads and rows of '
      f'{[len(r) for r in rows]}.'
    )
  head = ''.join(f'<th>{_escape(text)}</th>' for text in ('', *heads))
  lines = []
  for name, pngs, wide in zip(names, rows, scales, strict=True):
    cells = ''.join(
      '<td></td>'
      if png is None
      else f'<td>{_img(png, f"{name}, {text}", wide, zoom)}</td>'
      for png, text in zip(pngs, heads, strict=True)
    )
    lines.append(f'<tr><th>{_escape(name)}</th>{cells}</tr>')
  return Html(
    f'<figure><div class="wide"><table class="strip"><thead><tr>{head}</tr>'
    f'</thead><tbody>{"".join(lines)}</tbody></table></div>'
    f'{_caption(caption)}</figure>'
  )


def image(
  png: bytes, caption: str = '', *, alt: str | None = None, scale: float = 1
) -> Html:
  """Returns an image with its caption, as a figure.

  Args:
    png: bytes of a PNG file.
    caption: text below.
    alt: text for readers who cannot see the image; the caption by default.
    scale: screen pixels per image pixel. Above 1 the image pixels stay sharp
      squares, so that a small image is not judged by the browser's smoothing.

  Raises:
    ValueError: if the bytes are not a PNG file.
  """
  image = _img(png, caption if alt is None else alt, scale)
  return Html(f'<figure>{image}{_caption(caption)}</figure>')


def _img(png: bytes, alt: str, scale: float, zoom: float = 0) -> str:
  if png[:8] != b'\x89PNG\r\n\x1a\n' or png[12:16] != b'IHDR':
    raise ValueError(
      'An image of a page is given as the bytes of a PNG file, but the bytes '
      f'start with {png[:16]!r}.'
    )
  width = round(scale * int.from_bytes(png[16:20], 'big'))
  data = base64.b64encode(png).decode('ascii')
  sharp = ' class="sharp"' if scale > 1 else ''
  large = f'min({round(zoom * width)}px, 96vmin)'
  style = f' style="--large: {large}"' if zoom else ''
  element = (
    f'<img{sharp} width="{width}" alt="{_escape(alt)}"{style} '
    f'src="data:image/png;base64,{data}">'
  )
  if not zoom:
    return element
  # A box that is checked needs no script.
  box = f'<input type="checkbox" aria-label="Enlarge {_escape(alt)}">'
  return f'<label class="zoom">{box}{element}</label>'


def table(
  rows: Iterable[Any],
  *,
  header: Sequence[str] | None = None,
  caption: str = '',
  mark: int | None = None,
  faint: Iterable[int] = (),
  best: Iterable[tuple[int, int]] = (),
) -> Html:
  """Returns a table of numbers and text.

  Numbers are right-aligned and shown with four digits, None is shown as a dash,
  and `Html` is inserted unchanged.

  Args:
    rows: either dicts with the same keys, which become the header, or sequences
      of equal length.
    header: texts over the columns, if the rows are sequences.
    caption: text above.
    mark: index of a row to highlight, or None.
    faint: indices of rows to show in a faint colour.
    best: (row, column) of the cells to highlight.

  Raises:
    ValueError: if there are no rows, or they differ in length or keys.
  """
  rows, best = list(rows), set(best)
  if not rows:
    raise ValueError('A table needs at least one row; given were none.')
  if isinstance(rows[0], dict):
    header = list(rows[0])
    if any(set(r) != set(header) for r in rows):
      raise ValueError(
        'All rows of a table must have the same keys; the first row has '
        f'{header}, the others {[sorted(r) for r in rows[1:]]}.'
      )
    rows = [[r[key] for key in header] for r in rows]
  width = len(rows[0]) if header is None else len(header)
  if any(len(r) != width for r in rows):
    raise ValueError(
      f'Every row of this table must have {width} cells; given were rows of '
      f'{[len(r) for r in rows]}.'
    )
  # A column is right-aligned if it has numbers and, besides None, nothing else.
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
      _cell('td', value, n, best=(i, j) in best)
      for j, (value, n) in enumerate(zip(values, numeric, strict=True))
    )
    marked = ' class="marked"' if i == mark else ''
    marked = ' class="faint"' if i in faint else marked
    lines.append(f'<tr{marked}>{"".join(cells)}</tr>')
  lines.append('</tbody>')
  return Html(f'<div class="wide"><table>{"".join(lines)}</table></div>')


def curve_svg(
  series: Mapping[str, Iterable[tuple[float, float]]],
  *,
  caption: str = '',
  **options: Any,
) -> Html:
  """Returns curves as a figure, or a sentence if no value was recorded.

  Args:
    series: {name: points (x, y)}.
    caption: text below.
    **options: further arguments of `line_chart.svg`, such as axes and
      smoothing.
  """
  drawing = line_chart.svg(series, **options)
  if drawing is None:
    return paragraph(f'{caption or "This curve"}: no values were recorded.')
  return Html(f'<figure>{drawing}{_caption(caption)}</figure>')


def _part(part: str) -> Html:
  return part if isinstance(part, Html) else paragraph(part)


def _caption(text: str) -> str:
  return f'<figcaption>{_escape(text)}</figcaption>' if text else ''


def _cell(tag: str, value: Any, numeric: bool, best: bool = False) -> str:
  classes = ['number'] * numeric + ['best'] * best
  align = f' class="{" ".join(classes)}"' if classes else ''
  inner = value if isinstance(value, Html) else _escape(_format_value(value))
  return f'<{tag}{align}>{inner}</{tag}>'


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _format_value(value: Any) -> str:
  """Formats a value for people: four digits, thousands separated."""
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


def _escape(text: object) -> str:
  return html.escape(str(text), quote=True)
