"""Devices that Debian's large kernel has drivers for, a machine each: tests/virtio/part-NAME runs in it."""
import importlib.util
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from harness import ROOT, Fail, Missing, Skip, Test, need_qumra, script_output

control_spec = importlib.util.spec_from_file_location("control_suite", os.path.join(ROOT, "tests", "control", "suite.py"))
control_suite = importlib.util.module_from_spec(control_spec)
control_spec.loader.exec_module(control_suite)
sys.path.append(os.path.join(ROOT, "tests", "pc"))
from screen import Picture, Viewer  # noqa: E402

HERE = os.path.join(ROOT, "tests", "virtio")
KERNEL = "linux-image-amd64"
MODULES = ("virtio", "virtio_ring", "virtio_mmio", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev")


class Part:
    """What a machine has and how it is judged. kit: the suite's Guest, lock and sha256."""
    name, modules, checks, memory, limit = "", (), 0, "512M", 200
    errors = ""     # what the machine said on standard error

    def __init__(self, kit, folder, bus):
        self.kit, self.folder, self.bus = kit, folder, bus

    def prepare(self):
        """Options of qumra and files for the initramfs."""
        return [], []

    def meet(self, guest):
        """What the host does meanwhile."""

    def judge(self, text):
        """Raises Fail."""

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def initrd(self, files):
        with self.kit.lock:
            kernel = script_output("scripts/fetch-kernel", KERNEL)
            modules = script_output("scripts/fetch-modules", KERNEL, *MODULES, *self.modules)
            busybox = script_output("scripts/fetch-busybox", "amd64")
            mine = self.path("modules")
            shutil.copytree(modules, mine)
        script_output("scripts/make-initramfs", self.path("initrd.cpio"), busybox, os.path.join(HERE, "init-more"),
                      f"modules={mine}", f"part={HERE}/part-{self.name}", *files)
        return kernel

    def run(self, build, log, cpus):
        need_qumra(build)
        options, files = self.prepare()
        kernel = self.initrd(files)
        guest = self.kit.Guest([*build.run, "--kernel", kernel, "--initrd", self.path("initrd.cpio"), "--cpus", str(cpus),
                                "--memory", self.memory, "--append", "console=ttyS0 panic=-1", "--virtio", self.bus, "--stats",
                                *options], self.limit * build.slow)
        try:
            self.meet(guest)
        except Exception:
            guest.process.kill()    # it waits for what will not come
            raise
        finally:
            status = guest.end(log)
            self.errors = guest.errors
        bad = re.findall(r"^CHECK BAD (.*)$", guest.text, re.M)
        if bad:
            raise Fail("checks: " + ", ".join(bad)[:300])
        if status or not re.search("^DONE$", guest.text, re.M):
            raise Fail(f"status {status}")
        if len(re.findall("^CHECK ok", guest.text, re.M)) != self.checks:
            raise Fail(f"{len(re.findall('^CHECK ok', guest.text, re.M))} checks, not {self.checks}")
        self.judge(guest.text)


class Scsi(Part):
    name, checks = "scsi", 30
    modules = ("scsi_mod", "scsi_common", "sd_mod", "sr_mod", "cdrom", "virtio_scsi", "isofs", "crct10dif_common",
               "crc-t10dif", "crc64", "crc64-rocksoft", "t10-pi", "virtio_blk")

    def prepare(self):
        noise = random.Random(8)
        disk, file = noise.randbytes(1 << 20), noise.randbytes(1 << 20)
        os.makedirs(self.path("iso"))
        self.write("iso/file", file)
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", self.path("cd.iso"), self.path("iso")], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(self.write("disk.img", disk), "ab") as f:
            f.truncate(64 << 20)
        self.snapshot(disk)
        files = []
        for name, data in (("disk", disk), ("file", file)):
            files.append(f"{name}.sha256=" + self.write(name + ".sha256", self.kit.sha256(data).encode() + b"\n"))
        return ["--disk", f"{self.folder}/disk.img,format=raw,bus=scsi,serial=disk0serial",
                "--cdrom", f"{self.folder}/cd.iso", "--disk", self.write("grows.img", bytes(1 << 20)) + ",format=raw",
                "--disk", f"{self.folder}/snapshot.qcow2,internal-snapshot=before",
                "--disk", self.write("slow.img", bytes(1 << 20)) + ",format=raw,iops-read=20"], files

    def snapshot(self, data):
        """A qcow2 with another content now than in its snapshot."""
        image, raw = self.path("snapshot.qcow2"), self.write("snapshot.raw", data)
        for words in (("convert", "-f", "raw", "-O", "qcow2", raw, image), ("snapshot", "-c", "before", image)):
            subprocess.run(["qemu-img", *words], check=True)
        subprocess.run(["qemu-io", "-c", f"write -P 7 0 {len(data)}", image], check=True, stdout=subprocess.DEVNULL)

    def meet(self, guest):
        guest.until("READY resize")
        os.truncate(self.path("grows.img"), 2 << 20)
        os.truncate(self.path("disk.img"), 96 << 20)
        guest.process.send_signal(signal.SIGUSR2)

    def judge(self, text):
        with open(self.path("disk.img"), "rb") as f:
            f.seek(65 << 16)
            if self.kit.sha256(f.read(127 << 16)) != re.search(r"^DISK (\w+)$", text, re.M)[1]:
                raise Fail("the image holds something else than the guest wrote")


class Media(Part):
    """Sizes and a CD that change while the guest runs, by the control socket; and a disk that is behind NBD."""
    name, checks = "media", 22
    modules = Scsi.modules

    def prepare(self):
        if not shutil.which("nbdkit"):
            raise Missing("nbdkit needs to be installed")
        noise = random.Random(14)
        file, other = noise.randbytes(1 << 20), noise.randbytes(1 << 20)
        for name, data in (("file", file), ("other", other)):
            os.makedirs(self.path(name + ".d"))
            self.write(f"{name}.d/{name}", data)
            subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", self.path(name + ".iso"), self.path(name + ".d")],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("small", "scsi"):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", self.path(name), "2M"], check=True)
        with open(self.write("served", file), "ab") as f:
            f.truncate(8 << 20)
        self.serve()
        return ["--disk", self.write("first", bytes(1 << 20)) + ",format=raw", "--disk", self.path("small") + ",format=qcow2",
                "--disk", f"{self.path('scsi')},format=qcow2,bus=scsi", "--cdrom", self.path("file.iso") + ",format=raw",
                "--disk", f"nbd+unix:///?socket={self.path('nbd')},format=raw", "--control", self.path("control")], \
            [f"{name}.sha256=" + self.write(name + ".sum", self.kit.sha256(data).encode() + b"\n")
             for name, data in (("file", file), ("other", other))]

    def serve(self):
        """nbdkit takes a socket that listens as its third descriptor (systemd's way), so it is there before the guest is."""
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("nbd"))
            s.listen(4)
            fd = os.dup(s.fileno())
        start = 'exec 3<&"$1"; export LISTEN_FDS=1 LISTEN_PID=$$; exec nbdkit -f file "$2"'
        # Debian's sh knows descriptors of one digit only.
        self.server = subprocess.Popen(["bash", "-c", start, "bash", str(fd), self.path("served")], pass_fds=[fd])
        os.close(fd)

    def meet(self, guest):
        try:
            self.change(guest)
            guest.until("DONE")
        finally:
            self.server.terminate()
            self.server.wait()

    def change(self, guest):
        client = control_suite.greeted(self.path("control"))
        drive, sectors = {"device": "cdrom0"}, iter((4096, 6144, 8192, 10240))

        def refused(words, name, **arguments):
            client.say({"execute": name, "arguments": arguments})
            if words not in client.error()["error"]["desc"]:
                raise Fail(f"{name} {arguments}: not refused for {words}")

        def go_on():
            client.do("block_resize", device="disk0", size=512 * next(sectors))

        guest.until("READY mounted")
        refused("locked", "eject", **drive)
        refused("locked", "blockdev-change-medium", filename=self.path("other.iso"), format="raw", **drive)
        refused("cannot open", "blockdev-change-medium", filename=self.path("none.iso"), **drive)
        refused("no CD-ROM drive", "eject", id="disk0")
        refused("there is no disk", "eject", id="cdrom1")
        refused("one of device and id", "eject", id="cdrom0", **drive)
        refused("only read", "block_resize", size=1 << 30, **drive)
        refused("cannot be made smaller", "block_resize", device="disk0", size=1 << 19)
        refused("multiple of 512", "block_resize", device="disk1", size=(8 << 20) + 1)
        refused("cannot make", "block_resize", **{"node-name": "disk3", "size": 16 << 20})
        go_on()
        guest.until("READY unmounted")
        client.do("eject", **drive)
        go_on()
        guest.until("READY empty")
        client.do("blockdev-change-medium", filename=self.path("other.iso"), format="raw", **drive)
        go_on()
        guest.until("READY larger")
        client.do("block_resize", device="disk1", size=100 << 20)
        client.do("block_resize", **{"node-name": "disk2", "size": 300 << 20})
        go_on()
        client.close()

    def judge(self, text):
        want = re.search(r"^DISK (\w+)$", text, re.M)[1]
        for name, size in (("small", 100 << 20), ("scsi", 300 << 20)):
            subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", self.path(name)], check=True)
            subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path(name), self.path("raw")], check=True)
            with open(self.path("raw"), "rb") as f:
                for at in (1 << 20, size - (1 << 20)):
                    f.seek(at)
                    if os.path.getsize(f.name) != size or self.kit.sha256(f.read(1 << 20)) != want:
                        raise Fail(f"{name} holds something else than the guest wrote")
        with open(self.path("served"), "rb") as f:
            f.seek(3 << 20)
            if self.kit.sha256(f.read(1 << 20)) != want:
                raise Fail("the server's disk holds something else than the guest wrote")


class Balloon(Part):
    name, checks = "balloon", 6
    modules = ("virtio_balloon", "virtio_console")

    def prepare(self):
        return ["--device", "balloon,taken=128M,reporting,stats=1", "--device", "console=none", "--device",
                f"console=unix:{self.path('port')},name=org.qumra.test"], []

    def resident(self, guest):
        """MiB of the process."""
        with open(f"/proc/{guest.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4 >> 10

    def meet(self, guest):
        guest.until("READY full")
        full = self.resident(guest)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path("port"))
            s.sendall(b"go on\n")
            guest.until("READY freed")
            end = time.monotonic() + 100
            while self.resident(guest) > full - 120:
                if time.monotonic() > end:
                    raise Fail(f"{full} MiB resident, and {self.resident(guest)} when the guest had freed 150")
                time.sleep(0.1)
            s.sendall(b"go on\n")
            guest.until("CHECK ok same")

    def judge(self, text):
        figures = dict(re.findall(r"^(balloon_\w+) (\d+)$", self.errors, re.M))
        if figures.get("balloon_taken_kib") != "131072" or int(figures["balloon_reported_kib"]) < 120 << 10 \
                or not 100 << 20 < int(figures["balloon_guest_total"]) < 512 << 20:
            raise Fail(f"figures: {figures}")


class Full(Part):
    """The host's file system is full, or, on mmio and where nothing may be mounted, files may not be longer; later there is
    room again."""
    name, checks = "full", 8
    modules = ("virtio_blk", "virtio_console")
    SIZE, LONGEST, FILLER = 16 << 20, 8 << 20, 4 << 20
    mounted = False

    def prepare(self):
        os.mkdir(self.path("host"))
        self.mounted = self.bus == "pci" and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "qumra-test", self.path("host")], stderr=subprocess.DEVNULL,
            check=False).returncode == 0
        if self.mounted:
            self.write("host/filler", bytes(self.FILLER))
        options = []
        for form in ("raw", "qcow2"):
            image = self.path(f"host/disk.{form}")
            subprocess.run(["qemu-img", "create", "-q", "-f", form, image, "32M"], check=True)
            options += ["--disk", f"{image},format={form},aio={'io_uring' if self.bus == 'pci' else 'threads'}"]
        return [*options, "--device", "console=none", "--device", f"console=unix:{self.path('port')},name=org.qumra.test"], []

    def limit_files(self, guest, size):
        if not self.mounted:
            most = resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE, (size, most))

    def meet(self, guest):
        guest.until("CHECK ok modules")
        self.limit_files(guest, self.LONGEST)
        guest.until("READY full")
        self.limit_files(guest, resource.RLIM_INFINITY)
        if self.mounted:
            os.remove(self.path("host/filler"))
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path("port"))
            s.sendall(b"go on\n")
            guest.until("CHECK ok room-qcow2")

    def run(self, build, log, cpus):
        try:
            return super().run(build, log, cpus)
        finally:
            if self.mounted:
                subprocess.run(["umount", self.path("host")], check=True)

    def judge(self, text):
        """What was reported as written is in the images."""
        image = self.path("host/disk.qcow2")
        found = subprocess.run(["qemu-img", "check", "-q", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if found.returncode not in (0, 3):      # clusters that an error left to nobody
            raise Fail(f"qemu-img check: {found.stdout[-200:]}")
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, self.path("disk.raw")], check=True)
        errors = int(re.search(r"^ERRORS (\d+)$", text, re.M)[1])
        written = {(d, int(i)): g for d, i, g in re.findall(r"^WRITTEN (vd[ab]) (\d+) (\d)$", text, re.M)}
        for (disk, i), generation in written.items():
            line = f"block {i} of {disk} {generation}\n".encode()
            want = (line * ((1 << 20) // len(line) + 1))[:1 << 20]
            with open(self.path({"vda": "host/disk.raw", "vdb": "disk.raw"}[disk]), "rb") as f:
                f.seek(i << 20)
                if f.read(1 << 20) != want:
                    raise Fail(f"MiB {i} of {disk} was reported as written and is something else")
        if not errors or len(written) < 9:
            raise Fail(f"{errors} errors, {len(written)} MiB written")


class Share(Part):
    name, checks = "9p", 28
    modules = ("netfs", "fscache", "9pnet", "9pnet_virtio", "9p")

    def prepare(self):
        file = random.Random(9).randbytes(1 << 20)
        for folder in ("data/many", "fixed", "outside"):
            os.makedirs(self.path(folder))
        self.write("data/from-host", file)
        self.write("fixed/from-host", file)
        self.write("outside/secret", b"not the guest's")
        os.symlink("../outside", self.path("data/escape"))
        os.symlink(self.path("outside/secret"), self.path("data/secret-link"))
        for i in range(3000):
            self.write(f"data/many/a rather long name of an entry {i + 1:04}", b"")
        sums = self.write("sum", self.kit.sha256(file).encode() + b"\n")
        return ["--share", f"{self.folder}/data:data", "--share", f"{self.folder}/fixed:fixed,readonly"], \
            [f"file.sha256={sums}"]

    def judge(self, text):
        with open(self.path("data/from-guest"), "rb") as f:
            if self.kit.sha256(f.read()) != re.search(r"^GUEST (\w+)$", text, re.M)[1]:
                raise Fail("the folder holds something else than the guest wrote")
        if os.listdir(self.path("outside")) != ["secret"] or os.listdir(self.path("fixed")) != ["from-host"]:
            raise Fail("the guest was outside")


VIRTIOFSD = next((f for f in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd") if os.path.exists(f)), None)


class Filesystem(Part):
    """Two folders by virtiofsd: one that qumra starts, one that we started and kill."""
    name, checks = "fs", 22
    modules = ("fuse", "virtiofs", "virtio_console")

    def prepare(self):
        if not VIRTIOFSD:
            raise Missing("virtiofsd needs to be installed")
        if os.geteuid():
            raise Skip("virtiofsd needs root")
        file = random.Random(11).randbytes(1 << 20)
        for folder in ("data/many", "other", "outside"):
            os.makedirs(self.path(folder))
        self.write("data/from-host", file)
        self.write("outside/secret", b"not the guest's")
        os.symlink("../outside", self.path("data/escape"))
        os.symlink(self.path("outside/secret"), self.path("data/secret-link"))
        for i in range(3000):
            self.write(f"data/many/a rather long name of an entry {i + 1:04}", b"")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("fs"))
            s.listen(1)
            self.daemon = subprocess.Popen([VIRTIOFSD, f"--fd={s.fileno()}", "-o", f"source={self.path('other')}"],
                                           pass_fds=[s.fileno()], start_new_session=True,
                                           stderr=subprocess.DEVNULL)
        sums = self.write("sum", self.kit.sha256(file).encode() + b"\n")
        return ["--share", f"{self.folder}/data:data,bus=fs", "--device", f"fs={self.path('fs')},tag=other", "--device",
                "console=none", "--device", f"console=unix:{self.path('port')},name=org.qumra.test"], [f"file.sha256={sums}"]

    def meet(self, guest):
        try:
            guest.until("READY kill")
        finally:
            os.killpg(self.daemon.pid, signal.SIGKILL)     # its sandbox is a process of its own
            self.daemon.wait()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path("port"))
            s.sendall(b"killed\n")
            guest.until("CHECK ok needs-reset")

    def judge(self, text):
        with open(self.path("data/from-guest"), "rb") as f:
            if self.kit.sha256(f.read()) != re.search(r"^GUEST (\w+)$", text, re.M)[1]:
                raise Fail("the folder holds something else than the guest wrote")
        if "virtio-fs: the back end has gone" not in self.errors:
            raise Fail("no line says that the back end has gone")
        if os.listdir(self.path("outside")) != ["secret"]:
            raise Fail("the guest was outside")


class VhostDisk(Part):
    """A disk that QEMU's storage daemon serves."""
    name, checks = "vhost-blk", 6
    modules = ("virtio_blk",)

    def prepare(self):
        if not shutil.which("qemu-storage-daemon"):
            raise Missing("qemu-storage-daemon needs to be installed")
        data = random.Random(13).randbytes(1 << 20)
        with open(self.write("disk.img", data), "ab") as f:
            f.truncate(64 << 20)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("disk"))
            s.listen(1)
            self.daemon = subprocess.Popen(
                ["qemu-storage-daemon", "--blockdev", f"driver=file,filename={self.path('disk.img')},node-name=file",
                 "--blockdev", "driver=raw,file=file,node-name=disk", "--export",
                 f"type=vhost-user-blk,id=e,node-name=disk,addr.type=fd,addr.str={s.fileno()},writable=on,num-queues=4"],
                pass_fds=[s.fileno()])
        return ["--disk", self.path("disk") + ",bus=vhost-user"], \
            ["disk.sha256=" + self.write("sum", self.kit.sha256(data).encode() + b"\n")]

    def meet(self, guest):
        try:
            guest.until("DONE")
        finally:
            self.daemon.terminate()
            self.daemon.wait()

    def judge(self, text):
        with open(self.path("disk.img"), "rb") as f:
            f.seek(1024 << 12)
            if self.kit.sha256(f.read(2000 << 12)) != re.search(r"^DISK (\w+)$", text, re.M)[1]:
                raise Fail("the image holds something else than the guest wrote")


NET_MODULES = ("failover", "net_failover", "virtio_net")


class Network(Part):
    """A file that the guest fetches from a server of ours."""
    modules = NET_MODULES

    def serve(self, address):
        data = random.Random(12).randbytes(3 << 20)
        self.sum = self.kit.sha256(data)
        self.data = data
        self.server = self.kit.serve(data, address)
        self.write("port", b"%d\n" % self.server.server_address[1])
        return [f"file.sha256={self.write('sum', self.sum.encode())}", f"port={self.path('port')}"]


class VhostNetwork(Part):
    """A network that a program of our tests serves: it answers for 10.9.1.1."""
    name, checks = "vhost-net", 10
    modules = NET_MODULES

    def run(self, build, log, cpus):
        self.program = os.path.join(build.path, "tests", "device", "vhost-net-back")
        super().run(build, log, cpus)

    def prepare(self):
        self.back = subprocess.Popen([self.program, self.path("net")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.back.stdout.readline() != "READY\n":
            raise Fail("the back end does not start")
        return ["--net", f"vhost-user={self.path('net')},mac=52:54:00:0a:0b:0f"], []

    def meet(self, guest):
        """The back end ends when the machine has."""
        try:
            guest.until("DONE")
            out, err = self.back.communicate(timeout=30)
        finally:
            self.back.kill()
        frames, answers = (int(n) for n in out.split())
        if self.back.returncode or err or answers < 6 + 300 + 3 * 7 or frames < answers:
            raise Fail(f"the back end had {frames} frames, {answers} answers and said {err[-200:]!r}")


class Passt(Network):
    """The host's own network by passt, which reaches the host's loopback by the router's address."""
    name, checks = "passt", 7

    def prepare(self):
        route = re.search(r"^default .*?dev (\S+)", subprocess.run(["ip", "-4", "route"], capture_output=True, text=True,
                                                                   check=False).stdout, re.M)
        if not shutil.which("passt"):
            raise Missing("passt needs to be installed")
        if not route:
            raise Skip("passt needs a default route")
        address = subprocess.run(["ip", "-4", "-o", "addr", "show", "dev", route[1]], capture_output=True, text=True, check=True)
        want = self.write("want", re.search(r"inet ([\d.]+)", address.stdout)[1].encode())
        self.port = self.kit.free_port()
        return ["--net", f"passt,forward=tcp:{self.port}:7000,mac=52:54:00:0a:0b:0d,pcap={self.path('net.pcap')}"], \
            self.serve("127.0.0.1") + [f"address.want={want}"]

    def meet(self, guest):
        guest.until("READY forward")
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
            s.sendall(self.data)
            guest.until("CHECK ok forwarded")

    def judge(self, text):
        if os.path.getsize(self.path("net.pcap")) < 3 << 20:
            raise Fail("the capture is not whole")


class Tap(Network):
    """An interface that qumra makes, as root; it is gone when qumra is."""
    name, checks = "tap", 9

    def prepare(self):
        if os.geteuid() or not os.path.exists("/dev/net/tun"):
            raise Skip("a TAP interface needs /dev/net/tun, and root")
        self.interface = f"qt{os.getpid() % 100000}x{random.randrange(1000)}"
        self.back = socket.create_server(("0.0.0.0", 0))
        return ["--net", f"tap={self.interface}"], self.serve("0.0.0.0") + \
            ["port.back=" + self.write("back", b"%d\n" % self.back.getsockname()[1])]

    def meet(self, guest):
        guest.until("READY tap")
        subprocess.run(["ip", "addr", "add", "10.211.7.1/24", "dev", self.interface], check=True)
        subprocess.run(["ip", "link", "set", self.interface, "up"], check=True)
        self.back.settimeout(60)
        with self.back.accept()[0] as s:
            if self.kit.sha256(self.kit.read_all(s)) != self.sum:
                raise Fail("the guest sent something else")
        guest.until("READY listens")
        with socket.create_connection(("10.211.7.2", 7001), timeout=60) as s:
            s.sendall(b"from the host\n")

    def judge(self, text):
        if os.path.exists(f"/sys/class/net/{self.interface}"):
            raise Fail("the interface is still there")


class Sockets(Part):
    name, checks = "vsock", 7
    modules = ("vsock", "vmw_vsock_virtio_transport", "vmw_vsock_virtio_transport_common")

    def prepare(self):
        subprocess.run(["cc", "-static", "-O1", "-o", self.path("sockets"), os.path.join(HERE, "sockets.c")], check=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path("vsock_5"))
        self.listener.listen(1)
        return ["--device", f"vsock={self.path('vsock')},cid=7"], [f"sockets={self.path('sockets')}"]

    def answer(self):
        """The host's port 5: all that came, back."""
        s, _ = self.listener.accept()
        with s:
            s.sendall(self.kit.read_all(s))

    def meet(self, guest):
        server = threading.Thread(target=self.answer, daemon=True)
        server.start()
        guest.until("READY echo")
        server.join(60)
        data = random.Random(10).randbytes(2 << 20)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.path("vsock"))
            s.sendall(b"CONNECT 1234\n")
            line = b""
            while not line.endswith(b"\n"):
                line += s.recv(1)
            if not line.startswith(b"OK "):
                raise Fail(f"the socket said {line!r}")
            sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True)
            sender.start()
            back = self.kit.read_all(s)
            if back != data:
                raise Fail(f"the guest sent back something else: {len(back)} of {len(data)} bytes")
        self.answer()   # not before: a machine that ends drops what the host has not read yet


class Gpu(Part):
    """A screen of 800 by 600, a keyboard and a tablet: on PCI beside a VGA, whose picture shows until the driver comes; memory-mapped
    on a microvm, which has no other screen."""
    name, checks = "gpu", 8
    modules = ("drm", "drm_kms_helper", "drm_shmem_helper", "virtio_dma_buf", "virtio-gpu", "evdev", "virtio_input")
    width, height = 800, 600
    cursor, cursor_at = (0x80, 0x40, 0x20, 0x10), (37, -9)     # alpha, red, green, blue: as in screen.c

    def prepare(self):
        subprocess.run(["cc", "-static", "-O1", "-o", self.path("screen"), os.path.join(HERE, "screen.c")], check=True)
        noise = random.Random(11)
        self.rows = [noise.randbytes(4 * self.width) for _ in range(self.height)]
        options = ["--device", f"gpu,width={self.width},height={self.height}", "--device", "keyboard", "--device", "tablet",
                   "--display", f"vnc=unix:{self.path('vnc')}", "--screenshot", self.path("shot.png")]
        return options + (["--device", "vga"] if self.bus == "pci" else ["--machine", "microvm"]), \
            [f"screen={self.path('screen')}", "pattern=" + self.write("pattern", b"".join(self.rows))]

    def color(self, x, y, cursor):
        """Red, green, blue of what the guest drew."""
        b, g, r = self.rows[y][4 * x:4 * x + 3]
        cx, cy = x - self.cursor_at[0], y - self.cursor_at[1]
        if not cursor or not (0 <= cx < 64 and 0 <= cy < 64):
            return bytes((r, g, b))
        alpha, *over = self.cursor
        return bytes(min(255, c + (under * (255 - alpha) + 127) // 255) for c, under in zip(over, (r, g, b)))

    def picture(self, guest):
        """A new screenshot."""
        def which():
            try:
                return os.stat(self.path("shot.png")).st_ino
            except FileNotFoundError:
                return None
        before, end = which(), time.monotonic() + 60
        guest.process.send_signal(signal.SIGUSR1)
        while which() == before:
            if time.monotonic() > end:
                raise Fail("there was no screenshot")
            time.sleep(0.01)
        with open(self.path("shot.png"), "rb") as f:
            return Picture(f.read())

    def wait_for_picture(self, guest, cursor):
        want = [b"".join(self.color(x, y, cursor) for x in range(self.width)) for y in range(self.height)]
        end = time.monotonic() + 30
        while True:
            p = self.picture(guest)
            if (p.width, p.height) == (self.width, self.height) and p.rows == want:
                return
            if time.monotonic() > end:
                wrong = [y for y, row in enumerate(p.rows) if y >= len(want) or row != want[y]]
                raise Fail(f"{p.width} x {p.height}: {len(wrong)} rows are not what the guest drew, first {wrong[:5]}")

    def meet(self, guest):
        guest.until("READY picture")
        self.wait_for_picture(guest, cursor=False)
        guest.until("READY events")
        with Viewer(self.path("vnc")) as viewer:
            viewer.type("a")
            viewer.point(0, 0)
            viewer.point(self.width - 1, self.height // 2, 1)
            viewer.point(self.width - 1, self.height // 2, 0)
            viewer.point(self.width - 1, self.height // 2, 8)      # the wheel, away
            viewer.type("c")
            guest.until("READY cursor")
            self.wait_for_picture(guest, cursor=True)
            viewer.type("Enter")
            guest.until("CHECK ok events")

    def judge(self, text):
        events = re.findall(r"^EVENT (\w+) (\d+) (\d+) (-?\d+)$", text, re.M)
        keyboard = [tuple(map(int, e[1:])) for e in events if e[0] == "keyboard" and e[3] != "2"]
        tablet = [tuple(map(int, e[1:])) for e in events if e[0] == "tablet"]
        keys = [(1, code, value) for code in (30, 46, 28) for value in (1, 0)]
        if [e for e in keyboard if e[0] == 1] != keys:
            raise Fail(f"keys: {keyboard}")
        half = (self.height // 2) * 32767 // (self.height - 1)
        syn = (0, 0, 0)
        if tablet != [(3, 0, 32767), (3, 1, half), (1, 0x110, 1), syn, (1, 0x110, 0), syn, (2, 8, 1), syn]:
            raise Fail(f"tablet: {tablet}")


class Mouse(Part):
    """The PS/2 mouse, to which a viewer's places are motion from where it was first."""
    name, checks = "mouse", 3
    modules = ("evdev", "psmouse")

    def prepare(self):
        subprocess.run(["cc", "-static", "-O1", "-o", self.path("screen"), os.path.join(HERE, "screen.c")], check=True)
        return ["--device", "vga", "--display", f"vnc=unix:{self.path('vnc')}"], [f"screen={self.path('screen')}"]

    def meet(self, guest):
        guest.until("READY events")
        with Viewer(self.path("vnc")) as viewer:
            viewer.point(100, 100)
            # What a mouse has not told yet adds up: a click, or a wheel turned there and back, would be nothing.
            for x, y, mask, event in ((103, 95, 0, "2 1 -5"), (203, 195, 0, "2 1 100"), (203, 195, 1, "1 272 1"),
                                      (202, 195, 0, "1 272 0"), (202, 195, 4, "1 273 1"), (202, 195, 0, "1 273 0"),
                                      (202, 195, 16, "2 8 -1"), (202, 195, 8, "2 8 1")):
                viewer.point(x, y, mask)
                guest.until(f"EVENT mouse {event}\n")
            viewer.type("Enter")
            guest.until("CHECK ok events")

    def judge(self, text):
        moved, rest = [0, 0], []
        for _, kind, code, value in re.findall(r"^EVENT (mouse) (\d+) (\d+) (-?\d+)$", text, re.M):
            kind, code, value = int(kind), int(code), int(value)
            if kind == 2 and code < 2:
                moved[code] += value
            elif kind == 1 or (kind, code) == (2, 8):
                rest.append((code, value, *moved))
        # A packet's buttons come before its motion.
        if rest != [(0x110, 1, 103, 95), (0x110, 0, 103, 95), *((what, value, 102, 95) for what, value in (
                (0x111, 1), (0x111, 0), (8, -1), (8, 1)))]:
            raise Fail(f"mouse: {rest}, moved by {moved}")


class Reset(Gpu):
    """Every device in one machine that reboots. Gpu has what looks at the picture."""
    name, checks, memory, limit = "reset", 2 * 20, "256M", 400
    modules = Gpu.modules + NET_MODULES + Scsi.modules + Share.modules + Filesystem.modules + Sockets.modules + (
        "virtio_balloon", "virtio-rng", "rng-core")

    def prepare(self):
        if not VIRTIOFSD or os.geteuid():
            raise Skip("virtiofsd needs to be installed, and root")
        file = random.Random(16).randbytes(1 << 20)
        self.server = self.kit.serve(file)
        disks = []
        for name in ("disk", "scsi"):
            with open(self.write(name, bytes(1 << 20) + file), "ab") as f:
                f.truncate(4 << 20)
            disks += ["--disk", self.path(name) + f",format=raw,bus={'virtio' if name == 'disk' else 'scsi'}"]
        for name in ("data", "other"):
            os.mkdir(self.path(name))
            self.write(name + "/file", file)
        subprocess.run(["cc", "-static", "-O1", "-o", self.path("sockets"), os.path.join(HERE, "sockets.c")], check=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path("vsock_5"))
        self.listener.listen(1)
        threading.Thread(target=self.answer, daemon=True).start()
        options, files = super().prepare()
        options += disks + [
            "--net", "user", "--device", f"console=file:{self.path('console')}", "--device",
            f"console=unix:{self.path('port')},name=org.qumra.test", "--device", "rng", "--device", "balloon,taken=64M",
            "--device", f"vsock={self.path('vsock')}", "--share", f"{self.path('data')}:data",
            "--share", f"{self.path('other')}:other,bus=fs"]
        files += [f"early={HERE}/early-reset", f"sockets={self.path('sockets')}",
                  "port=" + self.write("http", b"%d" % self.server.server_address[1]),
                  "file.sha256=" + self.write("sum", self.kit.sha256(file).encode() + b"\n")]
        return options, files

    def answer(self):
        """Port 5 of the host: what comes goes back."""
        while True:
            s, _ = self.listener.accept()
            with s:
                s.sendall(self.kit.read_all(s))

    def meet(self, guest):
        try:
            with socket.socket(socket.AF_UNIX) as port:
                port.settimeout(60)
                for number, time_of_it in enumerate((b"first", b"second"), 1):
                    self.meet_once(guest, port, number, time_of_it)
        finally:
            self.server.shutdown()

    def meet_once(self, guest, port, number, word):
        guest.until("READY port", number)
        if number == 1:
            port.connect(self.path("port"))     # and stays connected
        port.sendall(word + b"\n")
        back = b""
        while not back.endswith(b"\n"):
            back += port.recv(100)
        if back != b"back: " + word + b"\n":
            raise Fail(f"the port said {back!r}")
        guest.until("READY picture", number)
        self.wait_for_picture(guest, cursor=False)
        guest.until("READY events", number)
        with Viewer(self.path("vnc")) as viewer:
            viewer.point(self.width - 1, self.height // 2)
            viewer.type("a")
            viewer.type("Enter")
            guest.until("CHECK ok events", number)

    def judge(self, text):
        if re.findall(r"^TIME (\w+)$", text, re.M) != ["first", "second"]:
            raise Fail("the machine did not reboot once")
        if re.findall(r"^PLACES (.*)$", text, re.M) != 2 * ["0 12" if self.bus == "pci" else "12 0"]:
            raise Fail("not all devices were looked at")
        for device, *event in (("keyboard", 1, 30, 1), ("keyboard", 1, 28, 1), ("tablet", 3, 0, 32767)):
            if text.count(" ".join(map(str, ("EVENT", device, *event))) + "\n") != 2:
                raise Fail(f"the {device}'s event {event} did not come twice")
        with open(self.path("console"), "rb") as f:
            if f.read().replace(b"\r", b"") != b"first\nsecond\n":
                raise Fail("the console's output is not whole")
        found = sorted(os.listdir(self.path("data")) + os.listdir(self.path("other")))
        if found != ["9p-first", "9p-second", "file", "file", "fs-first", "fs-second"]:
            raise Fail(f"the folders have {found}")


PARTS = (Reset, Mouse, Scsi, Media, Balloon, Full, Share, Filesystem, VhostDisk, VhostNetwork, Passt, Tap, Sockets, Gpu)


def run(part, kit, build, log, bus, cpus):
    """Debian 12's passt ended by itself once, on a host that was very busy: it gets another try, and its last words are told."""
    with tempfile.TemporaryDirectory() as folder:
        machine = part(kit, folder, bus)
        try:
            return machine.run(build, log, cpus)
        except Fail:
            if part is not Passt or "socket: the other side has gone" not in machine.errors:
                raise
    words = [line for line in machine.errors.splitlines() if not line.startswith("qumra")]
    with tempfile.TemporaryDirectory() as folder:
        part(kit, folder, bus).run(build, log, cpus)
    return f"passt ended by itself: {words[-3:]}"


def tests(build, kit):
    for part in PARTS:
        for bus, cpus in (("pci", 1), ("mmio", 2)):
            if build.name and (bus == "mmio" or part is not Scsi):
                continue
            yield Test(build.test(f"virtio/{part.name}-{bus}"),
                       lambda log, p=part, b=bus, n=cpus: run(p, kit, build, log, b, n), cost=30 * build.slow)
