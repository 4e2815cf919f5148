"""`cdm study` asks people about pictures, and reports what they say."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from cdm.cli import serving_flags

if TYPE_CHECKING:
  from cdm.evaluation.human.make_study import Options

DESCRIPTION = """\
Ask people about pictures, as SR3, PRSR and PULSE did.

  make    writes a study into the folder STUDY, from folders of pictures
  serve   opens the study in a browser of this machine, and keeps the answers
  export  writes the study as files for any web server, such as a panel's, which
          need no server of cdm; each person saves a file with the answers
  report  writes one HTML page, and the same numbers as JSON

--task=2afc shows a photograph beside a method's picture for 3 seconds: how
often persons take the wrong one is the fool rate. --task=preference shows two
methods, --task=rating one picture, which gets 1 to 5 (mean opinion score).
docs/studies.md has the protocol, the statistics and what is stored.
"""
EPILOG = """\
examples:
  cdm study make runs/study --task=2afc --originals=FACES/original \\
      --methods=sr3=FACES/sr3,regression=FACES/regression
  cdm study serve runs/study
  cdm study serve runs/study --host=0.0.0.0 --port=8000 --token
  cdm study export runs/study --out=runs/panel
  cdm study report runs/study --answers=runs/panel_files --out=runs/study.html
"""

ACTIONS = ('make', 'serve', 'export', 'report')
# Which options each action takes.
OPTIONS = {
  'make': (
    *('methods', 'originals', 'lowres', 'task', 'trials', 'seconds', 'seed'),
    *('title', 'question', 'information'),
  ),
  'serve': ('host', 'port', 'token', 'no_browser'),
  'export': ('out', 'lists'),
  'report': ('out', 'answers', 'overwrite'),
}
MOST_SECONDS = 60.0
WIDE = 1900  # pixels of a common screen, for two pictures side by side


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    'action', metavar='ACTION', help='make, serve, export or report'
  )
  parser.add_argument('study', metavar='STUDY', help='folder of the study')
  make = parser.add_argument_group('cdm study make')
  make.add_argument(
    '--methods',
    metavar='M=DIR,...',
    help='methods, each with the folder of its pictures',
  )
  make.add_argument(
    '--originals', metavar='DIR', help='folder of the photographs'
  )
  make.add_argument(
    '--lowres',
    metavar='DIR',
    help='folder of the low-res pictures, to show them too',
  )
  make.add_argument(
    '--task', metavar='TASK', help='2afc (default), preference or rating'
  )
  make.add_argument(
    '--trials',
    type=int,
    metavar='N',
    help='judged trials per person (default: as many as there are pictures '
    'for, up to 50)',
  )
  make.add_argument(
    '--seconds',
    type=float,
    metavar='S',
    help='how long pictures are shown (default: 3)',
  )
  make.add_argument(
    '--seed',
    type=int,
    metavar='S',
    help='seed of orders and sides (default: 0)',
  )
  make.add_argument('--title', metavar='TEXT', help='title of the page')
  make.add_argument(
    '--question', metavar='TEXT', help="question (default: the task's own)"
  )
  make.add_argument(
    '--information',
    metavar='FILE',
    help='text to read before agreeing, such as who asks, and why',
  )
  _serving_arguments(parser)


def _serving_arguments(parser):
  serving_flags.arguments(parser.add_argument_group('cdm study serve'))
  rest = parser.add_argument_group('cdm study export and report')
  rest.add_argument(
    '--out',
    metavar='PATH',
    help='new folder of export; HTML file of report (default: '
    'STUDY/report.html)',
  )
  rest.add_argument(
    '--lists',
    type=int,
    metavar='N',
    help='lists of trials of export (default: until all pairs are seen equally '
    'often, 200 at most)',
  )
  rest.add_argument(
    '--answers',
    metavar='P,P,...',
    help='files or folders with answers from elsewhere, for report',
  )
  rest.add_argument(
    '--overwrite',
    action='store_true',
    default=None,
    help="replace report's --out",
  )


def run(args: argparse.Namespace) -> None:
  """Does what the action says."""
  if args.action not in ACTIONS:
    raise ValueError(
      f'cdm study {args.action}: the actions are {", ".join(ACTIONS)}, such as '
      '`cdm study make STUDY ...`.'
    )
  check(args)
  {'make': _make, 'serve': _serve, 'export': _export, 'report': _report}[
    args.action
  ](args)


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if an option has no use, or is out of range."""
  for action, names in OPTIONS.items():
    for name in names:
      given = getattr(args, name) is not None
      if given and name not in OPTIONS[args.action]:
        raise ValueError(
          f'--{name} is an option of `cdm study {action}`, not of `cdm study '
          f'{args.action}`.'
        )
  if args.action == 'export' and args.out is None:
    raise ValueError('cdm study export needs --out=DIR, a new folder.')
  if args.action == 'make' and not args.methods:
    raise ValueError('cdm study make needs --methods=NAME=DIR,NAME=DIR.')


def _make(args):
  import pathlib

  from cdm.evaluation.human import make_study, trial_lists

  given = {
    name: getattr(args, name)
    for name in ('trials', 'seconds', 'seed', 'title', 'question')
    if getattr(args, name) is not None
  }
  if args.information:
    text = pathlib.Path(args.information).read_text(encoding='utf-8')
    given['information'] = [p.strip() for p in text.split('\n\n') if p.strip()]
  options = make_study.Options(task=args.task or '2afc', **given)
  sets = method_folders(args.methods, args.originals)
  check_design(options, sets)
  study = make_study.make(args.study, sets, args.lowres, options)
  wide = max(item['width'] for item in study['items'])
  if 2 * wide > WIDE and study['task'] != 'rating':
    print(
      f'Two pictures of {wide} pixels do not fit side by side on many screens; '
      'the page asks such persons for a larger window.'
    )
  print(
    f'{args.study}: {len(study["items"])} scenes to judge, '
    f'{len(study["practice"]) + len(study["catch"])} for trials with a known '
    f'answer; {study["trials"]} judged trials per person; after '
    f'{trial_lists.full_round(study)} persons everything was seen equally '
    f'often.\nNext: cdm study serve {args.study}'
  )


def method_folders(text: str, originals: str | None) -> dict[str, str]:
  """Parses --methods; the photographs come first.

  Raises:
    ValueError: it is not NAME=DIR,NAME=DIR with names of their own.
  """
  from cdm.distributed import user_cache
  from cdm.evaluation.human.study_file import BETTER, ORIGINAL, WORSE

  found = {ORIGINAL: originals} if originals else {}
  for word in text.split(','):
    name, equals, folder = word.partition('=')
    if not equals or not name or not folder:
      raise ValueError(
        f'--methods={text}: {word!r} is not NAME=DIR, such as sr3=runs/sr3.'
      )
    if name in found or name in (BETTER, WORSE, ORIGINAL):
      raise ValueError(
        f'--methods={text}: the name {name!r} is taken; give another. The '
        'photographs are those of --originals.'
      )
    found[name] = user_cache.expand(folder)
  return found


def check_design(options: Options, sets: dict[str, str]) -> None:
  """Raises ValueError if the options do not make a study."""
  from cdm.evaluation.human.study_file import ORIGINAL, TASKS

  if options.task not in TASKS:
    raise ValueError(
      f'--task={options.task}: the tasks are {", ".join(TASKS)}.'
    )
  if options.task == '2afc' and ORIGINAL not in sets:
    raise ValueError('--task=2afc needs the photographs: --originals=DIR.')
  if options.task == 'preference' and len(sets) - (ORIGINAL in sets) < 2:
    raise ValueError('--task=preference compares two methods or more.')
  if not 0 < options.seconds <= MOST_SECONDS:
    raise ValueError(
      f'--seconds={options.seconds:g}: it must be above 0 and at most '
      f'{MOST_SECONDS:g}.'
    )
  if options.trials is not None and options.trials < 1:
    raise ValueError(f'--trials={options.trials}: it must be at least 1.')


def _serve(args):
  from cdm.cli.web import local_server
  from cdm.data import shell_commands
  from cdm.distributed import folder_lock
  from cdm.evaluation.human import study_file

  place = serving_flags.place(args)
  study = study_file.read(args.study)
  try:
    import uvicorn  # noqa: F401

    from cdm.cli.web import study_app
  except ModuleNotFoundError as error:
    raise ValueError(
      f'cdm study serve needs the package {error.name}, which is not '
      f'installed. Run: {shell_commands.install("cdm[web]")}'
    ) from error
  # Not `folder_lock.hold`, which starts JAX to ask for other processes.
  with folder_lock.FolderLock(args.study, 'cdm study serve'):
    opened = local_server.listen(place)
    door = local_server.door(place)
    app = study_app.StudyApp(study, args.study, door.csrf)
    link = local_server.address(place, opened)
    try:
      # Ctrl-C is the way to end this, and no failure.
      with contextlib.suppress(KeyboardInterrupt):
        print(
          f'Open {link}\nAnswers go to {args.study}. Ctrl-C ends this.',
          flush=True,
        )
        if not args.no_browser:
          local_server.open_browser(link)
        local_server.serve(app.app, door, opened)
    finally:
      app.close()


def _export(args):
  from cdm.evaluation.human import panel_folder, study_file, trial_lists

  study = study_file.read(args.study)
  lists = args.lists
  if lists is None:
    lists = min(trial_lists.full_round(study), 200)
  panel_folder.write(study, args.study, args.out, lists)
  print(
    f'{args.out}: open index.html there, on any web server or as a file; '
    f'index.html?list=K for list K of 0 to {lists - 1}, otherwise a list at '
    f'random.\nNext: cdm study report {args.study} --answers=FILES'
  )


def _report(args):
  import pathlib

  from cdm.evaluation.human import report, study_file

  study = study_file.read(args.study)
  out = pathlib.Path(args.out or pathlib.Path(args.study) / 'report.html')
  given = args.answers.split(',') if args.answers else []
  # A report that was written by default may be replaced by default.
  found = report.write(
    study,
    args.study,
    given,
    out,
    overwrite=bool(args.overwrite) or args.out is None,
  )
  print(report.text(study, found))
  print(
    f'{out}; the numbers also in {out.with_suffix(".json")}, the trials in '
    f'{out.with_suffix(".csv")}.'
  )
