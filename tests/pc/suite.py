"""Debian from a disk on our own machine: firmware, GRUB, a login, packages over the network, reboot, ssh, power-off."""
import importlib.util
import itertools
import os
import socket
import subprocess
import sys
import tempfile

from harness import ROOT, Fail, Test, need_qumra, run_process

sys.path[:0] = [os.path.join(ROOT, "tests", "clients"), os.path.join(ROOT, "tests", "softkvm"), os.path.join(ROOT, "tests", "pc")]
import bootorder  # noqa: E402
import netboot  # noqa: E402
import screens  # noqa: E402
from debian import Repository, System, qcow2  # noqa: E402
from qemu_guest import Guest  # noqa: E402


def suite(name):
    spec = importlib.util.spec_from_file_location(f"{name}_suite", os.path.join(ROOT, "tests", name, "suite.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


boot_suite, control_suite = suite("boot"), suite("control")

# firmware, CPUs
MACHINES = tuple(itertools.product(("bios", "uefi"), (1, 4)))


class Debian(System, Guest):
    """In a qumra."""


def check_log(guest):
    guest.check_log(boot_suite.BAD, [*boot_suite.known(), boot_suite.OVMF_ROM])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ssh(guest, folder, port, log):
    """A user's way in: the forwarded port, a key, a command, a megabyte there and back."""
    key, noise = f"{folder}/key", os.urandom(1 << 20)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with open(f"{key}.pub", encoding="ascii") as f:
        guest.sh(f"mkdir -p /root/.ssh && echo '{f.read().strip()}' >/root/.ssh/authorized_keys")
    words = ["ssh", "-F", "none", "-i", key, "-p", str(port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
             f"UserKnownHostsFile={folder}/hosts", "root@127.0.0.1"]
    r = run_process([*words, "uname -n"], 60, log)
    if r.status or r.out != b"guest\n":
        raise Fail(f"ssh: status {r.status}, {r.out!r}")
    r = run_process([*words, "cat"], 60, None, noise)
    if r.status or r.out != noise:
        raise Fail(f"ssh: status {r.status}, {len(r.out)} bytes came back, or others")


def button(guest, path):
    """The power button: the SCI, Linux's input, systemd-logind, which powers off."""
    client = control_suite.greeted(path)
    client.do("system_powerdown")
    guest.drain(120)
    client.event("POWERDOWN")
    control_suite.expect(client.event("SHUTDOWN"), {"guest": True, "reason": "guest-shutdown"})
    client.close()
    control_suite.expect(guest.process.wait(10), 0)


def debian(build, firmware, cpus, log):
    need_qumra(build)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, Repository(os.path.join(folder, "repository")) as repository:
        words = [*build.run, "--firmware", firmware, "--cpus", str(cpus), "--memory", "512M",
                 "--disk", qcow2(folder), "--net", f"user,forward=tcp:{port}:22", "--control", f"{folder}/control"]
        with Debian(words, log) as guest:
            guest.until_rebooted(cpus, repository, check_log)
            ssh(guest, folder, port, log)
            button(guest, f"{folder}/control")


GRUB = """serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
cat /word
insmod halt
halt
"""


def cd(build, firmware, cpus, log):
    """A CD of grub-mkrescue: GRUB starts from it, reads a file, powers off."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        word = os.urandom(8).hex()
        os.makedirs(f"{folder}/iso/boot/grub")
        for name, text in (("boot/grub/grub.cfg", GRUB), ("word", word + "\n")):
            with open(f"{folder}/iso/{name}", "w", encoding="ascii") as f:
                f.write(text)
        subprocess.run(["grub-mkrescue", "-o", f"{folder}/cd.iso", f"{folder}/iso"], check=True, stdout=log, stderr=log)
        with open(f"{folder}/empty.img", "wb") as f:
            f.truncate(1 << 20)
        words = [*build.run, "--firmware", firmware, "--cpus", str(cpus), "--memory", "256M", "--cdrom", f"{folder}/cd.iso", "--disk",
                 f"{folder}/empty.img,format=raw"]
        with Debian(words, log) as guest:
            guest.expect(word.encode(), 120)
            guest.drain(60)
            if guest.process.wait(10):
                raise Fail(f"status {guest.process.returncode}")


def tests(build):
    yield from screens.tests(build)
    yield from netboot.tests(build, boot_suite)
    yield from bootorder.tests(build)
    if build.name:
        return
    for firmware, cpus in MACHINES:
        yield Test(f"pc/cd-{firmware}-{cpus}", lambda log, f=firmware, n=cpus: cd(build, f, n, log), cost=15)
        yield Test(f"pc/debian-{firmware}-{cpus}", lambda log, f=firmware, n=cpus: debian(build, f, n, log), cost=50)
