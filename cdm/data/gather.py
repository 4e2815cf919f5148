"""A few images of a source at once, spread evenly over it."""

from cdm.data import pipeline


class Chosen:
  """Some records of a source, as a source of its own."""

  def __init__(self, source, indices):
    self._source, self._indices = source, indices
    self.num_classes = source.num_classes
    self.class_names = source.class_names

  def __len__(self):
    return len(self._indices)

  def __getitem__(self, i):
    return self._source[self._indices[i]]

  @property
  def fingerprint(self):
    return f'{self._source.fingerprint}[{len(self)}]'


def gather(source, count, **fit):
  """-> (uint8 [count, S, S, 3], int32 [count]).

  Args:
    source: see `cdm.data.sources`.
    count: how many images.
    **fit: image_size, crop, filter of `pipeline.make_iterator`.

  Raises:
    ValueError: more images than the source has, or an unreadable source.
  """
  if count > len(source):
    raise ValueError(
      f'{count} images were asked for, but the data has {len(source)}; ask '
      'for fewer.'
    )
  indices = [i * len(source) // count for i in range(count)]
  batches = pipeline.make_iterator(
    Chosen(source, indices), batch_size=count, seed=0, shuffle=False, **fit
  )
  batch = next(batches)
  batches.close()
  return batch['image'], batch['label']
