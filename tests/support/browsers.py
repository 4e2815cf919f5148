"""Debian's chromium, driven by Playwright, where both are there."""

import contextlib
import os
import shutil

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')


@contextlib.contextmanager
def chromium():
  """-> a browser without a screen; skips the test where there is none."""
  sync_api = pytest.importorskip(
    'playwright.sync_api', reason='needs playwright, of the extra dev'
  )
  if CHROMIUM is None:
    pytest.skip('needs chromium (Debian: apt install chromium)')
  # Chromium refuses its sandbox to root.
  arguments = ['--no-sandbox'] if os.geteuid() == 0 else []
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=CHROMIUM, args=arguments
    )
    yield browser
    browser.close()


def watched(context):
  """-> (page, what went wrong on it, the sites that it asked)."""
  page = context.new_page()
  # Pauses pass ten times as fast; frames of the screen come as ever.
  page.add_init_script(
    'const later = setTimeout;'
    'window.setTimeout = (call, ms) => later(call, ms / 10);'
  )
  problems, asked = [], set()
  page.on('pageerror', lambda error: problems.append(str(error)))
  page.on(
    'console',
    lambda m: problems.append(m.text) if m.type == 'error' else None,
  )
  page.on('request', lambda r: asked.add('/'.join(r.url.split('/')[:3])))
  page.set_default_timeout(30_000)
  return page, problems, asked
