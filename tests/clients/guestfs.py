"""libguestfs, which starts QEMU by itself: softkvm is inherited by its children."""
import glob
import os
import re
import shutil
import tarfile

import disk
from harness import Fail, Missing, Skip, environment, run_process

MODULES = os.path.join(disk.FOLDER, "modules")
CACHE = os.path.join(disk.FOLDER, "appliance")
MAKE = """disk-create image.raw raw 64M
add image.raw format:raw
run
part-disk /dev/sda mbr
mkfs ext4 /dev/sda1 label:files
mount /dev/sda1 /
mkdir /folder
upload noise /folder/noise
write /hello "it works\\n"
ln-s hello /link
umount-all
"""
READ = """add image.raw format:raw readonly:true
run
mount-ro /dev/sda1 /
cat /link
echo sum
checksum sha256 /folder/noise
vfs-label /dev/sda1
echo clock
debug sh "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
"""
# supermin wants the host to have a folder of modules, even where it is told to use another: a machine without a kernel gets
# one for itself.
NAMESPACE = """t=$(mktemp -d) && mount -t tmpfs none "$t" && mkdir "$t/upper" "$t/work" &&
mount -t overlay -o "lowerdir=/usr/lib,upperdir=$t/upper,workdir=$t/work" none /usr/lib &&
mkdir -p /usr/lib/modules && exec "$@" """


def modules():
    """The modules of the disk's kernel; returns their folder."""
    disk.disk()
    with disk.lock:
        if not os.path.isdir(MODULES):
            with tarfile.open(disk.path("root.tar")) as tar:
                members = [m for m in tar.getmembers() if re.match(r"\./(usr/)?lib/modules/", m.name)]
                for m in members:
                    m.name = re.sub(r"^\./(usr/)?lib/modules/", "", m.name)
                tar.extractall(MODULES + ".new", members)
            os.rename(MODULES + ".new", MODULES)
    return glob.glob(os.path.join(MODULES, "[0-9]*"))[0]


def surroundings(cache):
    """Debian's own kernel in place of the host's, which may have none."""
    folder = modules()
    os.makedirs(cache, exist_ok=True)
    return environment(LIBGUESTFS_BACKEND="direct", LIBGUESTFS_CACHEDIR=cache, SUPERMIN_KERNEL=disk.KERNEL,
                       SUPERMIN_KERNEL_VERSION=os.path.basename(folder), SUPERMIN_MODULES=folder, LIBGUESTFS_MEMSIZE="512")


def guestfish(softkvm, script, folder, env, log):
    path = os.path.join(folder, "script")
    with open(path, "w", encoding="ascii") as f:
        f.write(script)
    words = [*softkvm, "guestfish", "-f", path]
    if not os.path.isdir("/lib/modules"):
        if os.getuid():
            raise Skip("supermin wants a folder /lib/modules")
        words = ["unshare", "-m", "sh", "-c", NAMESPACE, "sh", *words]
    r = run_process(words, 240, log, env=env, cwd=folder)
    if r.status:
        raise Fail(f"guestfish: status {r.status}: {r.err.decode(errors='replace').strip().splitlines()[-1:]}")
    return r


def image(softkvm, folder, log):
    """Makes, mounts and writes an image; another one reads it, on a KVM guest's clock."""
    if not shutil.which("guestfish"):
        raise Missing("no guestfish")
    env = surroundings(CACHE)
    noise = os.urandom(8 << 20)
    with open(os.path.join(folder, "noise"), "wb") as f:
        f.write(noise)
    disk.run("cp", os.path.join(folder, "noise"), os.path.join(folder, "copy"))
    trace = os.path.join(folder, "trace")
    guestfish(softkvm, MAKE, folder, env, log)
    r = guestfish([*softkvm, "--trace=fds", "--trace-file", trace], READ, folder, env, log)
    want = ["it works", "sum", disk.run("sha256sum", os.path.join(folder, "copy")).decode().split()[0], "files", "clock",
            "kvm-clock"]
    said = [line for line in r.out.decode().splitlines() if line]
    if said != want:
        raise Fail(f"{said}, not {want}")
    with open(trace, encoding="utf-8", errors="replace") as f:
        if not re.search(r"fds: open /dev/kvm = \d+$", f.read(), re.M):
            raise Fail("nobody opened softkvm's /dev/kvm")
