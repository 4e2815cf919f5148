"""Asks whether the numbers of cdm are right on a GPU; ends with 1 if not.

  python benchmarks/gpu/run.py 1 OUT --prepared=FOLDER

A row for every check: the largest error, its bound and the verdict. First a run
that was killed is compared with one that was not, bit by bit, see
`truth_resume`; then outputs, gradients, losses, samplers and resizes with
float64 numbers, see `truth_numbers`. OUT gets rows.jsonl and truth.md.
"""

import argparse
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import result_rows, truth_resume  # noqa: E402

COLUMNS = ('check', 'setting', 'error', 'bound', 'verdict')


def main(argv=None):
  """Runs every check; -> 1 if one is beyond its bound, else 0."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ('--out', '--work', '--prepared'):
    parser.add_argument(name, required=True, type=pathlib.Path)
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args(argv)
  if args.smoke:
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  # The trainings go first: a process that computes would share the GPU with
  # them.
  runs = [
    (setting, bound, truth_resume.Resumed(args.work / name, deterministic=flag))
    for setting, name, flag, bound in (
      ('deterministic ops', 'deterministic', True, 0.0),
      ('default', 'default', False, None),
    )
  ]
  rows = result_rows.Rows(args.out, 'truth', smoke=args.smoke)
  for setting, bound, run in runs:
    largest, names = run.difference()
    judge(
      rows,
      'killed and resumed',
      setting,
      largest,
      bound,
      killed_at_step=run.killed_at,
      steps=truth_resume.STEPS,
      differing_arrays=len(names),
      is_wrong=bool(names) and bound is not None,
    )
  numbers(rows, args.smoke)
  result_rows.write_table(args.out, 'truth.md', rows.rows, COLUMNS)
  wrong = [row for row in rows.rows if row['verdict'] == 'WRONG']
  for row in wrong:
    print(
      f'WRONG: {row["check"]}, {row["setting"]}: {row["error"]} is above '
      f'{row["bound"]}',
      flush=True,
    )
  return 1 if wrong else 0


def numbers(rows, smoke):
  """Adds a row for every computation in every setting."""
  from benchmarks.gpu import float64_reference, truth_numbers

  for check in truth_numbers.checks(smoke):
    function, args = check.make('float32')
    reference = float64_reference.in_float64(function)(*args)
    for setting, dtype, precision, bound in truth_numbers.variants(check):
      if dtype != 'float32':
        function, args = check.make(dtype)
      results = truth_numbers.run(function, args, precision)
      error = truth_numbers.error(results, reference)
      judge(
        rows, check.name, setting, error, bound, is_wrong=not error <= bound
      )


def judge(rows, check, setting, error, bound, *, is_wrong, **more):
  """Adds a row with its verdict; a bound of None judges nothing."""
  verdict = 'WRONG' if is_wrong else 'right'
  if bound is None:
    verdict = 'a figure'
  rows.add(
    check=check,
    setting=setting,
    error=error,
    bound=bound,
    verdict=verdict,
    **more,
  )


if __name__ == '__main__':
  sys.exit(main())
