"""``tcm-ctl mount``: the process behind a FUSE mount of the tree."""

from __future__ import annotations

import logging

from tcm.cli.folders import check_folder_of
from tcm.failure import ConfigError, RuntimeFailure


def run(control: str, path: str, *, own_dbroot: bool = False) -> None:
    """Mounts and serves. Raises :class:`ConfigError`, :class:`RuntimeFailure`."""
    try:
        from tcm.control.configfs_mount import serve
    except ImportError as error:
        raise ConfigError(f"mount: mfusepy is not installed ({error}); pip install 'tcm-target[fuse]'") from None
    except OSError:
        raise ConfigError("mount: libfuse is not installed; apt-get install fuse3 libfuse3-3") from None
    check_folder_of("mount", path, "a PATH")
    logging.getLogger("fuse").setLevel(logging.CRITICAL)
    try:
        serve(control, path, own_dbroot=own_dbroot)
    except OSError as error:
        raise RuntimeFailure(
            f"mount {path}: {error.strerror}; is FUSE there (apt-get install fuse3), and the folder yours?"
        ) from None
