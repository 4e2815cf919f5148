"""Runs the command line `cdm` for `python -m cdm`."""

from cdm.cli.main import main

if __name__ == '__main__':
  raise SystemExit(main())
