"""The contract of a source of images, and what the sources share.

A source gives random access to labelled images. It has a length, and source[i]
is

  {'image': uint8 [H, W, 3], 'label': int32, 'short_side': int32}

where `short_side` is that of the image as it was first stored. An unusable
image raises `transforms.BadImage`, which the pipeline counts. `num_classes` and
`class_names` belong to the labels (0 and () if there are none: every label is
then 0), and `fingerprint` changes when the images do. Sources can be pickled,
and several threads read them at once.

The sources are `folder`, `tfds`, `array_record`, `npz_dataset`, `sample_photos`
and `synthetic`.
"""

import numpy as np


def element(image, label):
  """Returns source[i] of an image, uint8 [H, W, 3], in its stored size."""
  short_side = np.int32(min(image.shape[:2]))
  return {'image': image, 'label': np.int32(label), 'short_side': short_side}


def first_names(names):
  """Returns '(a, b, ...)' of at most five names, for an error message."""
  shown = ', '.join(map(repr, names[:5]))
  return f'({shown}{", ..." if len(names) > 5 else ""})'
