"""A mounted Secret or ConfigMap as the kubelet keeps it: every update is one rename of the link `..data`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

_numbers = count()


class Mount:
    """One volume. The steps are those of Kubernetes' `pkg/volume/util/atomic_writer.go`, in their order."""

    def __init__(self, folder: Path, files: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if files is not None:
            self.write(files)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replace the volume's content by these files, all at once."""
        data = self.folder / "..data"
        old = self.folder / data.readlink() if data.is_symlink() else None
        fresh = self.folder / f"..2026_11_28_{next(_numbers):06d}"
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(fresh.name)
        link.replace(data)
        for name in files:
            shown = self.folder / name
            if not shown.is_symlink():
                shown.symlink_to(f"..data/{name}")
        for shown in self.folder.iterdir():
            if shown.is_symlink() and not shown.name.startswith("..") and shown.name not in files:
                shown.unlink()
        if old is not None:
            shutil.rmtree(old)
