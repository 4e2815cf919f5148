"""Reads the row of paired metrics that `cdm evaluate --out` wrote."""

import os
from typing import Any

from cdm.data.files import damaged_file, json_file
from cdm.training.score_table import Quality


def read_row(path: str | os.PathLike) -> Quality:
  """Reads the row of metrics that `cdm evaluate --out` wrote.

  Raises:
    ValueError: if the file is something else, or has no paired metrics.
  """
  remedy = 'Give what `cdm evaluate --out` wrote.'
  try:
    row = json_file.read(path, Any, remedy='')
  except OSError as error:
    reason = error.strerror or error
    raise ValueError(
      f'{path} cannot be read ({reason}); give what `cdm evaluate --out` wrote.'
    ) from None
  except damaged_file.DamagedFile as error:
    raise damaged_file.DamagedFile(
      f'{path} cannot be read ({str(error).rstrip(". ")}); give what `cdm '
      'evaluate --out` wrote.'
    ) from error
  if not isinstance(row, dict) or 'conventions' not in row:
    raise ValueError(f'{path} is not what `cdm evaluate --out` wrote.')
  if 'psnr' not in row:
    raise ValueError(
      f'{path} has no paired metrics (PSNR, SSIM), which the page shows; give '
      'a row of `cdm evaluate --samples=... --reference=...` of paired images.'
    )
  json_file.check(row, Quality, name=str(path), remedy=remedy)
  return row
