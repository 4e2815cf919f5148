"""Converts pictures in inks (CMYK) and in CIELab to sRGB, by their profile."""

import io

from PIL import Image, ImageCms

CONVERTED = ('CMYK', 'LAB')
_NAMES = {'CMYK': 'CMYK', 'LAB': 'CIELab'}


def convert(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
  """Returns (the picture in sRGB, what was done as a clause).

  Args:
    image: of mode CMYK or LAB.
    icc: its profile. One that is malformed, or of another kind of colours,
      counts as none.
  """
  name, srgb = _NAMES[image.mode], ImageCms.createProfile('sRGB')
  if image.mode == 'LAB':
    lab = ImageCms.createProfile('LAB')
    rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode='RGB')
    return _checked(rgb), f'its {name} colours were converted to sRGB'
  if icc is not None:
    try:
      profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
      rgb = ImageCms.profileToProfile(image, profile, srgb, outputMode='RGB')
      return _checked(rgb), (
        f'its {name} colours were converted to sRGB by its colour profile'
      )
    except (ImageCms.PyCMSError, OSError, ValueError):
      pass
  return image.convert('RGB'), (
    f'its {name} colours were converted to sRGB without a colour profile, so '
    'they are approximate'
  )


def _checked(image):
  assert image is not None  # Only a conversion in place returns None.
  return image
