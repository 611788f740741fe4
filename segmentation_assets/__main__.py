"""``python -m segmentation_assets`` is ``segments``."""

from segmentation_assets.cli import main

main()
