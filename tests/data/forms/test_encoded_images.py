import io
import pickle

import numpy as np
import pytest
from PIL import Image

from cdm.data.class_labels import Labels
from cdm.data.forms.encoded_images import EncodedImages


def png(value):
  file = io.BytesIO()
  Image.fromarray(np.full((3, 4, 3), value, np.uint8)).save(file, 'PNG')
  return file.getvalue()


class Listed(EncodedImages):
  """A form whose records are in memory."""

  KIND = 'listed'

  def __init__(
    self,
    count=2,
    class_names=None,
    labels=None,
    max_value=None,
    exif_rotation=False,
  ):
    names = [f'{n}.png' for n in range(count)]
    own = Labels(np.arange(count, dtype=np.int32)[::-1], ('dog', 'cat'))
    super().__init__(
      '/data/set',
      names,
      own,
      class_names=class_names,
      max_pixels=100,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
    )

  def read_bytes(self, i):
    return png(i) if i else b'no image'

  def stamp(self):
    return [f'{name} {len(self)}' for name in self._names]


def test_a_record_is_decoded_with_its_label_and_named_in_errors():
  source = Listed()
  element = source[1]
  assert element['image'].shape == (3, 4, 3) and element['image'].max() == 1
  assert element['label'] == 0 and element['short_side'] == 3
  assert source.encoded(-1).data == png(1)
  with pytest.raises(ValueError, match=r'/data/set\[0\] 0.png: '):
    source[0]
  with pytest.raises(IndexError):
    source[2]


def test_labels_follow_the_classes_that_are_asked_for():
  assert Listed().class_names == ('dog', 'cat')
  assert Listed(class_names=('cat', 'dog')).labels.tolist() == [0, 1]
  assert Listed(class_names=()).num_classes == 0


def test_a_label_file_takes_the_place_of_the_labels_inside(tmp_path):
  path = tmp_path / 'labels.txt'
  path.write_text('1.png owl\n0.png ape\n', encoding='utf-8')
  source = Listed(labels=path)
  assert source.class_names == ('ape', 'owl')
  assert source.labels.tolist() == [0, 1]
  assert Listed(labels=path, class_names=('owl', 'ape')).labels[0] == 1
  assert source.fingerprint != Listed().fingerprint


def test_the_fingerprint_depends_on_labels_files_and_white():
  prints = {
    source.fingerprint
    for source in (
      Listed(),
      Listed(class_names=('cat', 'dog')),
      Listed(class_names=()),
      Listed(1),
      Listed(max_value=4095.0),
      Listed(exif_rotation=True),
    )
  }
  assert len(prints) == 6
  assert (
    Listed().fingerprint == pickle.loads(pickle.dumps(Listed())).fingerprint
  )


def test_an_empty_set_is_refused():
  with pytest.raises(ValueError, match=r"'/data/set' has no images"):
    Listed(0)
