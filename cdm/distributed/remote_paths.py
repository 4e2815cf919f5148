"""Tells the URL of a bucket or a web server from a path of a file system.

Most paths are those of a file system only: commands rename files in one step
and append to records, which no object store can do. A bucket is used through a
mount, which gcsfuse makes. Work directories, statistics and weights may be in a
bucket of Google Cloud Storage; their URLs are replaced before this module sees
them (`bucket_folders`).
"""

import re

# Path('gs://bucket/a') is the local path gs:/bucket/a. A URL may also follow
# the @ of CONFIG.py@WORKDIR.
_REMOTE = re.compile(r'(?:^|@)(gs|gcs|s3|abfss?|az|hdfs|https?|file):/')


def refuse(text: str, option: str = '') -> None:
  """Raises ValueError if a path is a URL.

  Args:
    text: the path, or a name that holds one.
    option: the option or key that was given, e.g. '--reference'; '' for none.
  """
  match = _REMOTE.search(text)
  if match is None:
    return
  if match[1].startswith('http'):
    remedy = 'Download it, and give the path of the file'
  elif match[1] == 'file':
    remedy = 'Give the path without file://'
  else:
    remedy = (
      f'Mount the bucket ({match[1]}://'
      + (' with gcsfuse' if match[1] in ('gs', 'gcs') else '')
      + ') and give the path below its mount point'
    )
  given = f'{option}={text}' if option else text
  raise ValueError(
    f'{given} is a URL and no path of a file system, which is needed here. '
    f'{remedy}.'
  )
