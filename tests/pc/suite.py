"""Debian from a disk on our own machine: firmware, GRUB, a login, packages over the network, reboot, power-off."""
import importlib.util
import os
import sys
import tempfile

from harness import ROOT, Test, need_qumra

sys.path[:0] = [os.path.join(ROOT, "tests", "clients"), os.path.join(ROOT, "tests", "softkvm")]
from debian import Repository, System, qcow2  # noqa: E402
from qemu_guest import Guest  # noqa: E402

spec = importlib.util.spec_from_file_location("boot_suite", os.path.join(ROOT, "tests", "boot", "suite.py"))
boot_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(boot_suite)

# firmware, CPUs
MACHINES = (("bios", 1), ("uefi", 4))


class Debian(System, Guest):
    """In a qumra."""


def check_log(guest):
    guest.check_log(boot_suite.BAD, boot_suite.known())


def debian(build, firmware, cpus, log):
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder, Repository(os.path.join(folder, "repository")) as repository:
        words = [*build.run, "--firmware", firmware, "--cpus", str(cpus), "--memory", "512M",
                 "--disk", qcow2(folder), "--net", "user"]
        with Debian(words, log) as guest:
            guest.live(cpus, repository, check_log)


def tests(build):
    if build.name:
        return
    for firmware, cpus in MACHINES:
        yield Test(f"pc/debian-{firmware}-{cpus}", lambda log, f=firmware, n=cpus: debian(build, f, n, log), cost=50)
