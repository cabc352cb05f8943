"""Which files of a folder or bucket are images to score; every other file is left out, for a reason.

Names alone decide: nothing is opened. The same rules hold on a disk and in a bucket.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from imagebatch.contracts.records import LeftOut
from imagebatch.inputs.formats import SUFFIXES
from imagebatch.settings.scoring import IMAGES

# Folders in which systems and programs keep what belongs to them: thumbnails, deleted files, old versions.
# Images in them are copies, and would be scored a second time. Compared in small letters.
_SIDE_FOLDERS = """
    __macosx .appledouble .appledb .appledesktop .documentrevisions-v100 .fseventsd .spotlight-v100
    .temporaryitems .trashes .trash .trash-*
    @eadir #recycle @recycle .@__thumb @recently-snapshot #snapshot .snapshot .snapshots ~snapshot .zfs .ckpt
    $recycle.bin system?volume?information lost+found found.[0-9][0-9][0-9]
    .thumbnails .thumbs .picasaoriginals .ipynb_checkpoints __pycache__
    .git .hg .svn .dvc .dropbox.cache .stfolder .stversions .sync .tmp.drivedownload .tmp.driveupload
"""
# Names, of files, of which nobody thinks as a picture, whatever stands behind the dot.
_SIDE_FILES = """
    ._* .ds_store .localized .apdisk .volumeicon.icns
    thumbs.db thumbs.db:encryptable ehthumbs.db ehthumbs_vista.db desktop.ini
    .directory .nomedia .picasa.ini picasa.ini zbthumbnail.info
    ~$* .~lock.* .#* .nfs[0-9a-f]* .fuse_hidden* .smbdelete* .goutputstream-* .syncthing.* ~syncthing~*
    *_$folder$
"""
# Of these, each holds a copy of all that lies beside it, often a hundred times: they are not even entered.
_SNAPSHOTS = frozenset(
    {"@recently-snapshot", "#snapshot", ".snapshot", ".snapshots", "~snapshot", ".zfs", ".ckpt"}
)


class NameFilter:
    """Decides by name.

    Args:
        include: Patterns (`*.jpg`) of names to take, compared without regard to case; the word `images`
            stands for all suffixes of the formats that are read. As in a shell, hidden files and folders are
            passed over unless a pattern begins with a dot.
    """

    def __init__(self, include: Iterable[str]) -> None:
        patterns = [pattern.strip().lower() for pattern in include if pattern.strip()]
        self._wanted = _any_of(each for word in patterns for each in (_IMAGES if word == IMAGES else [word]))
        self._hidden = any(pattern.startswith(".") for pattern in patterns)

    def of_folder(self, name: str) -> LeftOut | None:
        """Tell why nothing in a folder of this name (one component) is taken; None: it may be."""
        return self._apart(name, _IS_SIDE_FOLDER)

    def of_file(self, name: str) -> LeftOut | None:
        """Tell why a file of this name (one component) is not taken; None: it is."""
        apart = self._apart(name, _IS_SIDE_FILE)
        if apart or self._wanted.match(name.lower()):
            return apart
        return LeftOut.NOT_INCLUDED if _IS_IMAGE.match(name.lower()) else LeftOut.NO_IMAGE_SUFFIX

    def of_key(self, key: str) -> LeftOut | None:
        """Tell why an object is not taken; None: it is.

        Args:
            key: Relative to the input, with `/` between folders. One that ends with `/` only marks a folder.
        """
        *folders, name = key.split("/")
        apart = next((reason for reason in map(self.of_folder, folders) if reason), None)
        return apart or (self.of_file(name) if name else LeftOut.SIDE_FILE)

    def _apart(self, name: str, side: re.Pattern[str]) -> LeftOut | None:
        if side.match(name.lower()):
            return LeftOut.SIDE_FILE
        # A key may hold these two as well; they hide nothing.
        hidden = name.startswith(".") and name not in {".", ".."}
        return LeftOut.HIDDEN if hidden and not self._hidden else None


def is_snapshot(name: str) -> bool:
    """Tell whether a folder of this name holds copies of everything beside it."""
    return name.lower() in _SNAPSHOTS


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


_IS_SIDE_FOLDER = _any_of(_SIDE_FOLDERS.split())
_IS_SIDE_FILE = _any_of([*_SIDE_FILES.split(), "icon\r"])
_IMAGES = [f"*{suffix}" for suffixes in SUFFIXES.values() for suffix in suffixes]
_IS_IMAGE = _any_of(_IMAGES)
