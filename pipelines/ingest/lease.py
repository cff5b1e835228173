"""One connection per key and feed on this host, whoever wants it: a locked file.

The kernel lets the lock go when its process ends, however it ends. So an actor that Ray started
again waits until the killed one is gone for certain, and two platforms with the same key do not
throw each other off the feed (406) for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import FeedTransient


def lock_file(folder: Path, *, url: str, key: str, index: int) -> Path:
    """The file that stands for a connection; shows nothing of the key.

    Args:
        folder: Where such files are, the same for all platforms of a host.
        url: The feed.
        key: Key id.
        index: Which of several producers that share a feed.
    """
    name = hashlib.sha256(f"{url}\n{key}\n{index}".encode()).hexdigest()[:16]
    return folder / f"raytape-feed-{name}.lock"


@contextlib.contextmanager
def held(folder: Path | None, *, url: str, key: str, index: int) -> Iterator[None]:
    """Hold the right to connect; ``None`` for a folder holds nothing.

    Raises:
        FeedTransient: Another process of this host is connected, or the file cannot be opened.
    """
    if folder is None:
        yield
        return
    path = lock_file(folder, url=url, key=key, index=index)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FeedTransient(f"cannot open {path} (RAYTAPE_LOCK_DIR): {error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FeedTransient(
                f"another process of this host is connected to {url} with this key ({path})"
            ) from error
        yield
    finally:
        os.close(handle)
