"""Writes small TFRecord sets as NVIDIA's and TF Slim's programs lay them out.

The messages are serialized by protobuf's own code, and the records written by
TensorBoard's writer, so that a reader is not tested against itself.
"""

import numpy as np
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorflow_datasets.proto import tf_example_generated_pb2 as proto


def example(**features):
  """-> the bytes of an Example; a list of integers, or bytes, per feature.

  Two underscores stand for the slash in a name.
  """
  message = proto.Example()
  for key, value in features.items():
    feature = message.features.feature[key.replace('__', '/')]
    if isinstance(value, bytes):
      feature.bytes_list.value.append(value)
    elif isinstance(value, float):
      feature.float_list.value.append(value)
    else:
      feature.int64_list.value.extend(value)
  return message.SerializeToString()


def write(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'wb') as file:
    writer = RecordWriter(file)
    for record in records:
      writer.write(record)
    writer.flush()
  return path


def pixels(n, side, channels=3):
  """-> image n, uint8 [C, H, W]."""
  shape = (channels, side, side)
  return np.random.default_rng(n).integers(0, 256, shape, np.uint8)


def nvidia(folder, *, name='ffhq', levels=(2, 3), count=3, labels=None):
  """As `TFRecordExporter` of ProGAN's and StyleGAN's dataset_tool.py does."""
  for level in levels:
    images = [pixels(n, 2**level) for n in range(count)]
    write(
      folder / f'{name}-r{level:02d}.tfrecords',
      [example(shape=x.shape, data=x.tobytes()) for x in images],
    )
  if labels is not None:
    with open(folder / f'{name}-rxx.labels', 'wb') as file:
      np.save(file, np.asarray(labels, np.float32))
  return folder


def slim(folder, images, *, split='train', files=2):
  """As TF Slim's build_imagenet_data.py does.

  Args:
    images: (bytes of the file, label from 1 on, synset, name) of each.
  """
  for k in range(files):
    write(
      folder / f'{split}-{k:05d}-of-{files:05d}',
      [
        example(
          image__height=[6],
          image__width=[6],
          image__colorspace=b'RGB',
          image__channels=[3],
          image__class__label=[label],
          image__class__synset=synset.encode(),
          image__class__text=b'some words',
          image__object__bbox__xmin=0.5,
          image__format=b'JPEG',
          image__filename=name.encode(),
          image__encoded=data,
        )
        for data, label, synset, name in images[k::files]
      ],
    )
  return folder
