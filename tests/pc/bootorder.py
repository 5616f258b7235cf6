"""Which of several bootable disks, drives and cards firmware starts from: bootindex."""
import os
import subprocess
import sys
import tempfile

from harness import ROOT, Fail, Missing, Test, need_qumra

sys.path[:0] = [os.path.join(ROOT, "tests", "softkvm")]
from qemu_guest import Guest  # noqa: E402

PLACE = b"the word of this image"
GRUB = """serial --unit=0 --speed=115200
terminal_output serial
cat /word
halt
"""
# Four devices, in this order; the image that each holds says its name. One is behind a root port, as the card is.
DEVICES = (("first", "--disk", "format=raw"), ("second", "--disk", "format=raw,root-port=2"), ("unit", "--disk", "format=raw,bus=scsi"),
           ("drive", "--cdrom", "format=raw"))
# What has which index, and what it comes to.
ORDERS = (({"first": 3, "second": 2}, "second"), ({"unit": 0, "first": 1}, "unit"), ({"drive": 10, "second": 11}, "drive"),
          ({"first": 7}, "first"), ({"net": 0, "first": 1}, "Open Source Network Boot Firmware"))


def images(folder, log):
    """Of grub-mkrescue, so they start as disks and as CDs, by BIOS and by UEFI."""
    os.makedirs(f"{folder}/iso/boot/grub")
    with open(f"{folder}/iso/boot/grub/grub.cfg", "w", encoding="ascii") as f:
        f.write(GRUB)
    with open(f"{folder}/iso/word", "wb") as f:
        f.write(PLACE + b"\n")
    subprocess.run(["grub-mkrescue", "-o", f"{folder}/image", f"{folder}/iso"], check=True, stdout=log, stderr=log)
    with open(f"{folder}/image", "rb") as f:
        image = f.read()
    if image.count(PLACE) != 1:
        raise Fail("the image has its word somewhere else")
    for name, _, _ in DEVICES:
        with open(f"{folder}/{name}", "wb") as f:
            f.write(image.replace(PLACE, f"<{name}>".encode().ljust(len(PLACE))))


def words(folder, order):
    out = ["--machine", "q35,root-ports=2", "--net", "user,root-port=1" + (f",bootindex={order['net']}" if "net" in order else "")]
    for name, option, more in DEVICES:
        index = f",bootindex={order[name]}" if name in order else ""
        out += [option, f"{folder}/{name},{more}{index}"]
    return out


def bootorder(build, firmware, log):
    need_qumra(build)
    if not os.path.exists("/usr/lib/ipxe/qemu/efi-virtio.rom"):
        raise Missing("Debian's package ipxe-qemu is not installed")
    with tempfile.TemporaryDirectory() as folder:
        images(folder, log)
        for order, want in ORDERS:
            with Guest([*build.run, "--firmware", firmware, "--memory", "256M", *words(folder, order)], log) as guest:
                before = guest.expect(want.encode() if "net" in order else f"<{want}>".encode(), 60)
                for name, _, _ in DEVICES:
                    if f"<{name}>".encode() in before:
                        raise Fail(f"{order}: {name} was first")


def tests(build):
    if build.name:
        return
    for firmware in ("bios", "uefi"):
        yield Test(f"pc/bootindex-{firmware}", lambda log, f=firmware: bootorder(build, f, log), cost=30)
