"""Writes a trained stage as a folder in the layout of Hugging Face.

README.md            the model card
config.json          the config of the stage
model.safetensors    the packed stage
"""

import pathlib
from collections.abc import Mapping, Sequence

from cdm.checkpointing import packed_stage
from cdm.config import loader
from cdm.data.files import atomic_files
from cdm.sampling import exported_stage, model_card

CARD, CONFIG = 'README.md', 'config.json'


def export(
  workdir: pathlib.Path,
  folder: pathlib.Path,
  *,
  at: int | str | None,
  dtype: str,
  notes: Mapping[str, str],
  licence: str,
  figures: Sequence[model_card.Figure],
) -> packed_stage.Packed:
  """Writes the folder; its card is there when the rest is whole.

  Args:
    workdir, at, dtype, notes: see `exported_stage.export`.
    folder: the folder, made if it is missing.
    licence, figures: see `model_card.Card`.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: it holds a classifier, or cannot be written so.
  """
  # The card of a folder that is written anew must not outlive its weights.
  (folder / CARD).unlink(missing_ok=True)
  folder.mkdir(parents=True, exist_ok=True)
  packed = exported_stage.export(
    workdir, folder / model_card.WEIGHTS, at=at, dtype=dtype, notes=notes
  )
  atomic_files.write_text_atomically(folder / CONFIG, packed.config)
  card = model_card.Card(
    loader.from_json(packed.config, folder / CONFIG),
    sum(array.size for array in packed.arrays.values()),
    dtype,
    packed.step,
    licence,
    figures,
    packed.notes,
  )
  atomic_files.write_text_atomically(folder / CARD, model_card.text(card))
  return packed
