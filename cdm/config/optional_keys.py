"""Lists the keys that a config may leave out, with the values they then have.

They are options of a single run, such as where its weights come from, how slow
its storage is, when it gives up or how attention is computed, and not
properties of an experiment. So most configs do not state them, and the command
line sets them in every config that has their section. Some sections state some
of their keys, because they need another value.
"""

from ml_collections import ConfigDict

# What an override of `kind` sets besides, in the section that it empties. The
# default of the key is what runs of earlier versions have.
OF_A_NEW_KIND = {
  (section, 'folder'): {'order': 'numbers'}
  for section in ('train_data', 'eval_data')
}

OPTIONAL = {
  'train.save_every_minutes': 0.0,
  'train.local_copy_every_minutes': 0.0,
  'train.local_copy_dir': '',
  'train.compare_every_steps': 1000,
  'ema.tracks': (),
  'ema.power_stds': (),
  'ema.snapshot_every_steps': 0,
  'ema.snapshot_dtype': 'float16',
  'train.init_from': '',
  'train.init_params': 'ema',
  'train.init_missing': 'refuse',
  'train.init_from_sha256': '',
  'train.watchdog_end_factor': 20.0,
  'train.watchdog_end_seconds': 900.0,
  'train.max_restarts_in_vain': 10,
  'train.max_restarts_per_hour': 60,
  'train.max_restarts_in_all': 1000,
  'train.save_retry_minutes': 60.0,
  'pipeline.read_threads': 16,
  'pipeline.read_buffer': 500,
  **{
    f'{section}.{key}': value
    for section in ('train_data', 'eval_data')
    for key, value in (
      ('allow_missing_classes', False),
      ('data_set', ''),
      ('class_names', None),
      ('labels', None),
      ('order', 'text'),
    )
  },
  'train_data.landmarks': '',
  'train_data.parsing': '',
  'train_data.parts': (),
  'pipeline.allow_enlarging': False,
  'pipeline.channels': 3,
  'mesh.device': '',
  'model.attention': 'auto',
  'sampler.project_lowres': False,
  'sampler.guide': '',
}
# The same for every section of `stages` in the config of a cascade: they go
# before those of the stage's section `sampler`.
OF_A_STAGE = {'guide': '', 'guidance_weight': None}
# What one start demands of its machine. A saved config lacks it: what was
# trained on one kind of devices may be continued and used on another.
NOT_SAVED = ('mesh.device',)
# What a run did before it could be told; a config that an earlier version saved
# lacks the key.
EARLIER = {'pipeline.allow_enlarging': True}


def state(config: ConfigDict, *, saved: bool) -> None:
  """Adds the keys of `EARLIER` to a config that lacks them.

  From then on it says what it does, and so does the copy that a run saves.

  Args:
    config: the config, which is not locked; changed in place.
    saved: whether a run saved it; if not, it was read from a Python file.
  """
  for dotted, earlier in EARLIER.items():
    section, key = dotted.split('.')
    found = config.get(section)
    if isinstance(found, ConfigDict) and key not in found:
      found[key] = earlier if saved else OPTIONAL[dotted]


def in_section(section: str) -> dict[str, object]:
  """Returns {key: value} of the optional keys of a section, e.g. 'train'.

  Args:
    section: its dotted name; 'stages.sr' is a stage of a cascade.
  """
  first, *rest = section.split('.')
  if first == 'stages' and rest:
    if len(rest) == 1:
      return dict(OF_A_STAGE)
    section = '.'.join(rest[1:])
  return {
    dotted.removeprefix(f'{section}.'): value
    for dotted, value in OPTIONAL.items()
    if dotted.startswith(f'{section}.')
  }
