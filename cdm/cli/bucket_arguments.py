"""Replaces the gs:// URLs among a command's arguments by local paths.

A work directory becomes its mirror (`bucket_folders`), which holds the records
of the run; its checkpoints are read from the bucket and written to it. A file
becomes a local copy. Any URL that is left is refused, see `main.refuse_urls`.
"""

import argparse

from cdm.distributed import bucket_folders

# Options that name a work directory. Only `cdm train` writes into one.
WORKDIRS = {
  'train': 'workdir',
  'sample': 'workdir',
  'upscale': 'workdir',
  'accuracy': 'workdir',
  'ema': 'workdir',
  'report': 'run',
}
# Options that name a set of images, see `set_name`: a trained model's work
# directory, or a file.
SETS = ('samples', 'reference')
FILES = ('row', 'weights', 'classifier_weights', 'groups')
# Overrides of a config whose reader takes the URL.
KEYS = (
  'train.init_from',
  'method.teacher',
  'eval.fid_reference',
  'train_data.path',
  'eval_data.path',
)
_FILE_SUFFIXES = ('.npz',)


def replace_urls(args: argparse.Namespace) -> None:
  """Replaces URLs in the arguments, and downloads what they stand for.

  Raises:
    ValueError: a bucket or an object does not exist or may not be used, or
      gcsfs is not installed.
    OSError: the service cannot be reached.
  """
  bucket_folders.prefer_gcsfs()
  command = args.command
  for name, value in list(vars(args).items()):
    if name == WORKDIRS.get(command):
      change = _workdir_written if command == 'train' else _workdir_read
    elif name in SETS and command != 'report':
      change = _set
    elif name in FILES:
      change = _file
    else:
      continue
    try:
      if isinstance(value, list):
        setattr(args, name, [change(one) for one in value])
      elif isinstance(value, str):
        setattr(args, name, change(value))
    except (ValueError, OSError) as error:
      # The sentence begins with the URL.
      raise type(error)(f'--{name}={error}') from error
  if command == 'sample' and args.out is None:
    url = bucket_folders.url_of(args.workdir)
    if url is not None:
      raise ValueError(
        f'--workdir={url} is in a bucket, and images are not written into one. '
        'Give a folder of this machine: --out=DIR.'
      )


def _workdir_written(value: str) -> str:
  if not bucket_folders.is_url(value):
    return value
  from cdm.distributed import bucket

  bucket.check(value)
  return str(bucket_folders.mirror(value, written=True))


def _workdir_read(value: str) -> str:
  if not bucket_folders.is_url(value):
    return value
  from cdm.reporting import bucket_mirror

  folder = bucket_folders.mirror(value, written=False)
  bucket_mirror.fill_for_reading(folder)
  return str(folder)


def _file(value: str) -> str:
  from cdm.reporting import bucket_mirror

  return bucket_mirror.local_file(value)


def _set(value: str) -> str:
  from cdm.evaluation import set_name

  if bucket_folders.PREFIX not in value:
    return value
  name = set_name.parse(value)
  if name.workdir is not None and bucket_folders.is_url(name.workdir):
    folder = _workdir_read(name.workdir)
    if name.kind == 'cascade':
      return f'{name.path}@{folder}'
    return f'{folder}@{name.split}'
  if name.kind == 'files' and value.endswith(_FILE_SUFFIXES):
    return _file(value)
  return value
