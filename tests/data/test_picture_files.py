"""The one list of a folder's picture files, for every command."""

import os
import socket

import numpy as np
import pytest
from PIL import Image
from support import file_names

from cdm.data import folder, image_set, picture_files
from cdm.data.printable_name import printable


def picture(path, red=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((4, 4, 3), red, np.uint8)).save(path, format='PNG')


def listed(root):
  return picture_files.list_pictures(root).files


def left_out(root):
  return picture_files.list_pictures(root).left_out


@pytest.mark.parametrize('suffix', picture_files.SUFFIXES)
def test_training_and_evaluation_know_the_same_suffixes(suffix, tmp_path):
  """The content is a PNG each time: the name decides what is listed."""
  names = [f'a{suffix}', f'B{suffix.upper()}']
  for name in names:
    picture(tmp_path / name)
  assert sorted(folder.Folder(tmp_path).files) == sorted(names)
  images = image_set.load_images(tmp_path)
  assert sorted(images.names) == ['B', 'a']
  assert image_set.load_images(tmp_path / names[0]).count == 1


def test_what_is_hidden_is_left_out_and_counted(tmp_path):
  picture(tmp_path / 'cat' / 'x.png')
  for name in (
    '.ipynb_checkpoints/x-checkpoint.png', '.thumbnails/x.png',
    '__MACOSX/x.png', 'cat/._x.png', 'cat/@eaDir/x.png', '.x.png',
  ):  # fmt: skip
    picture(tmp_path / name)
  assert listed(tmp_path) == ('cat/x.png',)
  assert left_out(tmp_path) == {'hidden': 6}
  assert image_set.load_images(tmp_path).names == ('cat/x',)
  assert folder.Folder(tmp_path).class_names == ('cat',)


@pytest.mark.parametrize('links', ['a', 'ab'])
def test_links_around_a_picture_end(links, tmp_path):
  """Two links to their own folder doubled the paths at every level."""
  picture(tmp_path / 'x.png')
  for name in links:
    (tmp_path / name).symlink_to('.')
  assert listed(tmp_path) == ('x.png',)
  assert left_out(tmp_path) == {'link to a folder around it': len(links)}
  assert len(folder.Folder(tmp_path)) == image_set.load_images(tmp_path).count


def test_no_path_of_links_leads_to_an_image_a_second_time(tmp_path):
  for name in ('cat', 'dog'):
    for i in range(3):
      picture(tmp_path / 'all' / name / f'{i}.png')
  root = tmp_path / 'all'
  (root / 'cat' / 'again').symlink_to('../cat')
  (root / 'cat' / 'up').symlink_to('..')
  (root / 'cat' / 'above').symlink_to(tmp_path)
  (root / 'dog' / 'itself').symlink_to('itself')
  files = listed(root)
  assert len(files) == 6 and sorted({f.split('/')[0] for f in files}) == [
    'cat', 'dog',
  ]  # fmt: skip
  assert left_out(root) == {
    'link to a folder around it': 3,
    'link that leads nowhere': 1,
  }


def test_links_that_double_at_every_level_are_read_once(tmp_path):
  """Thirty levels of two links each: 2^30 paths, thirty-one folders."""
  for i in range(30):
    level = tmp_path / 'real' / f'{i:02d}'
    picture(level / f'{i}.png')
    if i < 29:
      for name in ('a', 'b'):
        (level / name).symlink_to(tmp_path / 'real' / f'{i + 1:02d}')
  root = tmp_path / 'set'
  root.mkdir()
  (root / 'class').symlink_to(tmp_path / 'real' / '00')
  assert len(listed(root)) == 30


def test_classes_that_are_links_are_read_alike_everywhere(tmp_path):
  picture(tmp_path / 'store' / 'x' / '0.png')
  picture(tmp_path / 'store' / 'y' / '1.png')
  root = tmp_path / 'root'
  root.mkdir()
  for name, target in (('cat', 'x'), ('dog', 'y'), ('pet', 'x')):
    (root / name).symlink_to(tmp_path / 'store' / target)
  (root / 'dog' / 'link.png').symlink_to(tmp_path / 'store' / 'x' / '0.png')
  source = folder.Folder(root)
  assert source.files == ('cat/0.png', 'dog/1.png', 'dog/link.png', 'pet/0.png')
  assert source.class_names == ('cat', 'dog', 'pet')
  assert image_set.load_images(root).count == 4


def test_a_folder_reached_by_a_link_too_keeps_its_own_name(tmp_path):
  picture(tmp_path / 'cat' / 'z' / '0.png')
  (tmp_path / 'cat' / 'a').symlink_to('z')
  assert listed(tmp_path) == ('cat/z/0.png',)
  assert left_out(tmp_path) == {'second link to a folder': 1}


def test_what_is_no_file_is_never_opened(tmp_path):
  """Reading a pipe would wait forever."""
  picture(tmp_path / 'good.png')
  os.mkfifo(tmp_path / 'pipe.png')
  (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere')
  (tmp_path / 'null.png').symlink_to('/dev/null')
  picture(tmp_path / 'folder.png' / 'inside.png')
  here = os.getcwd()
  os.chdir(tmp_path)  # The path of a socket must be short.
  try:
    with socket.socket(socket.AF_UNIX) as server:
      server.bind('socket.png')
  finally:
    os.chdir(here)
  assert listed(tmp_path) == ('good.png',)
  assert left_out(tmp_path) == {
    'pipe': 1, 'link that leads nowhere': 1, 'device': 1, 'socket': 1,
    "folder with a picture's name": 1,
  }  # fmt: skip
  assert len(folder.Folder(tmp_path)) == image_set.load_images(tmp_path).count
  image_set.fingerprint_of(tmp_path)
  for name, reason in (
    ('pipe.png', 'is a pipe, not'), ('gone.png', 'is a link that'),
    ('no.png', 'does not exist'), ('null.png', 'is a device'),
  ):  # fmt: skip
    with pytest.raises(ValueError, match=f'{name} {reason}'):
      image_set.load_images(tmp_path / name)


def test_other_files_are_counted_by_suffix_and_said_once(tmp_path, caplog):
  picture(tmp_path / 'x.png')
  for name in ('a.txt', 'b.TXT', 'c.npy', 'README'):
    (tmp_path / name).write_text('', encoding='utf-8')
  expected = (
    'left out 4 entries: .txt (2), .npy (1), without a suffix (1)'
  )  # fmt: skip
  assert folder.Folder(tmp_path).left_out == expected
  folder.Folder(tmp_path)
  image_set.load_images(tmp_path)
  said = [r.getMessage() for r in caplog.records]
  assert said == [f'{tmp_path}: {expected}']


def test_a_folder_without_pictures_says_what_it_holds(tmp_path):
  (tmp_path / 'a.dcm').write_text('', encoding='utf-8')
  message = r'left out 1 entry: \.dcm \(1\)'
  with pytest.raises(ValueError, match=message):
    folder.Folder(tmp_path)
  with pytest.raises(ValueError, match=message):
    image_set.load_images(tmp_path)


def test_names_of_any_bytes_are_read(tmp_path):
  name = file_names.of_bytes(tmp_path, b'caf\xe9 \n\x1b[31m.png')
  picture(tmp_path / name, red=7)
  source = folder.Folder(tmp_path)
  assert source[0]['image'][0, 0, 0] == 7 and len(source.fingerprint) > 8
  images = image_set.load_images(tmp_path)
  assert images.read(0)[0, 0, 0] == 7
  assert len(image_set.fingerprint_of(tmp_path)) == 64


def test_a_printable_name_is_ascii_where_it_must_be():
  name = os.fsdecode('é\n\x1b'.encode() + b'\xe9')
  assert printable(name) == 'é\\n\\x1b\\xe9'
  assert printable('Zoë/a b.png') == 'Zoë/a b.png'


def test_two_files_of_one_name_count_but_cannot_be_paired(tmp_path):
  """Between them in the order stands a third: a-b is before a.png."""
  for name in ('a.jpg', 'a.jpg.png', 'a.png'):
    picture(tmp_path / name)
  images = image_set.load_images(tmp_path)
  assert images.count == len(folder.Folder(tmp_path)) == 3
  with pytest.raises(ValueError, match=r'both a\.jpg and a\.png.* keep one a'):
    image_set.check_names(images)


def test_what_was_left_out_is_told_most_first_and_in_few_words():
  listing = picture_files.Listing((), {})
  assert listing.left_out_text() == ''
  one = listing._replace(left_out={'.txt': 1})
  assert one.left_out_text() == 'left out 1 entry: .txt (1)'
  some = listing._replace(left_out={'.b': 2, '.c': 1500, '.a': 2})
  assert some.left_out_text() == (
    'left out 1,504 entries: .c (1,500), .a (2), .b (2)'
  )
  for kinds, rest in ((8, ''), (9, ', 1 other kinds'), (11, ', 3 other kinds')):
    many = listing._replace(left_out={f'.{i:02}': 1 for i in range(kinds)})
    shown = ', '.join(f'.{i:02} (1)' for i in range(8))
    assert many.left_out_text() == f'left out {kinds} entries: {shown}{rest}'


def test_a_path_that_cannot_be_read_as_a_file_says_why(tmp_path):
  (tmp_path / 'file').touch()
  (tmp_path / 'link').symlink_to('nowhere')
  (tmp_path / 'circle').symlink_to('circle')
  os.mkfifo(tmp_path / 'pipe')
  for name, reason in (
    ('file', None),
    ('none', 'does not exist'),
    ('a\0b', 'does not exist'),
    ('link', 'is a link that leads nowhere'),
    ('circle', 'is a link that leads nowhere'),
    ('', 'is a folder, not a picture file'),
    ('pipe', 'is a pipe, not a picture file'),
    ('file/x', 'cannot be read: Not a directory'),
    ('x' * 300, 'cannot be read: File name too long'),
  ):
    assert picture_files.why_not_a_file(f'{tmp_path}/{name}') == reason


def test_a_folder_below_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
  """As another user's; here reading it fails by its name."""
  for name in ('closed', 'open'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'a.png').touch()
  scan = os.scandir

  def scandir(path):
    if os.fspath(path).endswith('closed'):
      raise PermissionError(13, 'Permission denied')
    return scan(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  listing = picture_files.list_pictures(tmp_path)
  assert listing.files == ('open/a.png',)
  assert listing.left_out == {'folder that cannot be read': 1}
  with pytest.raises(ValueError, match='closed cannot be listed .*denied'):
    picture_files.list_pictures(tmp_path / 'closed')
