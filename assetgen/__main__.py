"""``python -m assetgen`` is the command ``assetgen``."""

from __future__ import annotations

import sys

from assetgen.cli import main

sys.exit(main())
