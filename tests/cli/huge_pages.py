"""The host's pools of huge pages: root fills them for a test, and what was there comes back."""
import contextlib
import fcntl
import os
import subprocess

ROOT = "/sys/kernel/mm/hugepages"
MIB_2, GIB_1 = 2048, 1048576


def figure(kib, name):
    try:
        with open(f"{ROOT}/hugepages-{kib}kB/{name}", encoding="ascii") as f:
            return int(f.read())
    except OSError:
        return 0


class Pools:
    """One test at a time: tests/device/test_memory.c takes the same lock."""

    def __init__(self):
        self.lock = -1

    def __enter__(self):
        with contextlib.suppress(OSError):
            self.lock = os.open(ROOT, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        if self.lock >= 0:
            os.close(self.lock)

    def free(self, kib):
        return figure(kib, "free_hugepages")

    def unclaimed(self, kib):
        """Those that nobody has, nor was promised."""
        return self.free(kib) - figure(kib, "resv_hugepages")

    @contextlib.contextmanager
    def more(self, kib, pages):
        """So many more; true if there are so many free then."""
        before = figure(kib, "nr_hugepages")
        self.fill(kib, before + pages)
        try:
            yield self.unclaimed(kib) >= pages
        finally:
            self.fill(kib, before)

    def fill(self, kib, pages):
        with contextlib.suppress(OSError), open(f"{ROOT}/hugepages-{kib}kB/nr_hugepages", "w", encoding="ascii") as f:
            f.write(f"{pages}\n")


@contextlib.contextmanager
def mounted(folder):
    """A file's name on a hugetlbfs, or None where that cannot be mounted."""
    os.mkdir(folder)
    done = subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "qumra-test", folder], stderr=subprocess.DEVNULL,
                          check=False)
    try:
        yield None if done.returncode else os.path.join(folder, "ram")
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
