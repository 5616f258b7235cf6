"""Options of devices that cannot be, and images that are missing, corrupt or somebody else's: one line each."""
import fcntl
import os
import struct
import subprocess
import tempfile

# Option, value, what the line must say. In the folder of images(); "{}" is its path.
MISTAKES = (
    ("disk", "", "which file"), ("disk", "raw.img,turbo", "turbo"), ("disk", "raw.img,cache=fast", "none of writeback"),
    ("disk", "raw.img,cache", "needs a value"), ("disk", "raw.img,readonly=1", "takes no value"), ("disk", "raw.img,bus=ide", "ide"),
    ("disk", "raw.img,format=vmdk", "raw.qcow2"), ("disk", "raw.img,queues=0", "1 to 16"), ("disk", "raw.img,queues=17", "1 to 16"),
    ("disk", "raw.img,bus=scsi,queues=2", "bus=virtio"), ("disk", "raw.img,aio=aio", "io_uring"), ("disk", "raw.img,iops=0", "iops"),
    ("disk", "raw.img,bps=x", "size"), ("disk", "raw.img,bootindex=-1", "0 to 999"), ("disk", "raw.img,bootindex=1", "firmware"),
    ("disk", "raw.img,bus=vhost-user,readonly", "only queues"), ("disk", "none,bus=vhost-user", "No such file"),
    ("cdrom", "", "which file"), ("cdrom", "raw.img,readonly", "unknown"), ("cdrom", "raw.img,bus=virtio", "scsi"),
    ("cdrom", "none.iso", "none.iso: No such file"), ("cdrom", "{}", "directory|neither a file"),
    ("net", "bridge", "bridge"), ("net", "tap=", "tap="), ("net", "tap=" + "x" * 16, "too long"), ("net", "user,speed=9", "speed"),
    ("net", "user,mac=1:2", "52:54"), ("net", "user,mac=01:00:00:00:00:01", "group"), ("net", "user,forward=tcp:80", "tcp:8080"),
    ("net", "user,forward=tcp:0:80", "tcp:8080"), ("net", "user,forward=sctp:1:1", "tcp:8080"), ("net", "tap=t,forward=tcp:1:1", "belongs"),
    ("net", "user,vhost=on", "tap"), ("net", "user,tftp=none", "no folder none"), ("net", "passt,tftp={}", "belongs to user"),
    ("net", "user,rom=none.rom", "none.rom"), ("net", "user,rom=raw.img", "no option ROM"), ("net", "user,pcap=none/p", "none/p"),
    ("net", "socket=none", "none: No such file"), ("net", "vhost-user=none", "none: No such file"),
    ("net", "vhost-user=none,pcap=p", "do not come by"), ("net", "user,bootindex=5", "firmware"),
    ("share", "{}", "FOLDER:TAG"), ("share", "{}:", "FOLDER:TAG"), ("share", ":t", "FOLDER:TAG"), ("share", "none:t", "none: .*No such file"),
    ("share", "raw.img:t", "Not a directory"), ("share", "{}:" + "x" * 32, "31"), ("share", "{}:t,bus=nfs", "nfs"),
    ("share", "{}:t,bus=fs,readonly", "bus=9p"),
    ("device", "toaster", "toaster"), ("device", "rng,fast", "nothing behind"), ("device", "console=stdio", "--serial"),
    ("device", "console=file:", "--device console"), ("device", "console=unix:none/s", "--device console=unix:none/s"),
    ("device", "console=file:none/f", "--device console=file:none/f: No such"), ("device", "console=none,title=x", "title"),
    ("device", "balloon,taken=x", "size"), ("device", "balloon,taken=1G", "64 MiB only"), ("device", "balloon,stats=0", "1 to"),
    ("device", "vsock=", "which socket"), ("device", "vsock=none/s", "none/s"), ("device", "vsock=s,cid=2", "from 3"),
    ("device", "vhost-vsock", "which address"), ("device", "fs=s", "which tag"), ("device", "fs=none,tag=t", "none: No such file"),
    ("device", "vmgenid,guid=1", "324e6eaf"), ("device", "gpu,width=1", "64 to"), ("device", "gpu,depth=8", "depth"),
    ("firmware", "openfirmware", "openfirmware: No such file"), ("firmware", "", "empty"), ("firmware", "raw.img,speed=1", "vars=FILE"),
    ("firmware", "raw.img,vars=v", "only uefi"), ("firmware", "cut.qcow2", "no firmware"), ("firmware", "{}", "directory|regular"),
    ("numa", "cpus=0", "0 bytes together"), ("numa", "memory=64M", "CPU 0 is in no node"), ("numa", "cpus=x,memory=64M", "0-3"),
    ("numa", "cpus=0,memory=32M", "32 MiB together"), ("numa", "cpus=1,memory=64M", "no CPU 1"), ("numa", "cpus=0,nodes=1", "nodes"),
    ("numa", "cpus=0,memory=64M,distances=5", "10:20"), ("control", "none/s", "none/s"), ("control", "{}", "no socket"),
    ("control", "", "empty"), ("control", "raw.img", "no socket"), ("virtio", "isa", "isa"), ("machine", "pc", "q35"),
    ("config", "none", "none: No such file"), ("code-cache", "1", "1M to 1G"),
)
# What follows FILE in --disk, and must be said.
IMAGES = (
    ("none.img", "none.img: No such file"), ("none/x.img", "none/x.img"), ("{}", "directory|neither a file"), ("/dev/null", "neither a file"),
    ("fifo", "neither a file"), ("raw.img,format=qcow2", "not a qcow2 image"), ("cut.qcow2", "behind the file's end"),
    ("header.qcow2", "impossible length"), ("cluster.qcow2", "cluster size"), ("version.qcow2", "version 9"),
    ("other.vmdk", "vmdk are not supported"), ("overlay.qcow2", "backing file of overlay.qcow2"), ("chain.qcow2", "backing file"),
    ("good.qcow2,internal-snapshot=x", "no internal snapshot x"), ("used.qcow2", "in use by another"),
    ("used.qcow2,readonly", "in use by another program, which writes it"), ("used.qcow2,snapshot", "in use by another"),
    ("used.img,format=raw", "used.img is in use by another"), ("nbd://127.0.0.1:1/x", "127.0.0.1:1"),
)


def poke(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def lock(path):
    """As a program that writes the image and lets nobody else: QEMU's bytes, on an open file description of ours."""
    f = open(path, "r+b")   # pylint: disable=consider-using-with
    for byte in (100, 101, 103, 201, 203):
        fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    return f


def images(folder):
    """The images; answers what is to be kept open."""
    def make(name, form, *more):
        subprocess.run(["qemu-img", "create", "-q", "-f", form, *more, os.path.join(folder, name), "1M"], check=True, cwd=folder)
        return os.path.join(folder, name)
    for name in ("good", "cluster", "version", "used", "header"):
        make(name + ".qcow2", "qcow2")
    poke(os.path.join(folder, "cluster.qcow2"), 20, b"\xff\xff")
    poke(os.path.join(folder, "version.qcow2"), 4, b"\0\0\0\x09")
    os.truncate(os.path.join(folder, "header.qcow2"), 40)
    os.truncate(make("cut.qcow2", "qcow2"), 50000)
    make("other.vmdk", "vmdk")
    os.rename(make("base.qcow2", "qcow2"), os.path.join(folder, "moved.qcow2"))
    for name, base in (("overlay", "base"), ("chain", "overlay")):
        make(name + ".qcow2", "qcow2", "-u", "-b", base + ".qcow2", "-F", "qcow2")
    make("raw.img", "raw")
    os.mkfifo(os.path.join(folder, "fifo"))
    return lock(os.path.join(folder, "used.qcow2")), lock(make("used.img", "raw"))


def run(build, log, kernel, refused):
    """refused(name, args, must, cwd) notes what is not one line that says so."""
    with tempfile.TemporaryDirectory() as folder:
        kept = images(folder)
        for option, value, must in (*MISTAKES, *(("disk", *i) for i in IMAGES), *(("cdrom", *i) for i in IMAGES
                                                                                  if not i[0].startswith("nbd") and "," not in i[0])):
            value = value.format(folder)
            start = [] if option == "firmware" else ["--kernel", kernel]
            refused(f"{option} {value}", [*start, "--memory", "64M", "--serial", "none", f"--{option}={value}"], must, folder)
        for f in kept:
            f.close()
        left = set(os.listdir(folder)) - {"good.qcow2", "cluster.qcow2", "version.qcow2", "used.qcow2", "header.qcow2", "cut.qcow2",
                                          "other.vmdk", "moved.qcow2", "overlay.qcow2", "chain.qcow2", "raw.img", "fifo", "used.img"}
    return left
