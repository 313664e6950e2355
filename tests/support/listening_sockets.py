"""Which addresses processes listen on, from ``/proc``."""

import contextlib
import ipaddress
import threading
import time
from collections import defaultdict
from pathlib import Path

LISTEN = "0A"


class ListenWatch(threading.Thread):
    """Collects the listening addresses of all processes whose command line names ``folder``, and of their descendants."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._ended = str(folder), threading.Event()
        self.seen: dict[tuple[int, str], set[str]] = defaultdict(set)
        """Process (id and command line) to its addresses."""

    def run(self) -> None:
        while not self._ended.is_set():
            for process in _find_processes(self._folder).items():
                self.seen[process] |= _read_addresses(process[0])
            time.sleep(0.1)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()


def find_open_addresses(watch: ListenWatch) -> set[tuple[int, str, str]]:
    """The addresses that other machines reach, each behind the id and the command line of its process."""
    return {
        (pid, words, address)
        for (pid, words), addresses in watch.seen.items()
        for address in addresses
        if not ipaddress.ip_address(address).is_loopback
    }


def _find_processes(folder: str) -> dict[int, str]:
    words, parents = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(place.name)
            words[pid] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parents[pid] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid for pid, line in words.items() if folder in line}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: words[pid] for pid in found}


def _read_addresses(pid: int) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(file.readlink()))
    addresses = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTEN and f"socket:[{inode}]" in inodes:
                    addresses.add(_decode(local.partition(":")[0]))
    return addresses


def _decode(words: str) -> str:
    """The kernel prints each 32-bit word of an address in the machine's byte order."""
    raw = bytes.fromhex(words)
    address = ipaddress.ip_address(b"".join(raw[place : place + 4][::-1] for place in range(0, len(raw), 4)))
    return str(getattr(address, "ipv4_mapped", None) or address)
