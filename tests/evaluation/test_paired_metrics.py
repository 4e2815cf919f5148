import json

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cdm.data import image_set
from cdm.evaluation import paired_metrics, result_line
from cdm.ops import resize
from cdm.ops.pair_scores import consistency


def pictures(n=3, size=16, seed=0):
  """Smooth, so that scores are in the range of photographs'."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
  return np.asarray(resize.resize_uint8(small, size))


def disturbed(image, seed=1):
  shift = np.random.default_rng(seed).integers(-9, 10, image.shape)
  return np.uint8(np.clip(np.int32(image) + shift, 0, 255))


def write(folder, array, names=None, suffix='png'):
  folder.mkdir(parents=True, exist_ok=True)
  for i, image in enumerate(array):
    name = names[i] if names else f'{i:03d}'
    Image.fromarray(image).save(folder / f'{name}.{suffix}')
  return folder


def test_scores_are_means_over_images_of_scikit_image_s():
  references = pictures()
  samples = disturbed(references)
  row = paired_metrics.evaluate_pairs([samples], [references])
  both = list(zip(references, samples, strict=True))
  psnr = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in both]
  ssim = [structural_similarity(a, b, channel_axis=-1) for a, b in both]
  np.testing.assert_allclose(row['psnr'], np.mean(psnr))
  np.testing.assert_allclose(row['ssim'], np.mean(ssim))
  assert row['n'] == 3 and row['image_size'] == [16, 16]
  assert 'scikit-image' in row['conventions']['ssim']
  assert {'psnr', 'psnr_y', 'ssim', 'ssim_gaussian'} <= {*row['conventions']}


def test_low_res_images_add_consistency_and_the_bicubic_baseline():
  references = pictures()
  low = np.asarray(resize.resize_uint8(references, 4))
  samples = disturbed(references)
  row = paired_metrics.evaluate_pairs([samples], [references], lowres=[low])
  expected = consistency(samples, low).mean()
  np.testing.assert_allclose(row['consistency'], expected)
  np.testing.assert_allclose(row['consistency_1e-5'], expected * 1e5)
  assert 'SR3' in row['conventions']['consistency']
  assert row['lowres_size'] == [4, 4]
  bicubic = np.asarray(resize.resize_uint8(low, 16))
  alone = paired_metrics.evaluate_pairs([bicubic], [references], lowres=[low])
  for score, value in row['bicubic'].items():
    assert value == pytest.approx(alone[score]), score


def test_the_mean_lies_in_its_interval():
  references = pictures(12)
  row = paired_metrics.evaluate_pairs([disturbed(references)], [references])
  assert set(row['intervals']) == {'psnr', 'psnr_y', 'ssim', 'ssim_gaussian'}
  for name, (low, high) in row['intervals'].items():
    assert low < row[name] < high
  one = paired_metrics.evaluate_pairs([references[:1]], [references[1:2]])
  assert one['intervals'] == {}


def flat(level, n=1):
  return np.full((n, 16, 16, 3), level, np.uint8)


def closed_psnr(difference):
  """PSNR of two flat images: its MSE is the difference squared."""
  return 20 * np.log10(255 / difference)


def test_identical_pairs_are_left_out_of_the_mean_psnr_and_counted(tmp_path):
  references = np.concatenate([flat(0, 2), flat(100), flat(200)])
  samples = np.concatenate([flat(0), flat(4), flat(110), flat(220)])
  row = paired_metrics.evaluate_pairs([samples], [references])
  expected = np.mean([closed_psnr(d) for d in (4, 10, 20)])
  assert row['psnr'] == pytest.approx(expected)
  assert row['counts']['psnr'] == 3 and row['counts']['ssim'] == row['n'] == 4
  assert row['identical_pairs'] == 1
  assert row['intervals']['psnr'][0] >= closed_psnr(20) - 1e-9
  assert json.loads(json.dumps(row, allow_nan=False)) == row
  path = result_line.write({**row, 'samples': 'x'}, tmp_path / 'row.json')
  line = path.with_suffix('.md').read_text(encoding='utf-8')
  assert f'PSNR {expected:.2f} over 3 of 4 images' in line
  assert '; 1 identical; ' in line


def test_bicubic_is_averaged_over_the_same_images_as_ours(tmp_path):
  """Bicubic enlarges a flat input exactly, and ours the last image alone."""
  rising = pictures(3)
  references = np.concatenate([flat(0), rising])
  samples = np.concatenate([flat(4), disturbed(rising[:2]), rising[2:]])
  low = np.asarray(resize.resize_uint8(references, 4))
  given = [samples], [references]
  row = paired_metrics.evaluate_pairs(*given, lowres=[low])
  part = slice(1, 3)  # where both PSNRs are finite
  alone = paired_metrics.evaluate_pairs(
    [samples[part]], [references[part]], lowres=[low[part]]
  )
  for name in ('psnr', 'psnr_y'):
    assert row['counts'][name] == 2
    assert row[name] == pytest.approx(alone[name])
    assert row['bicubic'][name] == pytest.approx(alone['bicubic'][name])
  assert row['identical_pairs'] == row['bicubic']['identical_pairs'] == 1
  assert row['counts']['ssim'] == 4
  path = result_line.write({**row, 'samples': 'x'}, tmp_path / 'row.json')
  line = path.with_suffix('.md').read_text(encoding='utf-8')
  assert f'(bicubic {alone["bicubic"]["psnr"]:.2f}) over 2 of 4 images' in line
  assert '1 identical (1 of bicubic)' in line


def test_a_row_has_a_line_even_if_all_images_are_identical(tmp_path):
  low = np.asarray(resize.resize_uint8(flat(9, 2), 4))
  row = paired_metrics.evaluate_pairs([flat(9, 2)], [flat(9, 2)], lowres=[low])
  assert row['psnr'] is None and row['bicubic']['psnr'] is None
  assert row['ssim'] == 1 and row['counts']['psnr'] == 0
  path = result_line.write({**row, 'samples': 'x'}, tmp_path / 'row.json')
  assert json.loads(path.read_text(encoding='utf-8'))['identical_pairs'] == 2
  assert 'PSNR is finite for no image' in path.with_suffix('.md').read_text(
    encoding='utf-8'
  )


def test_images_too_small_for_the_gaussian_window_still_have_a_row():
  references = pictures(size=8)
  row = paired_metrics.evaluate_pairs([disturbed(references)], [references])
  assert row['ssim_gaussian'] is None and 0 < row['ssim'] < 1
  assert row['ms_ssim'] is None
  assert set(row['left_out']) == {'ssim_gaussian', 'ms_ssim'}
  references = pictures(2, size=6)
  row = paired_metrics.evaluate_pairs([disturbed(references)], [references])
  assert row['psnr'] > 0 and row['ssim'] is None
  line = result_line.line({**row, 'samples': 'x'})
  assert (
    'SSIM left out: its windows need images of 7 pixels, and these are 6x6'
    in line
  )
  references = pictures(1, size=161)
  row = paired_metrics.evaluate_pairs([references], [references])
  assert row['ms_ssim'] == pytest.approx(1.0)


def test_how_streams_are_cut_into_batches_changes_nothing():
  references = pictures(5)
  samples = disturbed(references)
  whole = paired_metrics.evaluate_pairs([samples], [references])
  cut = paired_metrics.evaluate_pairs(
    iter([samples[:2], samples[2:]]), iter([references[:4], references[4:]])
  )
  assert whole == cut


@pytest.fixture
def paired(tmp_path):
  references = pictures()
  return dict(
    references=references,
    samples=disturbed(references),
    low=np.asarray(resize.resize_uint8(references, 4)),
    path=tmp_path,
  )


def test_folders_archives_and_streams_give_the_same_numbers(paired):
  path, low = paired['path'], paired['low']
  samples, references = paired['samples'], paired['references']
  expected = paired_metrics.evaluate_pairs(
    [samples], [references], lowres=[low]
  )
  np.savez(path / 'samples.npz', samples)
  np.savez(path / 'references.npz', references, np.arange(3))
  write(path / 'samples', samples)
  write(path / 'references', references, suffix='bmp')
  write(path / 'low', low)
  for kind in ('', '.npz'):
    row = paired_metrics.evaluate_paths(
      path / f'samples{kind}',
      path / f'references{kind}',
      lowres=path / 'low',
    )
    assert row.pop('samples') == str(path / f'samples{kind}')
    assert row.pop('reference') and row.pop('lowres')
    assert row == expected


def test_files_are_paired_by_name_and_not_by_order(paired):
  """A suffix takes part in sorting: x.bmp < x.c.bmp, but x.c.png < x.png."""
  path, names = paired['path'], ['x', 'x.c', 'y']
  write(path / 'a', paired['samples'], names)
  write(path / 'b', paired['references'], names, 'bmp')
  row = paired_metrics.evaluate_paths(path / 'a', path / 'b')
  expected = paired_metrics.evaluate_pairs(
    [paired['samples']], [paired['references']]
  )
  np.testing.assert_allclose(row['psnr'], expected['psnr'])


def test_two_single_pictures_are_a_pair_whatever_their_names(paired):
  path = paired['path']
  write(path, paired['samples'][:1], ['ours'])
  write(path, paired['references'][:1], ['original'])
  row = paired_metrics.evaluate_paths(path / 'ours.png', path / 'original.png')
  assert row['n'] == 1


def test_grey_pictures_become_rgb_by_repeating_the_channel(tmp_path):
  grey = pictures()[..., 0]
  write(tmp_path / 'grey', grey)
  np.savez(tmp_path / 'grey.npz', grey[..., None])
  rgb = np.repeat(grey[..., None], 3, axis=3)
  for name in ('grey', 'grey.npz'):
    read = image_set.load_images(tmp_path / name)
    stacked = np.concatenate(list(image_set.stream(read, batch_size=2)))
    np.testing.assert_array_equal(stacked, rgb)


def test_subfolders_are_part_of_the_name(paired):
  path = paired['path']
  for folder in ('a', 'b'):
    write(path / folder / 'cat', paired['samples'][:1])
    write(path / folder / 'dog', paired['samples'][1:2])
  assert image_set.load_images(path / 'a').names == ('cat/000', 'dog/000')
  assert paired_metrics.evaluate_paths(path / 'a', path / 'b')['n'] == 2


def refused(message, call, *args, **kwargs):
  with pytest.raises(ValueError, match=message):
    call(*args, **kwargs)


def test_a_picture_without_a_partner_is_named(paired):
  path, samples = paired['path'], paired['samples']
  write(path / 'a', samples, ['001', '002', '003'])
  write(path / 'b', samples[:2], ['001', '003'])
  message = r"'002' of .*a has no partner in .*b \(1 of 3 have none\)"
  refused(message, paired_metrics.evaluate_paths, path / 'a', path / 'b')
  message = r"'002' of .*a has no partner in .*b"
  refused(message, paired_metrics.evaluate_paths, path / 'b', path / 'a')


def test_counts_that_differ_are_refused(paired):
  path, samples = paired['path'], paired['samples']
  np.savez(path / 'two.npz', samples[:2])
  write(path / 'three', samples)
  refused(
    'three holds 3 images and .*two.npz 2',
    paired_metrics.evaluate_paths,
    path / 'three',
    path / 'two.npz',
  )
  refused(
    'references ended after 2 images while samples went on',
    paired_metrics.evaluate_pairs,
    [samples],
    [samples[:2]],
  )


def test_sizes_that_differ_are_refused(paired):
  path, samples = paired['path'], paired['samples']
  write(path / 'mixed', samples)
  write(path / 'mixed', pictures(1, size=12), ['zzz'])
  refused(
    "'zzz' of .*mixed has 12x12 pixels but '000' of .*mixed has 16x16",
    paired_metrics.evaluate_paths,
    path / 'mixed',
    path / 'mixed',
  )
  refused(
    'A sample has 16x16 pixels but its reference 12x12',
    paired_metrics.evaluate_pairs,
    [samples],
    [pictures(size=12)],
  )
  refused(
    'are followed by',
    paired_metrics.evaluate_pairs,
    [samples, pictures(size=12)],
    [samples, pictures(size=12)],
  )
  refused(
    'same aspect ratio',
    paired_metrics.evaluate_pairs,
    [samples],
    [samples],
    lowres=[samples[:, :4, :8]],
  )


def test_what_holds_no_pictures_is_refused(tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'notes.txt').write_text('no picture', encoding='utf-8')
  load = image_set.load_images
  refused('nowhere does not exist', load, tmp_path / 'nowhere')
  refused('empty holds no picture files', load, tmp_path / 'empty')
  refused(
    'neither a folder, an .npz nor a picture file', load, tmp_path / 'notes.txt'
  )
  refused('streams are empty', paired_metrics.evaluate_pairs, [], [])


def test_a_damaged_picture_is_named(paired):
  path = write(paired['path'] / 'a', paired['samples'])
  whole = (path / '001.png').read_bytes()
  (path / '001.png').write_bytes(whole[: len(whole) // 2])
  message = r'001.png: .*Write the image again'
  refused(message, paired_metrics.evaluate_paths, path, path)


def test_an_archive_of_something_else_is_refused(tmp_path):
  image = pictures()
  np.savez(tmp_path / 'named.npz', images=image)
  np.savez(tmp_path / 'float.npz', image / 255.0)
  np.savez(tmp_path / 'flat.npz', image[0])
  np.savez(tmp_path / 'none.npz', image[:0])
  whole = (tmp_path / 'named.npz').read_bytes()
  (tmp_path / 'cut.npz').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'text.npz').write_text('not an archive', encoding='utf-8')
  load = image_set.load_images
  message = r"named.npz has the arrays \['images'\] but no arr_0"
  refused(message, load, tmp_path / 'named.npz')
  message = r'arr_0 of .*float.npz is float64 \(3, 16, 16, 3\); uint8'
  refused(message, load, tmp_path / 'float.npz')
  refused(r'flat.npz is uint8 \(16, 16, 3\)', load, tmp_path / 'flat.npz')
  refused('none.npz holds no images', load, tmp_path / 'none.npz')
  refused('cut.npz cannot be read as an .npz', load, tmp_path / 'cut.npz')
  refused('text.npz cannot be read as an .npz', load, tmp_path / 'text.npz')


def test_two_files_of_one_name_are_refused(paired):
  path = write(paired['path'] / 'a', paired['samples'])
  write(path, paired['samples'][:1], suffix='bmp')
  message = 'holds both 000.bmp and 000.png'
  refused(message, paired_metrics.evaluate_paths, path, path)
  assert image_set.load_images(path).count == 4  # of a set, both count


def test_floats_are_refused():
  image = pictures() / 127.5 - 1
  refused(
    r'samples gave float64.*uint8 \[N, H, W, 3\]',
    paired_metrics.evaluate_pairs,
    [image],
    [image],
  )


def test_white_of_deep_files_can_be_stated(tmp_path):
  """The samples have 8 bits, and the reference 12 of 16 bits."""
  grey = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
  deep = np.rint(grey * (4095 / 255)).astype(np.uint16)
  for name, x in (('a', grey), ('b', deep)):
    (tmp_path / name).mkdir()
    Image.fromarray(x).save(tmp_path / name / '0.png')
  sets = tmp_path / 'a', tmp_path / 'b'
  assert paired_metrics.evaluate_paths(*sets)['psnr'] < 20
  row = paired_metrics.evaluate_paths(*sets, max_value=4095)
  assert row['identical_pairs'] == 1 or row['psnr'] > 90
