"""Parquet files in the layout of Hugging Face's library `datasets`.

An image is a struct of `bytes` and `path`, and the features of the columns are
JSON under the key 'huggingface' of the schema's metadata (`Image` and
`ClassLabel` of datasets/features).
"""

import concurrent.futures
import io
import json
import os
import pickle
import signal

import numpy as np
import pytest
from PIL import Image

from cdm.config import datasets
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import kept_scan, parquet_rows, parquet_scan
from cdm.data.forms.parquet import Parquet
from cdm.data.transforms import BadImage

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')
SYNSETS = ('n01440764', 'n01443537', 'n01484850')
WORDS = ('tench, Tinca tinca', 'goldfish, Carassius auratus', 'crane')


def jpeg(n, side=6):
  file = io.BytesIO()
  pixels = np.random.default_rng(n).integers(0, 256, (side, side, 3), np.uint8)
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


def features(**columns):
  text = json.dumps({'info': {'features': columns}})
  return {b'huggingface': text.encode()}


CLASSES = {'_type': 'ClassLabel', 'names': list(WORDS)}


def write(path, labels, names, *, first=0, groups=2, classes=CLASSES, **more):
  """One file of `imagenet-1k`: row n has the image jpeg(first + n)."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  images = [
    {'bytes': jpeg(first + n), 'path': name} for n, name in enumerate(names)
  ]
  table = pa.table(
    {'image': images, 'label': pa.array(labels, pa.int64()), **more}
  ).replace_schema_metadata(features(image={'_type': 'Image'}, label=classes))
  pq.write_table(table, path, row_group_size=groups)
  return str(path)


def imagenet(folder, split='train', labels=((2, 0, 1), (1, 2)), name=None):
  """Two files of a split of ImageNet, with the names of its training images."""
  name = name or (lambda n, y: f'{SYNSETS[y]}_{n}_{SYNSETS[y]}.JPEG')
  first = 0
  for k, ys in enumerate(labels):
    names = [name(first + n, y) for n, y in enumerate(ys)]
    path = folder / f'data/{split}-{k:05d}-of-{len(labels):05d}.parquet'
    write(path, ys, names, first=first)
    first += len(ys)
  return folder


@pytest.fixture(autouse=True)
def cold():
  parquet_rows.forget()


def test_images_and_labels_are_those_of_the_rows_in_order(tmp_path):
  source = datasets.open_source(
    {'kind': 'parquet', 'path': str(imagenet(tmp_path))}
  )
  assert isinstance(source, Parquet) and len(source) == 5
  assert source.labels.tolist() == [2, 0, 1, 1, 2]
  for n in (4, 0, 3, 2, 1):
    assert source.encoded(n).data == jpeg(n)  # bytes are not encoded again
  with Image.open(io.BytesIO(jpeg(3))) as image:
    np.testing.assert_array_equal(source[3]['image'], np.asarray(image))
  assert source[-1]['label'] == 2
  with pytest.raises(IndexError):
    source[5]


@pytest.mark.parametrize(
  'name',
  [
    lambda n, y: f'{SYNSETS[y]}_{n}_{SYNSETS[y]}.JPEG',
    lambda n, y: f'ILSVRC2012_val_{n:08d}_{SYNSETS[y]}.JPEG',
  ],
)
def test_imagenet_classes_are_named_by_the_ids_in_the_file_names(
  tmp_path, name
):
  source = Parquet(imagenet(tmp_path, name=name))
  assert source.class_names == SYNSETS
  assert source.file_names()[0] == name(0, 2)


@pytest.mark.parametrize(
  'name',
  [
    lambda n, y: f'{n}.JPEG',
    lambda n, y: f'a_{SYNSETS[0]}.JPEG',  # three classes, one id
    lambda n, y: f'a_{SYNSETS[n % 3]}.JPEG',  # a class of several ids
  ],
)
def test_classes_keep_their_words_where_no_id_is_certain(tmp_path, name):
  assert Parquet(imagenet(tmp_path, name=name)).class_names == WORDS


def test_classes_keep_their_words_where_the_id_of_one_is_unknown(tmp_path):
  source = Parquet(imagenet(tmp_path, labels=((0, 1),)))
  assert source.class_names == WORDS


def test_an_image_without_a_label_names_no_class(tmp_path):
  def name(n, y):
    return f'a_{SYNSETS[y]}.JPEG' if y >= 0 else f'a_{SYNSETS[n % 3]}.JPEG'

  source = Parquet(imagenet(tmp_path, labels=((2, 0, 1), (-1, -1)), name=name))
  assert source.class_names == SYNSETS
  assert source.labels.tolist() == [2, 0, 1, -1, -1]


def test_labels_are_translated_to_the_classes_asked_for(tmp_path):
  names = ('n09999999', *SYNSETS[::-1])
  source = Parquet(imagenet(tmp_path), class_names=names)
  assert [names[y] for y in source.labels] == [
    SYNSETS[y] for y in (2, 0, 1, 1, 2)
  ]
  assert Parquet(imagenet(tmp_path), class_names=()).num_classes == 0


def test_withheld_labels_stay_withheld(tmp_path):
  folder = imagenet(
    tmp_path, 'test', ((-1, -1),), lambda n, y: f'ILSVRC2012_test_{n:08d}.JPEG'
  )
  source = Parquet(folder, class_names=SYNSETS[:0] + WORDS)
  assert source.labels.tolist() == [-1, -1] and source[1]['label'] == -1


def test_names_that_two_classes_share_are_told_apart(tmp_path):
  classes = {**CLASSES, 'names': ['crane', 'maillot', 'crane']}
  path = write(f'{tmp_path}/a.parquet', [2, 0], ['x', 'y'], classes=classes)
  assert Parquet(path).class_names == ('crane (0)', 'maillot', 'crane (2)')


def test_a_split_is_chosen_by_its_name(tmp_path):
  imagenet(tmp_path)
  imagenet(tmp_path, 'validation', ((1,),))
  with pytest.raises(ValueError, match=r"splits \('train', 'validation'\)"):
    Parquet(tmp_path)
  assert len(Parquet(tmp_path, split='validation')) == 1
  assert len(Parquet(tmp_path / 'data/train-00001-of-00002.parquet')) == 2


def test_a_missing_file_is_noticed(tmp_path):
  os.unlink(imagenet(tmp_path) / 'data/train-00000-of-00002.parquet')
  with pytest.raises(DamagedFile, match='first missing one is number 0'):
    Parquet(tmp_path)
  assert len(Parquet(tmp_path / 'data/train-00001-of-00002.parquet')) == 2


def test_further_columns_are_never_read(tmp_path, monkeypatch):
  """As in imagenet-1k-vl-enriched: captions, boxes, lists and nested columns.

  Its labels are texts.
  """
  table = pa.table(
    {
      'image_id': ['a', 'b'],
      'sample': [{'image': {'bytes': jpeg(n), 'path': 'a'}} for n in (0, 1)],
      'label': ['goldfish', 'crane'],
      'caption_enriched': ['some words'] * 2,
      'issues': [[{'kind': 'dark', 'image': b'1'}], []],
    }
  )
  path = f'{tmp_path}/a.parquet'
  pq.write_table(table, path)
  asked, whole = [], pq.ParquetFile.iter_batches

  def spy(file, *given, **options):
    asked.extend(options['columns'])
    return whole(file, *given, **options)

  monkeypatch.setattr(pq.ParquetFile, 'iter_batches', spy)
  source = Parquet(path)
  assert source.class_names == ('crane', 'goldfish')
  assert source.labels.tolist() == [1, 0] and source.encoded(1).data == jpeg(1)
  assert set(asked) == {'label', 'sample.image.path', 'sample.image.bytes'}


def test_plain_bytes_and_numbers_will_do(tmp_path):
  path = f'{tmp_path}/a.parquet'
  pq.write_table(pa.table({'jpg': [jpeg(0), jpeg(1)], 'label': [1, 0]}), path)
  source = Parquet(path)
  assert source.class_names == ('0', '1') and not source.named
  assert source.labels.tolist() == [1, 0] and source.encoded(1).data == jpeg(1)
  assert source.name_of(1) == f'{path}[1] a.parquet:1'
  faces = f'{tmp_path}/b.parquet'
  pq.write_table(pa.table({'image': [jpeg(0)]}), faces)
  assert Parquet(faces).num_classes == 0


def test_labels_that_are_texts_name_the_classes(tmp_path):
  path = f'{tmp_path}/a.parquet'
  columns = {'jpg': [jpeg(0), jpeg(1)], 'label': ['ox', 'ant']}
  pq.write_table(pa.table(columns), path)
  source = Parquet(path)
  assert source.class_names == ('ant', 'ox') and source.named
  assert source.labels.tolist() == [1, 0]


def test_one_of_several_columns_must_be_chosen(tmp_path):
  path = f'{tmp_path}/a.parquet'
  classes = {'x': CLASSES, 'y': CLASSES}
  table = pa.table({'a': [jpeg(0)], 'b': [jpeg(1)], 'x': [0], 'y': [1]})
  pq.write_table(table.replace_schema_metadata(features(**classes)), path)
  with pytest.raises(
    ValueError, match=r"images, \('a', 'b'\). .* columns=\('a',\)"
  ):
    Parquet(path)
  with pytest.raises(ValueError, match=r"labels, .* columns=\('b', 'x'\)"):
    Parquet(path, columns=['b'])
  assert len(Parquet(path, columns=['b'], class_names=())) == 1
  source = Parquet(path, columns=('b', 'y'))
  assert source.encoded(0).data == jpeg(1) and source.labels.tolist() == [1]
  with pytest.raises(ValueError, match=r"no column 'c' of images; it has the"):
    Parquet(path, columns=['c'])


def test_labels_may_be_in_a_file(tmp_path):
  file = tmp_path / 'labels.txt'
  file.write_text('dog\ncat\ndog\n', encoding='utf-8')
  path = f'{tmp_path}/a.parquet'
  pq.write_table(pa.table({'image': [jpeg(n) for n in range(3)]}), path)
  source = Parquet(path, labels=file)
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [1, 0, 1]


def test_three_columns_are_one_too_many(tmp_path):
  path = write(f'{tmp_path}/a.parquet', [0], 'x')
  with pytest.raises(ValueError, match='columns has 3 names; give that of'):
    Parquet(path, columns=('image', 'label', 'text'))


def test_a_table_without_images_is_refused(tmp_path):
  path = f'{tmp_path}/a.parquet'
  pq.write_table(pa.table({'text': ['a'], 'label': [0]}), path)
  with pytest.raises(
    ValueError, match=r"no column of images; .*'text', 'label"
  ):
    Parquet(path)


def test_paths_without_bytes_are_refused(tmp_path):
  path = f'{tmp_path}/a.parquet'
  rows = [{'bytes': None, 'path': '/home/a/1.png'}] * 3
  kind = pa.struct({'bytes': pa.binary(), 'path': pa.string()})
  pq.write_table(pa.table({'image': pa.array(rows, kind)}), path)
  with pytest.raises(ValueError, match="only the paths .*'/home/a/1.png', and"):
    Parquet(path)
  rows[1] = {'bytes': jpeg(0), 'path': None}
  rows[2] = None
  pq.write_table(pa.table({'image': pa.array(rows, kind)}), path)
  source = Parquet(path)
  assert source.encoded(1).data == jpeg(0)
  for n in (0, 2):
    with pytest.raises(BadImage, match=r'holds no bytes of an image') as caught:
      source[n]
    assert not caught.value.is_data_error


def test_files_of_two_data_sets_are_not_mixed(tmp_path):
  imagenet(tmp_path)
  other = {**CLASSES, 'names': ['a', 'b', 'c']}
  path = tmp_path / 'data/train-00001-of-00002.parquet'
  write(path, [0], ['x'], classes=other)
  with pytest.raises(ValueError, match='not parts of one data set'):
    Parquet(tmp_path)


def test_a_label_without_a_class_is_refused(tmp_path):
  path = write(f'{tmp_path}/a.parquet', [0, 3], ['x', 'y'])
  with pytest.raises(DamagedFile, match='labels from 0 to 3 .* there are 3 cl'):
    Parquet(path)


@pytest.mark.parametrize(
  'data, message',
  [
    (
      b'version https://git-lfs.github.com/spec/v1\n',
      'a pointer of Git LFS instead .*lfs pull',
    ),
    (
      b'<!DOCTYPE html><html>Log in</html>',
      'as a Parquet file .* It is a web page',
    ),
    (b'', 'The file is empty'),
    (b'PAR1' + bytes(100) + b'PAR1', 'cannot be read as a Parquet file'),
  ],
)
def test_a_file_of_another_kind_is_named(tmp_path, data, message):
  imagenet(tmp_path)
  path = tmp_path / 'data/train-00001-of-00002.parquet'
  path.write_bytes(data)
  assert Parquet.holds(str(path))
  with pytest.raises(DamagedFile, match=f'{path}.*{message}'):
    Parquet(tmp_path)


def test_a_file_that_is_cut_short_is_named(tmp_path):
  path = write(f'{tmp_path}/a.parquet', [0, 1, 2], 'xyz')
  with open(path, 'rb+') as file:
    file.truncate(os.path.getsize(path) - 100)
  with pytest.raises(
    DamagedFile, match='a.parquet .* It is damaged or of another kind'
  ):
    Parquet(path)


def test_a_damaged_row_group_loses_its_own_rows_only(tmp_path):
  path = write(f'{tmp_path}/a.parquet', [0, 1, 2, 0], 'wxyz', groups=2)
  chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
  with open(path, 'rb+') as file:
    file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
    file.write(b'\xff' * 40)
  source = Parquet(path)
  for n in (0, 1):
    with pytest.raises(BadImage, match=rf'\[{n}\] .*row group 0 of a.parquet'):
      source[n]
  assert [source.encoded(n).data for n in (2, 3)] == [jpeg(2), jpeg(3)]


def test_one_bad_image_is_the_only_one_that_is_lost(tmp_path):
  path = f'{tmp_path}/a.parquet'
  pq.write_table(pa.table({'image': [jpeg(0), b'no image', jpeg(2)]}), path)
  source = Parquet(path)
  with pytest.raises(BadImage, match=r'a.parquet\[1\]'):
    source[1]
  assert source[2]['image'].shape == (6, 6, 3)


def test_a_column_that_would_fill_the_memory_is_not_unpacked(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(parquet_rows, '_MOST_SHRUNK_BYTES', 1 << 20)
  path = f'{tmp_path}/a.parquet'
  table = pa.table({'image': [bytes(1 << 21)]})
  pq.write_table(table, path, compression='zstd')
  with pytest.raises(BadImage, match='would unpack from .* which image files'):
    Parquet(path)[0]


def test_names_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(parquet_scan, '_MOST_NAME_BYTES', 16)
  path = write(f'{tmp_path}/a.parquet', [0, 1], ['x' * 50_000, 'y'])
  with pytest.raises(DamagedFile, match='names or labels of 1?0?[0-9]+,'):
    Parquet(path)


def test_a_kept_list_gives_the_same_source(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_scan, 'LEAST_SECONDS', 0.0)
  for path in (imagenet(tmp_path) / 'data').iterdir():
    os.utime(path, (1e9, 1e9))
  first = Parquet(tmp_path)
  monkeypatch.setattr(parquet_scan, '_scan', None)
  again = Parquet(tmp_path)
  assert again.fingerprint == first.fingerprint
  assert again.class_names == SYNSETS and again.encoded(3).data == jpeg(3)
  assert list(again.file_names()) == list(first.file_names())


def test_it_can_be_pickled_and_read_by_many_threads(tmp_path):
  source = pickle.loads(pickle.dumps(Parquet(imagenet(tmp_path))))
  order = np.random.default_rng(0).permutation(200) % 5
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = list(threads.map(lambda n: source.encoded(int(n)).data, order))
  assert found == [jpeg(n) for n in order]
  assert source.fingerprint == Parquet(tmp_path).fingerprint


def test_a_forked_process_reads_on(tmp_path):
  source = Parquet(imagenet(tmp_path))
  source[0]
  with parquet_rows._kept.lock:  # held by another thread at the fork
    child = os.fork()
    if not child:
      signal.alarm(20)  # ends a child that waits for the lock
      same = source.encoded(1).data == jpeg(1)
      os._exit(0 if same else 1)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_fingerprint_depends_on_files_and_column(tmp_path):
  before = Parquet(imagenet(tmp_path)).fingerprint
  write(tmp_path / 'data/train-00001-of-00002.parquet', [1, 2], 'ab')
  assert Parquet(tmp_path).fingerprint != before


def test_what_reading_at_random_costs_is_said(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr('cdm.data.forms.parquet._COSTLY_BYTES', 1000)
  monkeypatch.setattr('cdm.data.forms.parquet._COSTLY_TIMES', 2)
  path = write(f'{tmp_path}/a.parquet', [0] * 20, 'abcdefghijklmnopqrst')
  Parquet(path)
  assert not caplog.messages
  write(path, [0] * 20, 'abcdefghijklmnopqrst', groups=20)
  Parquet(path)
  assert 'groups have up to 20 rows. `cdm prepare --source=' in caplog.text


def test_what_a_path_holds_is_told_by_names(tmp_path):
  assert not Parquet.holds(str(tmp_path))
  assert not Parquet.holds(str(tmp_path / 'none.parquet'))
  assert Parquet.holds(str(imagenet(tmp_path)))


def test_without_pyarrow_the_command_that_installs_it_is_named(
  tmp_path, monkeypatch
):
  path = write(f'{tmp_path}/a.parquet', [0], 'x')
  monkeypatch.setitem(__import__('sys').modules, 'pyarrow.parquet', None)
  monkeypatch.setitem(__import__('sys').modules, 'pyarrow', None)
  with pytest.raises(ValueError, match=r'needs the package pyarrow .*install'):
    Parquet(path)
