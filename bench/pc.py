"""Disk, network and boots of whole machines: Qumra beside QEMU's TCG, with the same image, network and memory."""
import collections
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import time

import boot
import io_root
from machine import CONSOLE, ROOT, Ended, Guest, Process, Qemu, Qumra, output, progress
from report import number, ratio, table, times, verdict
from root import unshare

MEMORY = 1024
SECONDS = 3     # of each job
# In memory: a file system's own costs are not the machines'. (ext4 of Linux 6.18, once it has read or written a file in large
# pieces, takes 40 to 100 us for 4 KiB written into it, more than the rest of a request.)
DISK, DISK_MIB = "/dev/shm/qumra-bench-io.img", 512
TAP, TAP_HOST, TAP_GUEST = "qumrabench0", "192.168.251.1", "192.168.251.2"
FIO = ("fio --name=j --filename=/dev/vda --ioengine=libaio --direct=1 --thread --time_based --output-format=terse"
       f" --terse-version=3 --runtime={SECONDS}")
IPERF = f"iperf3 -f k -t {SECONDS} -i 0 -p $port -c $server"
DEBIAN_MEMORY = 512

# part: of bench/run; goal: how many times TCG's; better: "more" or "less".
Row = collections.namedtuple("Row", "part name text unit goal better command", defaults=("more", None))


def fio(rw, size, depth):
    return f"{FIO} --rw={rw} --bs={size} --iodepth={depth}"


ROWS = [
    Row("disk", "randread-1", "random read, 4 KiB, depth 1", "/s", 4, "more", fio("randread", "4k", 1)),
    Row("disk", "randread-32", "random read, 4 KiB, depth 32", "/s", 4, "more", fio("randread", "4k", 32)),
    Row("disk", "read", "sequential read, 128 KiB, depth 4", "MB/s", 4, "more", fio("read", "128k", 4)),
    Row("disk", "randwrite-1", "random write, 4 KiB, depth 1", "/s", 4, "more", fio("randwrite", "4k", 1)),
    Row("disk", "randwrite-32", "random write, 4 KiB, depth 32", "/s", 4, "more", fio("randwrite", "4k", 32)),
    Row("disk", "write", "sequential write, 128 KiB, depth 4", "MB/s", 4, "more", fio("write", "128k", 4)),
    Row("net", "user-send", "iperf3 by user, guest sends", "Mbit/s", 3, "more", IPERF),
    Row("net", "user-receive", "iperf3 by user, guest receives", "Mbit/s", 3, "more", IPERF + " -R"),
    Row("net", "tap-send", "iperf3 by tap, guest sends", "Mbit/s", 4, "more", IPERF),
    Row("net", "tap-receive", "iperf3 by tap, guest receives", "Mbit/s", 4, "more", IPERF + " -R"),
    Row("pcboot", "login", "Debian's disk, SeaBIOS to login", "s", 0.5, "less"),
    Row("pcboot", "microvm", "microvm, start to init", "s", 0.5, "less"),
]
PARTS = ("disk", "net", "pcboot")


def rows(part):
    return [r for r in ROWS if r.part == part]


class Samples:
    """values[machine][name]; what is to be said about them."""

    def __init__(self):
        self.values, self.notes = collections.defaultdict(lambda: collections.defaultdict(list)), []

    def add(self, machine, name, value):
        self.values[machine.name][name].append(value)
        progress(f"  {machine.name}: {name} {number(value)}")

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def median(self, machine, name):
        values = self.values[machine][name]
        return statistics.median(values) if values else None


# ---- how the machines say it ---------------------------------------------------------------------

def disk_words(machine, path, form):
    if isinstance(machine, Qumra):
        return ["--disk", f"{path},format={form},cache=writeback"]
    return ["-drive", f"file={path},format={form},cache=writeback,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]


def net_words(machine, kind):
    if isinstance(machine, Qumra):
        return ["--net", "user" if kind == "user" else f"tap={TAP}"]
    tap = f"tap,id=net,ifname={TAP},script=no,downscript=no"
    return ["-netdev", "user,id=net" if kind == "user" else tap, "-device", "virtio-net-pci,netdev=net"]


def board(machine):
    return [] if isinstance(machine, Qumra) else ["-machine", "q35"]


def firmware_command(machine, *more):
    """A machine that boots its disk by SeaBIOS, its serial port on standard output."""
    if isinstance(machine, Qumra):
        return [*machine.start(), "--firmware", "bios", "--memory", f"{DEBIAN_MEMORY}M", *more]
    return [*machine.before, "qemu-system-x86_64", *machine.accel, *board(machine), "-nodefaults", "-display", "none",
            "-serial", "stdio", "-m", str(DEBIAN_MEMORY), *more]


def microvm_words(machine):
    return ["--machine", "microvm"] if isinstance(machine, Qumra) else ["-machine", "microvm"]


# ---- jobs in a guest -----------------------------------------------------------------------------

def fio_value(name, text):
    """Terse output, version 3: bandwidth in KiB/s and operations a second of reading, then of writing."""
    found = re.search(r"^3;(.*)$", text, re.M)
    if not found:
        return None
    fields = found[1].split(";")
    at = 46 if "write" in name else 5
    return int(fields[at]) * 1024 / 1e6 if name in ("read", "write") else float(fields[at + 1])


def iperf_value(_, text):
    found = re.search(r"([0-9.]+) Kbits/sec\s+receiver", text)
    return float(found[1]) / 1000 if found else None


def jobs(machine, names, value, samples, words, append=""):
    """One machine that runs the jobs of these names."""
    append = f"{CONSOLE} quiet panic=-1 bench={','.join(names)} {append}".strip()
    guest = Guest(boot.kernel(), io_root.INITRD, MEMORY, append=append)
    with Process(machine.command(guest, *board(machine), *words)) as process:
        name, begin, text = None, 0, ""
        for now, line in process.lines(300):
            found = re.search(r"BENCH (begin|end|done) ?(\S*)", line)
            if not found:
                text += line + "\n"
            elif found[1] == "done":
                return
            elif found[1] == "begin":
                name, begin, text = found[2], now, ""
            else:
                job_done(machine, name, value(name, text), now - begin, samples)
        raise Ended(f"{machine.name}: ended before its jobs did")


def job_done(machine, name, figure, seconds, samples):
    if figure is None:
        samples.note(f"{machine.name}: {name} failed")
        return
    if seconds < 0.9 * SECONDS:
        samples.note(f"{machine.name}: {name} took {seconds:.1f} s by the host's clock, not {SECONDS}: its clock is fast")
    samples.add(machine, name, figure)


@contextlib.contextmanager
def disk():
    with open(DISK, "wb") as f:
        try:
            for _ in range(DISK_MIB):
                f.write(os.urandom(1 << 20))
            f.flush()
            yield
        finally:
            os.unlink(DISK)


class Native:
    """The same program on the host, in the image itself: through the page cache, as tmpfs knows no O_DIRECT."""
    name = "native"


def measure_natively(samples):
    for r in rows("disk"):
        command = r.command.replace("/dev/vda", DISK).replace("--direct=1", "--direct=0")
        text = output(*unshare("sh", "-c", 'mkdir -p "$1/dev" && mount --rbind /dev "$1/dev" && shift && exec "$@"', "sh",
                               io_root.CHOSEN, "chroot", io_root.CHOSEN, *command.split()))
        samples.add(Native, r.name, fio_value(r.name, text))


def measure_disk(machine, samples):
    if machine is Native:
        measure_natively(samples)
        return
    jobs(machine, [r.name for r in rows("disk")], fio_value, samples, disk_words(machine, DISK, "raw"))


# ---- networks ------------------------------------------------------------------------------------

@contextlib.contextmanager
def server(address):
    """iperf3's, on a port of its own."""
    with socket.socket() as s:
        s.bind((address, 0))
        port = s.getsockname()[1]
    with Process(["iperf3", "-s", "--forceflush", "-B", address, "-p", str(port)]) as process:
        process.until("listening")
        yield port


@contextlib.contextmanager
def tap():
    """The interface, and its address on the host; False where it cannot be."""
    def ip(*words, check=True):
        return subprocess.run(["ip", *words], check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ip("tuntap", "add", "dev", TAP, "mode", "tap")
        ip("addr", "add", f"{TAP_HOST}/24", "dev", TAP)
        ip("link", "set", TAP, "up")
    except (OSError, subprocess.CalledProcessError):
        yield False
        return
    try:
        yield True
    finally:
        ip("tuntap", "del", "dev", TAP, "mode", "tap", check=False)


def measure_net(machine, samples):
    with server("127.0.0.1") as port:
        jobs(machine, ["user-send", "user-receive"], iperf_value, samples, net_words(machine, "user"),
             f"address=10.0.2.15/24 server=10.0.2.2 port={port}")
    with tap() as there:
        if not there:
            samples.note("no tap: that needs root and /dev/net/tun")
            return
        with server(TAP_HOST) as port:
            jobs(machine, ["tap-send", "tap-receive"], iperf_value, samples, net_words(machine, "tap"),
                 f"address={TAP_GUEST}/24 server={TAP_HOST} port={port}")


# ---- boots ---------------------------------------------------------------------------------------

def debian_disk():
    """The disk of the tests' Debian."""
    sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "clients")]
    import disk     # pylint: disable=import-outside-toplevel
    return disk.disk()


def seconds_to(process, word, limit=300):
    """Until the word is there, newline or none."""
    text = b""
    os.set_blocking(process.stream.fileno(), True)
    while word not in text:
        piece = os.read(process.stream.fileno(), 65536)
        if not piece or time.monotonic() - process.start > limit:
            raise Ended(f"the machine did not come to {word.decode()!r}")
        text = text[-100:] + piece
    return time.monotonic() - process.start


def measure_login(machine, samples):
    overlay = os.path.join(io_root.FOLDER, "login.qcow2")
    output("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", debian_disk(), overlay)
    words = disk_words(machine, overlay, "qcow2") + net_words(machine, "user")
    with Process(firmware_command(machine, *words)) as process:
        samples.add(machine, "login", seconds_to(process, b"guest login: "))
    os.unlink(overlay)


def host_khz():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next(int(float(line.split(":")[1]) * 1000) for line in f if line.startswith("cpu MHz"))


def measure_microvm(machine, samples):
    """QEMU's has nothing that Linux could measure TCG's time stamp counter, the host's, by: without its frequency on the
    command line the guest stands still."""
    more = "" if isinstance(machine, Qumra) else f"tsc_early_khz={host_khz()}"
    guest = boot.guest((boot.kernel(), boot.INITRD), more)
    with Process(machine.command(guest, *microvm_words(machine))) as process:
        samples.add(machine, "microvm", process.until("INIT reached", 120)[0])


def measure_boots(machine, samples):
    measure_microvm(machine, samples)
    measure_login(machine, samples)


# ---- all of it -----------------------------------------------------------------------------------

MEASURES = {"disk": measure_disk, "net": measure_net, "pcboot": measure_boots}


def prepare(parts):
    if {"disk", "net"} & parts:
        io_root.make("".join(f"{r.name} {r.command}\n" for r in ROWS if r.command))
    if "pcboot" in parts:
        boot.initrd()
        debian_disk()


def measure(parts, machines, rounds):
    """Samples of these parts, the machines in turns."""
    samples, machines = Samples(), [m for m in machines if m is Native or type(m) in (Qumra, Qemu)]
    prepare(set(parts))
    with disk() if "disk" in parts else contextlib.nullcontext():
        for i in range(rounds):
            for part in parts:
                for machine in (m for m in machines if m is not Native or part == "disk"):
                    progress(f"round {i + 1} of {rounds}: {part}, {machine.name}")
                    MEASURES[part](machine, samples)
    return samples


def judged(met, native, theirs, goal):
    """A goal may be more than the host itself does."""
    beyond = not met and native and theirs and native < goal * theirs
    return verdict(met) + (f"; native is {times(ratio(native, theirs))}" if beyond else "")


def show(samples, parts):
    lines = []
    for r in (r for r in ROWS if r.part in parts):
        ours, theirs, native = (samples.median(m.name, r.name) for m in (Qumra, Qemu, Native))
        part = ratio(ours, theirs)
        met = part and (part >= r.goal if r.better == "more" else part <= r.goal)
        lines.append((r.text, number(ours, r.unit), number(theirs, r.unit), number(native, r.unit), times(part),
                      f"at {'least' if r.better == 'more' else 'most'} {r.goal} ×", judged(met, native, theirs, r.goal)))
    table(("disk, network, boots", "Qumra", "TCG", "native", "Qumra / TCG", "goal", ""), lines)
    for note in samples.notes:
        print(f"Note: {note}.")
