"""Opens the images of a method in the order of the held-out images."""

import os

from cdm.data import image_set, picture_order


def load(path: str | os.PathLike) -> image_set.Images:
  """Lists the images at a path, those with numbers as names by number.

  Other programs write 1.png, ..., 10.png, whose order as text is another one.

  Args:
    path: see `image_set.load_images`.
  """
  images = image_set.load_images(path)
  if images.names is None:
    return images
  place = {name: i for i, name in enumerate(images.names)}
  names = picture_order.ordered(images.names, picture_order.NUMBERS)
  read = images.read
  return images._replace(names=names, read=lambda i: read(place[names[i]]))
