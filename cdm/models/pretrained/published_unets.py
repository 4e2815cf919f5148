"""Lists the U-Nets that their authors publish, and what is known of each file.

Flags and addresses are those of the programs' own pages (openai's
guided-diffusion and improved-diffusion, Janspiry's SR3) and of the models' own
folders (diffusers). A checksum stands where somebody has published it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_ADM = 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/'
_IDDPM = 'https://openaipublic.blob.core.windows.net/diffusion/march-2021/'
_GOOGLE = 'https://huggingface.co/google/'
_DRIVE = 'https://drive.google.com/drive/folders/'


class Asked(NamedTuple):
  """What the shapes in a file do not tell of its network; None is not known.

  Attributes:
    image_size: side of its images in pixels.
    lowres_size: side of the low-res images, where it takes some.
    num_heads: heads of attention, or two numbers, see `UNet`.
    head_features: width of a head, in the place of their number.
    attention_order: 'legacy' or 'new', see `unet.adm_to_cdm`.
    schedule: 'linear' or 'cosine', the noise schedule of training.
    timesteps: T of that schedule.
    rescale_timesteps: whether t is scaled to 0..1000 for every T.
    norm_groups: of GroupNorm.
    dropout: rate with which it was trained.
  """

  image_size: int | None = None
  lowres_size: int | None = None
  num_heads: int | tuple[int, ...] | None = None
  head_features: int | None = None
  attention_order: str | None = None
  schedule: str | None = None
  timesteps: int | None = None
  rescale_timesteps: bool | None = None
  norm_groups: int | None = None
  dropout: float | None = None


class Preset(NamedTuple):
  """One published network.

  Attributes:
    family: the kind of its file.
    fields: fields of `UNet` that the file must have.
    parameters: how many numbers the file holds for them.
    asked: what the file does not tell.
    where: address of the file, or of the folder with its files, which ends
      in '/', or of a page for the reader, see `page`.
    page: whether `where` can only be opened in a browser.
    sha256: checksum of the file, None if nobody has published it.
    num_bytes: its size, None if it is not known.
    paper: what its authors report of it, the section `paper` of a config.
    licence: of the weights, as far as their authors state one.
  """

  family: str
  fields: Mapping[str, Any]
  parameters: int
  asked: Asked
  where: str
  page: bool = False
  sha256: str | None = None
  num_bytes: int | None = None
  paper: Mapping[str, Any] = {}
  licence: str = 'MIT'


def _adm(
  file: str, parameters: int, asked: Asked, network: dict, **known: Any
) -> Preset:
  """Returns a network of guided-diffusion, by the flags that differ."""
  asked = asked._replace(
    timesteps=1000,
    rescale_timesteps=False,
    attention_order=asked.attention_order or 'legacy',
    schedule=asked.schedule or 'linear',
  )
  fields = {**network, 'resample': 'biggan', **_FIELDS, **network}
  paper = {'source': "guided-diffusion's page", **known.pop('paper', {})}
  return Preset(
    'adm', fields, parameters, asked, _ADM + file, paper=paper, **known
  )


def _iddpm(
  file: str, parameters: int, asked: Asked, network: dict, **known: Any
) -> Preset:
  """Returns a network of improved-diffusion."""
  asked = asked._replace(
    timesteps=asked.timesteps or 4000, attention_order='legacy'
  )
  fields = {**network, 'resample': 'conv', **_FIELDS, **network}
  paper = {'source': "improved-diffusion's page", **known.pop('paper', {})}
  family = 'improved-diffusion'
  return Preset(
    family, fields, parameters, asked, _IDDPM + file, paper=paper, **known
  )


def _ddpm(name: str, parameters: int, **known: Any) -> Preset:
  small = name == 'ddpm-cifar10-32'
  return Preset(
    'diffusers',
    {
      'features': 128,
      'multipliers': (1, 2, 2, 2) if small else (1, 1, 2, 2, 4, 4),
      'num_blocks': 2,
      'attention_resolutions': (16,),
      'num_heads': 1,
      'resample': 'conv_one_sided',
      'embedding': 'additive',
      'num_classes': None,
      'learned_variance': False,
      'norm_groups': 32,
      'norm_eps': 1e-6,
    },
    parameters,
    Asked(32 if small else 256),
    f'{_GOOGLE}{name}/resolve/main/',
    licence='Apache 2.0',
    paper={'source': '[DDPM]', **known},
  )


def _sr3(folder: str, asked: Asked, parameters: int, **known: Any) -> Preset:
  small = asked.image_size == 128
  return Preset(
    'sr3',
    {
      'features': 64,
      'multipliers': (1, 2, 4, 8, 8) if small else (1, 2, 4, 8, 16),
      'num_blocks': 2 if small else 1,
      'attention_resolutions': (16,) if small else (),
      'learned_variance': False,
    },
    parameters,
    asked._replace(schedule='linear', timesteps=2000),
    _DRIVE + folder,
    page=True,
    licence='Apache 2.0',
    paper={'source': 'its page, images of CelebA-HQ', **known},
  )


_FIELDS = dict(embedding='film', learned_variance=True, num_classes=1000)
_256 = (1, 1, 2, 2, 4, 4)
_ALL = (32, 16, 8)
_LOW = (16, 8)


def _network(
  features: int,
  multipliers: tuple[float, ...],
  num_blocks: int,
  attention_resolutions: tuple[int, ...],
  **other: Any,
) -> dict[str, Any]:
  """Returns fields of a `UNet`."""
  return dict(
    features=features,
    multipliers=multipliers,
    num_blocks=num_blocks,
    attention_resolutions=attention_resolutions,
    **other,
  )


_LSUN = _network(256, _256, 2, _ALL, num_classes=None)
_CIFAR = _network(128, (1, 2, 2, 2), 3, _LOW, num_classes=None)
_IMAGENET64 = _network(128, (1, 2, 3, 4), 3, _LOW, num_classes=None)
_BEDROOM = _network(128, _256, 2, (16,), num_classes=None, embedding='additive')
_HEADS64 = Asked(256, head_features=64)
_LSUN_ASKED = _HEADS64._replace(dropout=0.1)
_HEADS4 = Asked(num_heads=4, schedule='cosine', rescale_timesteps=True)
_CIFAR_ASKED = _HEADS4._replace(image_size=32, dropout=0.3)
_BEDROOM_ASKED = Asked(
  256, num_heads=1, schedule='linear', timesteps=1000, rescale_timesteps=False
)

PRESETS: dict[str, Preset] = {
  'adm:imagenet64': _adm(
    '64x64_diffusion.pt',
    295_904_454,
    Asked(
      64,
      head_features=64,
      attention_order='new',
      schedule='cosine',
      dropout=0.1,
    ),
    _network(192, (1, 2, 3, 4), 3, _ALL),
    paper={'fid_train': 2.07},
  ),
  'adm:imagenet128': _adm(
    '128x128_diffusion.pt',
    421_529_606,
    Asked(128, num_heads=4),
    _network(256, (1, 1, 2, 3, 4), 2, _ALL),
  ),
  'adm:imagenet256': _adm(
    '256x256_diffusion.pt',
    553_838_086,
    _HEADS64,
    _network(256, _256, 2, _ALL),
  ),
  'adm:imagenet256_uncond': _adm(
    '256x256_diffusion_uncond.pt',
    552_814_086,
    _HEADS64,
    _LSUN,
    sha256='a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1',
    num_bytes=2_211_383_297,
  ),
  'adm:imagenet512': _adm(
    '512x512_diffusion.pt',
    558_997_638,
    Asked(512, head_features=64),
    _network(256, (0.5, 1, 1, 2, 2, 4, 4), 2, _ALL),
  ),
  'adm:upsample64to256': _adm(
    '64_256_upsampler.pt',
    311_795_910,
    Asked(256, 64, num_heads=4),
    _network(192, _256, 2, _ALL),
  ),
  'adm:upsample128to512': _adm(
    '128_512_upsampler.pt',
    308_835_270,
    Asked(512, 128, head_features=64),
    _network(192, _256, 2, (32, 16)),
  ),
  'adm:lsun_bedroom': _adm(
    'lsun_bedroom.pt',
    552_814_086,
    _LSUN_ASKED,
    _LSUN,
    paper={'fid_train': 1.90},
  ),
  'adm:lsun_cat': _adm(
    'lsun_cat.pt', 552_814_086, _LSUN_ASKED, _LSUN, paper={'fid_train': 5.57}
  ),
  'adm:lsun_horse': _adm(
    'lsun_horse.pt', 552_814_086, _LSUN_ASKED, _LSUN, paper={'fid_train': 2.57}
  ),
  'adm:lsun_horse_nodropout': _adm(
    'lsun_horse_nodropout.pt', 552_814_086, _HEADS64, _LSUN
  ),
  'iddpm:cifar10': _iddpm(
    'cifar10_uncond_50M_500K.pt', 52_546_438, _CIFAR_ASKED, _CIFAR
  ),
  'iddpm:cifar10_vlb': _iddpm(
    'cifar10_uncond_vlb_50M_500K.pt', 52_546_438, _CIFAR_ASKED, _CIFAR
  ),
  'iddpm:imagenet64': _iddpm(
    'imagenet64_uncond_100M_1500K.pt',
    121_063_942,
    _HEADS4._replace(image_size=64),
    _IMAGENET64,
  ),
  'iddpm:imagenet64_vlb': _iddpm(
    'imagenet64_uncond_vlb_100M_1500K.pt',
    121_063_942,
    _HEADS4._replace(image_size=64),
    _IMAGENET64,
  ),
  'iddpm:imagenet64_cond': _iddpm(
    'imagenet64_cond_270M_250K.pt',
    273_049_350,
    _HEADS4._replace(image_size=64, rescale_timesteps=False),
    _network(192, (1, 2, 3, 4), 3, _LOW),
    paper={'fid_train': 2.92, 'source': '[IDDPM] (UNVERIFIED)'},
  ),
  'iddpm:upsample64to256': _iddpm(
    'upsample_cond_500K.pt',
    279_792_390,
    Asked(256, 64, num_heads=4, schedule='linear', rescale_timesteps=False),
    _network(192, _256, 2, _LOW),
  ),
  'iddpm:lsun_bedroom': _iddpm(
    'lsun_uncond_100M_1200K_bs128.pt', 113_676_678, _BEDROOM_ASKED, _BEDROOM
  ),
  'iddpm:lsun_bedroom_slow': _iddpm(
    'lsun_uncond_100M_2400K_bs64.pt', 113_676_678, _BEDROOM_ASKED, _BEDROOM
  ),
  'diffusers:ddpm-cifar10-32': _ddpm(
    'ddpm-cifar10-32', 35_746_307, fid_train=3.17
  ),
  **{
    f'diffusers:{name}': _ddpm(name, 113_673_219)
    for name in (
      *('ddpm-bedroom-256', 'ddpm-ema-bedroom-256'),
      *('ddpm-cat-256', 'ddpm-ema-cat-256'),
      *('ddpm-celebahq-256', 'ddpm-ema-celebahq-256'),
      *('ddpm-church-256', 'ddpm-ema-church-256'),
    )
  },
  'sr3:faces16to128': _sr3(
    '12jh0K8XoM1FqpeByXvugHHAF3oAZ8KRu',
    Asked(128, 16, norm_groups=32, dropout=0.2),
    97_807_491,
    psnr=23.26,
    ssim=0.675,
  ),
  'sr3:faces64to512': _sr3(
    '1mCiWhFqHyjt5zE4IdA41fjFwCYdqDzSF',
    Asked(512, 64, norm_groups=16),
    155_334_339,
    psnr=19.87,
    ssim=0.445,
  ),
}
# Other names of the same.
ALIASES = {
  'adm:imagenet64to256': 'adm:upsample64to256',
  'adm:imagenet128to512': 'adm:upsample128to512',
}
