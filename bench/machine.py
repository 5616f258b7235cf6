"""The machines that are compared: how each is started, and what can be seen of it from outside."""
import collections
import glob
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUMRA = os.path.join(ROOT, "build", "qumra")
SOFTKVM = os.path.join(ROOT, "build", "softkvm")
CONSOLE = "console=ttyS0,115200"

# What a machine boots: files, MiB of memory, CPUs, the kernel's command line.
Guest = collections.namedtuple("Guest", "kernel initrd memory cpus append", defaults=(None, 512, 1, None))


def progress(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode().strip()


def options(guest, dashes):
    words = []
    for name in ("initrd", "append"):
        value = getattr(guest, name)
        words += [dashes + name, value] if value else []
    return words


class Qumra:
    """Our machine on our hypervisor, with the given CPU engine (None: the default)."""
    name = "Qumra"

    def __init__(self, engine=None):
        self.engine = engine

    def start(self):
        return [QUMRA, "run", "--accel", "soft", *(["--engine", self.engine] if self.engine else [])]

    def command(self, guest, *more):
        cpus = ["--cpus", str(guest.cpus)] if guest.cpus > 1 else []
        return [*self.start(), *cpus, "--kernel", guest.kernel, "--memory",
                f"{guest.memory}M", "--debug-exit", *options(guest, "--"), *more]


class Qemu:
    """QEMU's TCG, with every CPU feature that it has."""
    name = "QEMU TCG"
    before, accel = (), ("-accel", "tcg", "-cpu", "max")

    def command(self, guest, *more):
        return [*self.before, "qemu-system-x86_64", *self.accel, "-smp", str(guest.cpus), "-nodefaults", "-display",
                "none", "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-m",
                str(guest.memory), "-kernel", guest.kernel, *options(guest, "-"), *more]


class Softkvm(Qemu):
    """The same QEMU as a KVM program on our hypervisor."""
    name = "QEMU softkvm"
    accel = ("-accel", "kvm", "-cpu", "host")

    def __init__(self, engine=None):
        self.before = (SOFTKVM, *(("--engine", engine) if engine else ()))


class Ended(Exception):
    """The machine ended before it printed what was waited for."""


class Process:
    """A running machine (or anything else that prints lines) and when its lines came."""

    def __init__(self, command, **more):
        self.start = time.monotonic()
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=ROOT, **{**streams, **more})
        self.stream = self.process.stdout

    def lines(self, limit=1800):
        """Pairs: seconds from the start, text. Ends the benchmark if nothing comes for limit seconds."""
        signal.signal(signal.SIGALRM, lambda *_: sys.exit("bench: a machine has hung"))
        signal.alarm(limit)
        for line in iter(self.stream.readline, b""):
            signal.alarm(limit)
            yield time.monotonic() - self.start, line.decode(errors="replace").rstrip()
        signal.alarm(0)

    def until(self, pattern, limit=600):
        """Seconds from the start to the end of the line that matches, and the match."""
        for seconds, line in self.lines(limit):
            found = re.search(pattern, line)
            if found:
                signal.alarm(0)
                return seconds, found
        raise Ended(f"the machine ended without printing {pattern}")

    def until_end(self):
        for _ in self.lines(600):
            pass
        self.process.wait()
        return time.monotonic() - self.start

    def first_byte(self):
        self.stream.read(1)
        return time.monotonic() - self.start

    def cpu(self):
        """Seconds of CPU time that its threads have used."""
        total = 0
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as f:
                    total += int(f.read().split()[0])
            except OSError:     # the thread has ended
                pass
        return total / 1e9

    def memory_beyond(self, guest_mib):
        """MiB resident beyond the mappings that are the guest's RAM. RAM may lie in several, below and above the
        hole of 32-bit devices: those of at least half its size count."""
        with open(f"/proc/{self.process.pid}/smaps", encoding="ascii", errors="replace") as f:
            blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", f.read(), flags=re.M)
        beyond = 0
        for block in blocks:
            size, rss = re.search(r"^Size: +(\d+)", block, re.M), re.search(r"^Rss: +(\d+)", block, re.M)
            if rss and int(size[1]) < guest_mib * 1024 // 2:
                beyond += int(rss[1])
        return beyond / 1024

    def close(self):
        signal.alarm(0)
        self.process.kill()
        self.process.wait()
        self.stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
