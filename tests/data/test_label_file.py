"""Labels from a file beside the pictures, in the forms that exist."""

import numpy as np
import pytest
from scipy import io

from cdm.data import folder, label_file
from cdm.data.files.damaged_file import DamagedFile

VAL = tuple(f'ILSVRC2012_val_{n:08d}.JPEG' for n in range(1, 5))
SYNSETS = ('n01440764', 'n01443537', 'n01484850')
# The order of the development kit: its number 1 is not the first WordNet id.
DEVKIT = {1: SYNSETS[2], 2: SYNSETS[0], 3: SYNSETS[1]}
KAGGLE = 'ImageId,PredictionString\n'


def named(tmp_path, text, files=VAL, class_names=None, name='labels.txt'):
  """-> the class that a label file gives to every picture."""
  path = tmp_path / name
  path.write_text(text, encoding='utf-8')
  labels = label_file.read(path, files, class_names)
  return [labels.class_names[n] for n in labels.values]


def write_meta(path, ids=None):
  """Writes meta.mat as the development kit has it: leaves, then inner nodes."""
  ids = DEVKIT if ids is None else ids
  rows = [
    (n, wnid, 'words', 'gloss', 0, [], 0, 1300) for n, wnid in ids.items()
  ]
  rows.append(
    (len(ids) + 1, 'n00001740', 'entity', 'gloss', 3, [1, 2, 3], 1, 0)
  )
  fields = ('ILSVRC2012_ID', 'WNID', 'words', 'gloss', 'num_children')
  fields += ('children', 'wordnet_height', 'num_train_images')
  synsets = np.array(rows, [(field, object) for field in fields])
  io.savemat(path, {'synsets': synsets[:, None]})


PAIRS = tuple(zip(VAL, ('a', 'b', 'a b', 'a'), strict=True))


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    # as caffe's val.txt; in another order, with an empty line; parted by tabs
    ('val.txt', ''.join(f'{v} {w}\n\n' for v, w in reversed(PAIRS))),
    ('val.txt', ''.join(f'{v[:-5]}  {w}\n' for v, w in PAIRS)),
    ('val.tsv', ''.join(f'{v}\t{w}\r\n' for v, w in PAIRS)),
    # two columns whose header says nothing, or that have none
    ('a.csv', '\ufeffx,y\n' + ''.join(f'{v},{w}\n' for v, w in PAIRS)),
    ('a.csv', ''.join(f'./{v},"{w}"\n' for v, w in PAIRS)),
    # more columns
    ('a.csv', 'x,Label,File\n' + ''.join(f'0,{w},{v}\n' for v, w in PAIRS)),
  ],
)
def test_a_label_belongs_to_the_picture_that_its_line_names(
  tmp_path, name, text
):
  assert named(tmp_path, text, name=name) == ['a', 'b', 'a b', 'a']


def test_kaggle_gives_a_class_and_a_box_of_every_object(tmp_path):
  """LOC_val_solution.csv and LOC_train_solution.csv, in no order."""
  rows = [
    f'{VAL[2][:-5]},n01484850 85 1 499 272 \n',
    f'{VAL[0][:-5]},n01440764 1 2 3 4 n01440764 5 6 7 8 \n',
    f'{VAL[3][:-5]},n01440764 1 2 3 4\n',
    f'{VAL[1][:-5]},n01443537 1 2 3 4\n',
  ]
  text = KAGGLE + ''.join(rows)
  expected = [SYNSETS[0], SYNSETS[1], SYNSETS[2], SYNSETS[0]]
  assert named(tmp_path, text, name='LOC_val_solution.csv') == expected
  below = [f'{expected[n]}/{name}' for n, name in enumerate(VAL)]
  assert named(tmp_path, text, below, name='LOC_val_solution.csv') == expected


def test_one_label_on_each_line_follows_the_order_of_the_names(tmp_path):
  text = '\n'.join(SYNSETS) + f'\n{SYNSETS[0]}\n'
  assert named(tmp_path, text) == [*SYNSETS, SYNSETS[0]]
  names = ('great shark', 'tench')
  text = 'tench\ngreat shark\ntench\ntench\n'
  found = named(tmp_path, text, class_names=names)
  assert found == text.strip().split('\n')


def test_indices_count_the_names_that_are_given_from_0(tmp_path):
  found = named(tmp_path, '2\n0\n1\n0\n', class_names=('x', 'y', 'z'))
  assert found == ['z', 'x', 'y', 'x']
  text = ''.join(f'{name} {n % 3}\n' for n, name in enumerate(VAL))
  assert named(tmp_path, text, class_names=('x', 'y', 'z')) == list('xyzx')
  # Classes that are named by numbers are found by their names.
  assert named(tmp_path, '1\n2\n10\n2', class_names=('1', '2', '10')) == [
    '1', '2', '10', '2'
  ]  # fmt: skip


@pytest.mark.parametrize('where', ['.', 'data', '../data'])
def test_the_development_kit_counts_in_the_order_of_its_table(tmp_path, where):
  folder_of_list = tmp_path / 'kit'
  folder_of_list.mkdir()
  (folder_of_list / where).mkdir(exist_ok=True)
  write_meta(folder_of_list / where / 'meta.mat')
  name = 'ILSVRC2012_validation_ground_truth.txt'
  found = named(folder_of_list, '1\n2\n3\n1\n', name=name)
  assert found == [SYNSETS[2], SYNSETS[0], SYNSETS[1], SYNSETS[2]]
  labels = label_file.read(folder_of_list / name, VAL, None)
  assert labels.class_names == SYNSETS


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('1\n2\n3\n9\n', "Line 4 .* is '9', and the numbers .* are 1 to 3"),
    ('0\n2\n3\n1\n', "Line 1 .* is '0'"),
    ('1\n2\n3\n', 'has 3 labels, but there are 4 pictures'),
  ],
)
def test_a_list_of_the_development_kit_must_be_whole(tmp_path, text, message):
  write_meta(tmp_path / 'meta.mat')
  with pytest.raises(ValueError, match=message):
    named(tmp_path, text, name='ILSVRC2012_validation_ground_truth.txt')


def test_without_its_table_the_development_kit_is_refused(tmp_path):
  name = 'ILSVRC2012_validation_ground_truth.txt'
  with pytest.raises(
    ValueError, match='1 is not the first WordNet id, and met'
  ):
    named(tmp_path, '1\n2\n3\n1\n', name=name)
  for data in (b'', b'no table', b'MATLAB 5.0 MAT-file' + b'\0' * 200):
    (tmp_path / 'meta.mat').write_bytes(data)
    with pytest.raises(DamagedFile, match='meta.mat is damaged'):
      named(tmp_path, '1\n2\n3\n1\n', name=name)
  write_meta(tmp_path / 'meta.mat', {1: SYNSETS[0], 3: SYNSETS[1]})
  with pytest.raises(DamagedFile, match='does not number its classes from 1'):
    named(tmp_path, '1\n2\n3\n1\n', name=name)


@pytest.mark.parametrize(
  ('text', 'class_names', 'message'),
  [
    ('1\n2\n3\n1\n', ('x', 'y', 'z'), 'seem to count from 1.*subtract 1'),
    ('0\n2\n3\n1\n', ('x', 'y', 'z'), 'Line 3 .* index 3, but the 3 .* 0 to 2'),
    ('0\n-1\n2\n1\n', ('x', 'y', 'z'), 'Line 2 of .* has the index -1'),
    ('0\n2\n1\n1\n', None, 'nothing says which classes they count'),
    ('a\nb\na\n', None, 'has 3 labels, but there are 4 pictures'),
    ('a b\nb\na\nc\n', None, 'names neither one of the pictures nor a class'),
    ('a\nb\na\nb\n', (), 'class_names is empty'),
    (f'{VAL[0]} a\n{VAL[1]} a\n', None, f'has no line for {VAL[2]}'),
    (f'{VAL[0]} a\n{VAL[0]} b\n', None, 'Line 2 .* line 1 names already'),
    (f'{VAL[0]} a\nx.JPEG b\n', None, 'Line 2 .* names x.JPEG, which is none'),
    ('x.JPEG b\ny.JPEG a\n', None, 'Line 1 .* names x.JPEG, which is none'),
    (f'{VAL[0]} a\na\n', None, "Line 2 .* is 'a', and other lines are 'NAME"),
    (f'{KAGGLE}{VAL[0]},n1 1 2 3\n', None, 'Line 2 .* is expected to hold'),
    (f'{KAGGLE}{VAL[0]},n1 1 2 3 4 n2 1 2 3 4\n', None, 'all of one class'),
    (f'{KAGGLE}{VAL[0]},\n', None, 'Line 2 of .* or no label'),
    (f'{KAGGLE}{VAL[0]}\n', None, 'Line 2 of .* 1 of 2 columns'),
    (KAGGLE, None, 'has a header and no lines'),
    (f'{KAGGLE}x,n1 1 2 3 4\n', None, 'Line 2 .* names x, which is none'),
    ('ImageId,b,c\n1,2,3\n', None, "columns of .* Name two of them 'image'"),
    ('ImageId,label\n"a\nb",c\n', None, 'quoted line break'),
    ('\n \n', None, 'has no lines'),
    ('a\0b', None, 'is not a text file: it has a NUL byte'),
    ('<!DOCTYPE html><html>', None, 'a page of HTML'),
    ('version https://git-lfs.github.com/spec/v1\n', None, 'a Git LFS pointer'),
  ],
)
def test_labels_that_are_not_certain_are_refused(
  tmp_path, text, class_names, message
):
  with pytest.raises(ValueError, match=message):
    named(tmp_path, text, class_names=class_names)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
  with pytest.raises(ValueError, match='nowhere.txt: No such file.*NAME LABEL'):
    label_file.read(tmp_path / 'nowhere.txt', VAL, None)
  (tmp_path / 'latin').write_bytes(b'caf\xe9\n')
  with pytest.raises(DamagedFile, match='its byte 3 is not UTF-8'):
    label_file.read(tmp_path / 'latin', VAL, None)


@pytest.mark.parametrize(
  'files',
  [
    ('1.png', '10.png', '9.png'),  # by text or by number
    ('1.png', '9.png', '10.png'),
    ('a/1.png', 'a/2.png', 'b/3.png'),
    ('2.png', '1.png', '3.png'),  # as an archive has them
  ],
)
def test_labels_without_names_need_pictures_in_one_order(tmp_path, files):
  with pytest.raises(ValueError, match='their order is not certain'):
    named(tmp_path, 'a\nb\na\n', files)


def test_names_that_several_pictures_have_need_their_folders(tmp_path):
  files = ('a/0.png', 'b/0.png', 'b/1.png')
  with pytest.raises(ValueError, match='several pictures have that name'):
    named(tmp_path, '1.png x\n0.png y\n', files)
  text = 'b/1.png x\na/0.png y\nb/0.png z\n'
  assert named(tmp_path, text, files) == ['y', 'z', 'x']


def test_a_folder_takes_its_labels_from_the_file(write_folder, tmp_path):
  """Also one whose subfolders would be classes, or mean nothing."""
  root = tmp_path / 'pictures'
  root.mkdir()
  write_folder(root, 3, classes=('s0', 's1'))
  path = tmp_path / 'labels.txt'
  path.write_text('0001 dog\n0000 cat\n0002 dog\n', encoding='utf-8')
  source = folder.Folder(root, labels=path)
  assert source.class_names == ('cat', 'dog') and source.num_classes == 2
  by_name = {
    file: source.class_names[source[i]['label']]
    for i, file in enumerate(source.files)
  }
  assert by_name == {
    's0/0000.png': 'cat',
    's1/0001.png': 'dog',
    's0/0002.png': 'dog',
  }
  given = folder.Folder(root, ('ape', 'dog', 'cat'), path)
  assert sorted(given.labels.tolist()) == [1, 1, 2]
  with pytest.raises(ValueError, match="1 classes that are not .* first 'dog'"):
    folder.Folder(root, ('ape', 'cat'), path)
  path.write_text('0001 dog\n0000 dog\n0002 cat\n', encoding='utf-8')
  other = folder.Folder(root, labels=path)
  assert other.fingerprint != source.fingerprint
