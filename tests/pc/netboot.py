"""iPXE, the card's option ROM, starts a kernel over the network, by BIOS and by UEFI."""
import os
import shutil
import sys
import tempfile

from harness import ROOT, Fail, Missing, Test, need_qumra

sys.path[:0] = [os.path.join(ROOT, "tests", "softkvm")]
from qemu_guest import Guest  # noqa: E402

ROMS = "/usr/lib/ipxe/qemu"
SCRIPT = """#!ipxe
echo the word is {word}
kernel vmlinuz initrd=initrd.cpio console=ttyS0 panic=-1 cpus={cpus}
initrd initrd.cpio
boot
"""


def netboot(build, firmware, cpus, boot_suite, log):
    """The script that DHCP names, and what that fetches by TFTP; the kernel's init reports and powers off."""
    need_qumra(build)
    if not os.path.exists(f"{ROMS}/efi-virtio.rom"):
        raise Missing("Debian's package ipxe-qemu is not installed")
    kernel, initrd = boot_suite.files("cloud-amd64")
    word = os.urandom(8).hex()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(kernel, f"{folder}/vmlinuz")
        shutil.copy(initrd, f"{folder}/initrd.cpio")
        with open(f"{folder}/start.ipxe", "w", encoding="ascii") as f:
            f.write(SCRIPT.format(word=word, cpus=cpus))
        words = [*build.run, "--firmware", firmware, "--cpus", str(cpus), "--memory", "512M",
                 "--net", f"user,tftp={folder},bootfile=start.ipxe"]
        with Guest(words, log) as guest:
            guest.expect(b"Open Source Network Boot Firmware", 60)
            guest.expect(b"using virtio-net", 60)
            guest.expect(word.encode(), 60)
            guest.expect(b"INIT 6.", 120)
            guest.expect(b"CHECK ok cpuinfo")
            guest.drain(120)
            if guest.process.wait(10):
                raise Fail(f"status {guest.process.returncode}")


def no_rom(build, log):
    """Without the ROM nobody speaks of a network; another ROM that is no ROM is one line."""
    need_qumra(build)
    with Guest([*build.run, "--firmware", "bios", "--memory", "64M", "--net", "user,rom=off"], log) as guest:
        if b"iPXE" in guest.expect(b"No bootable device"):
            raise Fail("iPXE is there")


def tests(build, boot_suite):
    yield Test(build.test("pc/rom-off"), lambda log: no_rom(build, log), cost=3 * build.slow)
    if build.name:
        return
    for firmware, cpus in (("bios", 1), ("uefi", 4)):
        yield Test(f"pc/ipxe-{firmware}-{cpus}", lambda log, f=firmware, n=cpus: netboot(build, f, n, boot_suite, log), cost=40)
