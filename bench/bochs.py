"""Bochs, Debian's, for boots only. It has no loader of kernels, so it boots a CD with ISOLINUX, and it wants a terminal,
so it gets a pseudo terminal that nobody reads. Debian builds it with its debugger, which costs some speed. Its packages are
unpacked, not installed."""
import os
import pty
import select
import shutil
import subprocess
import threading

from machine import ROOT, Process, progress

NAME = "Bochs"
PACKAGES = ["bochs", "bochs-term", "isolinux", "syslinux-common", "genisoimage"]
FOLDER = os.path.join(ROOT, "build", "bench", "bochs")
TREE = os.path.join(FOLDER, "root")
LIBRARIES = os.path.join(TREE, "usr", "lib", "x86_64-linux-gnu")

# sync=none: as fast as it can. The instructions a second are what its clock is made of: near what it does here.
CONFIG = """\
config_interface: textconfig
display_library: term
romimage: file={tree}/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={tree}/usr/share/vgabios/vgabios.bin
memory: guest={memory}, host={memory}
cpu: model=corei7_haswell_4770, count=1, ips=50000000
clock: sync=none
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/serial
speaker: enabled=0
sound: waveoutdrv=dummy
log: {folder}/log
panic: action=fatal
error: action=ignore
info: action=ignore
"""
ISOLINUX = "DEFAULT linux\nPROMPT 0\nLABEL linux\n KERNEL /vmlinuz\n APPEND initrd=/initrd {append}\n"


def environment():
    return {**os.environ, "TERM": "vt100", "BXSHARE": TREE + "/usr/share/bochs",
            "LTDL_LIBRARY_PATH": LIBRARIES + "/bochs/plugins",
            "LD_LIBRARY_PATH": LIBRARIES + ":" + TREE + "/lib/x86_64-linux-gnu"}


def unpack():
    if not os.path.exists(FOLDER + "/unpacked"):
        os.makedirs(FOLDER, exist_ok=True)
        subprocess.run(["scripts/unpack-debs", TREE, *PACKAGES], cwd=ROOT, check=True)
        write("unpacked", "")


def write(name, text):
    with open(os.path.join(FOLDER, name), "w", encoding="ascii") as f:
        f.write(text)


def make_cd(kernel, initrd, append):
    cd = os.path.join(FOLDER, "cd")
    shutil.rmtree(cd, ignore_errors=True)
    os.makedirs(cd + "/isolinux")
    shutil.copy(TREE + "/usr/lib/ISOLINUX/isolinux.bin", cd + "/isolinux")
    shutil.copy(TREE + "/usr/lib/syslinux/modules/bios/ldlinux.c32", cd + "/isolinux")
    shutil.copy(kernel, cd + "/vmlinuz")
    shutil.copy(initrd, cd + "/initrd")
    write("cd/isolinux/isolinux.cfg", ISOLINUX.format(append=append))
    subprocess.run([TREE + "/usr/bin/genisoimage", "-quiet", "-o", FOLDER + "/boot.iso", "-b", "isolinux/isolinux.bin",
                    "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", cd],
                   check=True, env=environment(), stderr=subprocess.DEVNULL)


def drain(terminal):
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        os.close(terminal)


def wait_for_writer(reader):
    """Until Bochs has the FIFO open a read would be the end of the file."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.poll(60000)
    os.set_blocking(reader.fileno(), True)


class Bochs(Process):
    """Its serial line comes by a FIFO, its screen goes nowhere."""

    def __init__(self):
        fifo = FOLDER + "/serial"
        if os.path.lexists(fifo):
            os.unlink(fifo)
        os.mkfifo(fifo)
        reader = os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb")
        ours, theirs = pty.openpty()
        threading.Thread(target=drain, args=(ours,), daemon=True).start()
        command = [TREE + "/usr/bin/bochs-bin", "-q", "-f", FOLDER + "/config", "-rc", FOLDER + "/commands"]
        super().__init__(command, env=environment(), start_new_session=True, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.stream = reader
        wait_for_writer(reader)


def start(kernel, initrd, memory, append):
    unpack()
    make_cd(kernel, initrd, append)
    write("config", CONFIG.format(tree=TREE, folder=FOLDER, memory=memory))
    write("commands", "c\n")        # the debugger's: go on
    progress("  Bochs boots (about half a minute)")
    return Bochs()
