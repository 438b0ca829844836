"""Let an editable install be two folders in sys.path: type checkers follow no import hook.

Everything else is in setup.cfg.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command import editable_wheel

HERE = Path(__file__).parent.resolve()


class ByPath(editable_wheel.editable_wheel):
    """setuptools itself writes a finder where packages and modules lie in different folders."""

    def _select_strategy(self, name: str, *_: Any) -> Any:
        return editable_wheel._StaticPth(self.distribution, name, [HERE, HERE / "plugins"])


setup(cmdclass={"editable_wheel": ByPath})
