"""Secrets of a run as Google Cloud's Secret Manager keeps them."""

import re

from targets.environment import HIDDEN

REFERENCE = r'projects/[^/\s]+/secrets/[\w-]+/versions/\w+'


def references(args):
  """-> {name: reference} of the secret variables of a run.

  Whoever may see a job, or the metadata of a machine, reads the variables that
  stand there. A reference is safe to show: who follows it needs a permission.

  Args:
    args: the options, with `environment`.

  Raises:
    ValueError: a secret stands there itself, and not where it is kept.
  """
  for name, value in args.environment.secret.items():
    if value != HIDDEN and not re.fullmatch(REFERENCE, value):
      raise ValueError(
        f'--env: {name} would be read by everybody who may see the job. Store '
        f'its value with `gcloud secrets create`, and say --env={name}='
        'projects/PROJECT/secrets/NAME/versions/VERSION.'
      )
  return dict(args.environment.secret)
