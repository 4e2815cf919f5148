"""What is no data set is named, with all that is read and the next command."""

import shlex

import pytest

from cdm.data import unread_files


@pytest.mark.parametrize(
  ('name', 'what', 'remedy'),
  [
    ('my film.MP4', 'a video', "ffmpeg -i '{path}' {stem}/%08d.png"),
    ('a.rar', 'a RAR archive', 'unrar x {path} {stem}/'),
    ('a.7z', 'a 7-Zip archive', '7z x {path} -o{stem}'),
    ('a.7z.001', 'a 7-Zip archive', '7z x {path} -o{stem}'),
    ('a.tar.gz', 'a compressed tar', 'tar -xf {path} -C {stem}'),
    ('a.tgz', 'a compressed tar', 'tar -xf {path}'),
    ('a.zst', 'a compressed file', 'unzstd'),
    ('LOC_val_solution.csv', 'a table or text', '--labels={path}'),
    ('a.mat', 'an HDF5 or MATLAB', 'numpy.savez'),
    ('a.npy', 'a single array', 'numpy.savez'),
    ('data_batch_1', 'a pickle, which could', 'tfds:cifar10:train'),
    ('a.pth', 'a pickle', 'another form'),
    ('x-00000.arrow', "Hugging Face's cache", ".to_parquet('{stem}.parquet')"),
    ('train-images-idx3-ubyte.gz', 'a compressed file', 'gunzip'),
    ('train-images-idx3-ubyte', 'a file of MNIST', 'tfds:mnist:train'),
    ('a.beton', 'does not know', 'Write its pictures as files'),
    ('a.JPG', 'a single picture', 'Give its folder: {folder}'),
    ('a.xyz', 'another file', 'tfds:NAME:SPLIT'),
  ],
)
def test_a_file_is_called_what_it_is(tmp_path, name, what, remedy):
  path = tmp_path / name
  path.touch()
  text = unread_files.refusal(path)
  stem = shlex.quote(str(tmp_path / name.split('.')[0]))
  assert f'{str(path)!r} is not a folder of images: it is {what}' in text or (
    what in text
  )
  expected = remedy.format(path=path, stem=stem, folder=tmp_path)
  assert expected in text and 'Read are: a folder of pictures' in text
  assert '\n' not in text and text.endswith('.')


def test_what_is_not_there_is_said(tmp_path):
  text = unread_files.refusal(tmp_path / 'no.csv')
  assert text.endswith("no.csv' is not a folder of images: it does not exist.")
