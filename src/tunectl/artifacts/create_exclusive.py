"""Create a file exactly once, complete, although several processes may try."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tunectl.artifacts import atomic_io


def create_exclusive(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Create a file that is complete from the first moment; False where one of that name exists, which is left unchanged.

    Raises  InfrastructureError where it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(mode)
        os.link(scratch, path)  # unlike a rename this never takes another one's place
        atomic_io.fsync_directory(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)
    return True
