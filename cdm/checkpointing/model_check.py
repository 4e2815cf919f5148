"""Compares the arrays of a checkpoint with those of a model: names, shapes."""

from collections.abc import Mapping

from etils import epath

from cdm.checkpointing import average_names


class ModelMismatch(ValueError):
  """The checkpoint is undamaged but belongs to another model or optimizer."""


def check_model(
  stored: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  path: epath.Path,
) -> None:
  """Checks that a checkpoint holds the arrays of a model, in their shapes.

  Args:
    stored: {name: shape} of the checkpoint.
    wanted: {name: shape} of the model. The fields of TrainState that occur in
      it must have the same arrays on both sides; others are not compared, nor
      are other averages, unless it is of a whole state.
    path: path of the checkpoint, for the message.

  Raises:
    ModelMismatch: names the first array that differs, or says that the
      checkpoint has no EMA parameters.
  """
  if 'step' in wanted and 'step' not in stored:
    raise ModelMismatch(
      f'{path} holds one average of the parameters, as `cdm ema` writes it. '
      'Images are drawn with it, but no run continues from it; begin another '
      f'one in a new --workdir with --config.train.init_from='
      f'{path.parent.parent}.'
    )
  if 'step' in wanted:
    _check_averages(stored, wanted, path)
  fields = dict.fromkeys(_field(name) for name in wanted)
  if 'ema_params' in fields and not _select_field(stored, 'ema_params'):
    raise ModelMismatch(
      f'{path} holds no EMA parameters (ema_params). Raw weights are no '
      'substitute: their samples are worse. Use a checkpoint that cdm train '
      'wrote.'
    )
  for field in fields:
    have, want = _select_field(stored, field), _select_field(wanted, field)
    for name in [*want, *sorted(have.keys() - want.keys())]:
      if have.get(name) != want.get(name):
        made_with = 'optimizer' if field == 'opt_state' else 'model'
        raise ModelMismatch(
          f'{path} was made with another {made_with}. First difference: {name} '
          f'is {_describe(have, name)} in the checkpoint and '
          f'{_describe(want, name)} here. Use the config saved with it '
          f'({path.parent.parent}/config.json), or another --workdir.'
        )


def _check_averages(stored, wanted, path):
  """Refuses to continue a run with averages that it has not kept so far."""
  have, want = average_names.stored(stored), average_names.stored(wanted)
  if have != want:
    raise ModelMismatch(
      f'{path} keeps {_listed(have)} beside the main average, and the config '
      f'asks for {_listed(want)}. An average holds what all steps have given '
      'to it, so a run can neither begin another one later nor drop one and '
      'take it up again. Use the config.ema that was saved with it '
      f'({path.parent.parent}/config.json), or another --workdir, which may '
      'begin with these weights by --config.train.init_from.'
    )


def _listed(names):
  return ', '.join(names) or 'no average'


def _field(name):
  """Returns the field of an array, of an average with its key."""
  words = name.split('/')
  return '/'.join(words[: 2 if words[0] == average_names.FIELD else 1])


def _select_field(
  shapes: Mapping[str, tuple[int, ...]], field: str
) -> dict[str, tuple[int, ...]]:
  return {k: v for k, v in shapes.items() if _field(k) == field}


def _describe(
  shapes: Mapping[str, tuple[int, ...]], name: str
) -> list[int] | str:
  return list(shapes[name]) if name in shapes else 'absent'
