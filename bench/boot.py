"""Boots of Debian's cloud kernel with a small initial RAM disk: to the first line of init, and to power-off."""
import collections
import os
import subprocess

import bochs
from machine import CONSOLE, ROOT, Ended, Guest, Process, output, progress

MEMORY = 512
INITRD = os.path.join(ROOT, "build", "guest", "bench.cpio")


class Boots:
    """Seconds by machine, from the start of the process."""

    def __init__(self):
        self.init, self.off = collections.defaultdict(list), collections.defaultdict(list)
        self.beyond = collections.defaultdict(list)


def kernel():
    return os.path.join(ROOT, output("scripts/fetch-kernel", "linux-image-cloud-amd64"))


def initrd():
    subprocess.run(["scripts/make-initramfs", INITRD, output("scripts/fetch-busybox"), "bench/init"], cwd=ROOT, check=True)
    return INITRD


def guest(files, append=""):
    return Guest(*files, memory=MEMORY, append=f"{CONSOLE} {append}".strip())


def boot(machine, files, boots):
    with Process(machine.command(guest(files))) as process:
        seconds, _ = process.until("INIT reached")
        boots.init[machine.name].append(seconds)
        boots.beyond[machine.name].append(process.memory_beyond(MEMORY))
        boots.off[machine.name].append(process.until_end())
    progress(f"  {machine.name}: init {seconds:.2f} s, power-off {boots.off[machine.name][-1]:.2f} s")


def boot_bochs(files, boots, results):
    """Bochs, where it can be had; what keeps it away is a note."""
    try:
        with bochs.start(*files, MEMORY, CONSOLE) as process:
            seconds, _ = process.until("INIT reached")
            boots.init[bochs.NAME].append(seconds)
            boots.off[bochs.NAME].append(process.until_end())
        progress(f"  Bochs: init {seconds:.2f} s")
    except (Ended, subprocess.CalledProcessError, OSError) as e:
        results.note(f"Bochs: {e}")
