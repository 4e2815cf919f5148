"""Writes a study's results: a page, the numbers as JSON, the trials as CSV."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from cdm.evaluation.human import answer_file, results_page, study_results
from cdm.evaluation.human.answer_file import COLUMNS, Answer
from cdm.evaluation.human.study_file import ANSWERS, Study
from cdm.reporting import output_files


def write(
  study: Study,
  folder: str | os.PathLike[str],
  more: Sequence[str],
  out: str | os.PathLike[str],
  *,
  overwrite: bool,
) -> dict[str, Any]:
  """Writes the report.

  Args:
    study: the study.
    folder: its folder, with the answers that were kept there.
    more: files and folders with other answers.
    out: path of the page; the others have its name and .json, .csv.
    overwrite: whether they may be replaced.

  Returns:
    See `study_results.results`.

  Raises:
    ValueError: there are no answers, or a file may not be replaced.
  """
  out = pathlib.Path(out)
  if out.suffix.lower() != '.html':
    raise ValueError(f'--out={out} must be the name of an .html file.')
  paths = [out, out.with_suffix('.json'), out.with_suffix('.csv')]
  for path in paths:
    output_files.check(path, overwrite=overwrite)
  own = pathlib.Path(folder) / ANSWERS
  answers = answer_file.read([*([own] if own.exists() else []), *more], study)
  if not answers:
    raise ValueError(
      f'Nobody has answered: there are no answers in {own}'
      f'{" and " + ", ".join(more) if more else ""}. Start `cdm study serve '
      f'{folder}`, or give --answers=FILES.'
    )
  found = study_results.results(study, answers)
  numbers = json.dumps(found, indent=1, allow_nan=False) + '\n'
  texts = [results_page.build(study, found, folder), numbers, table(answers)]
  for path, text in zip(paths, texts, strict=True):
    output_files.write_text(path, text)
  return found


def table(answers: Sequence[Answer]) -> str:
  """Returns all answers as CSV, with the columns of jsPsych first."""
  first = ('trial_index', 'trial_type', 'rt', 'response', 'stimulus')
  columns = [*first, 'time_elapsed']
  columns += [name for name in COLUMNS if name not in columns]
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(columns)
  for row in map(dict[str, Any], answers):
    values = (row[name] for name in columns)
    writer.writerow(
      [json.dumps(v) if isinstance(v, list | bool) else v for v in values]
    )
  return buffer.getvalue()


def text(study: Study, found: dict[str, Any]) -> str:
  """Returns the results in a line for each condition."""
  kept, everyone = found['kept'], found['everyone']
  lines = [
    f'{kept["persons"]} of {everyone["persons"]} persons count, with '
    f'{kept["trials"]} trials.'
  ]
  for one in kept['conditions']:
    name = results_page.name_of(study, one['methods'])
    if not one['trials']:
      lines.append(f'{name}: no trial counts')
    elif study['task'] == 'rating':
      lines.append(f'{name}: mean opinion {one["mean"]:.2f} of {one["trials"]}')
    else:
      ends = results_page.percent(one['interval'] or one['wilson'])
      lines.append(
        f'{name}: {100 * one["rate"]:.1f} % of {one["trials"]} ({ends})'
      )
  return '\n'.join(lines)
