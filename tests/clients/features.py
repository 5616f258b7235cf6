"""What QEMU's monitor and gdbstub do with a running guest on softkvm: snapshots, hotplug, debugging."""
import os
import re
import tempfile

import disk
from debian import Debian, Qemu, qcow2
from gdb import RDI, RIP, RSP, Gdb
from harness import Fail

BUSES = {"pc": "", "q35": ",bus=port{}"}


def same(what, got, want):
    if got != want:
        raise Fail(f"{what}: {got!r}, not {want!r}")


def quiet(guest, line):
    """A monitor command that has nothing to say but OK."""
    said = guest.command(line)
    left = [text for text in said.replace("\r", "").split("\n") if text and "(qemu)" not in text and "\x1b" not in text]
    if left and left != ["OK"]:
        raise Fail(f"{line}: {left[0]}")


# ---- snapshots -----------------------------------------------------------------------------------------------------


def snapshots(guest):
    """Memory, processes and disk come back; time goes on."""
    guest.sh("x=1; echo before >/root/file; sync; (while :; do :; done) & busy=$!; echo 1 >/dev/shm/file")
    quiet(guest, "savevm one")
    guest.sh("x=2; echo behind >/root/file; sync; kill $busy; wait $busy; rm /dev/shm/file; dd if=/dev/urandom of=/root/more "
             "bs=1M count=16", status=None)
    if not re.search(r"\bone\b", guest.command("info snapshots")):
        raise Fail("no snapshot")
    quiet(guest, "loadvm one")
    same("a shell's variable", guest.sh("echo $x").strip(), "1")
    same("files", guest.sh("cat /root/file /dev/shm/file; ls /root/more", status=None).split()[:2], ["before", "1"])
    guest.sh("kill -0 $busy; kill $busy; test ! -e /root/more; sleep 0.2; echo 3 > /proc/sys/vm/drop_caches; "
             "test $(cat /root/file) = before")


# ---- hotplug -------------------------------------------------------------------------------------------------------

WAIT = "for i in $(seq 200); do {} && break; sleep 0.1; done; {}"


def until(guest, condition):
    guest.sh(WAIT.format(condition, condition), 120)


def hotplug_disk(guest, machine, image):
    quiet(guest, f"drive_add 0 if=none,id=more,format=raw,file={image}")
    quiet(guest, f"device_add virtio-blk-pci,drive=more,id=extra,serial=extra{BUSES[machine].format(1)}")
    until(guest, "test -b /dev/vdb")
    guest.sh("dd if=/dev/urandom of=/tmp/noise bs=1M count=4 && dd if=/tmp/noise of=/dev/vdb bs=1M oflag=direct && "
             "dd if=/dev/vdb bs=1M count=4 iflag=direct | cmp - /tmp/noise")
    guest.sh("cat /sys/block/vdb/serial | grep -qx extra")
    quiet(guest, "device_del extra")
    until(guest, "test ! -e /dev/vdb")


def hotplug_network(guest, machine):
    quiet(guest, "netdev_add user,id=second,net=10.9.8.0/24")
    quiet(guest, f"device_add virtio-net-pci,netdev=second,id=eth,mac=52:54:00:99:88:77{BUSES[machine].format(2)}")
    until(guest, "grep -qs 52:54:00:99:88:77 /sys/class/net/*/address")
    guest.sh("n=$(grep -l 52:54:00:99:88:77 /sys/class/net/*/address | cut -d/ -f5); ip link set $n up; "
             "ip addr add 10.9.8.15/24 dev $n; for i in $(seq 50); do ip neigh flush dev $n; "
             "echo >/dev/tcp/10.9.8.2/9; ip neigh show dev $n | grep -q lladdr && break; sleep 0.2; done; "
             "ip neigh show dev $n | grep -q lladdr")
    quiet(guest, "device_del eth")
    until(guest, "! grep -qs 52:54:00:99:88:77 /sys/class/net/*/address")


def hotplug_cpu(guest, cpus):
    """A CPU more, which works, and goes away again."""
    quiet(guest, f"device_add qemu64-x86_64-cpu,id=new,socket-id={cpus},core-id=0,thread-id=0")
    online = f"/sys/devices/system/cpu/cpu{cpus}/online"
    until(guest, f"test -e {online}")
    guest.sh(f"test $(cat {online}) = 1 || echo 1 >{online}; test $(nproc) = {cpus + 1}")
    guest.sh(f"taskset -c {cpus} sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1; taskset -cp $$' | "
             f"grep -q ': {cpus}$'")
    guest.sh(f"test $(awk '/LOC:/ {{ print ${cpus + 2} }}' /proc/interrupts) -gt 0")
    quiet(guest, "device_del new")
    until(guest, f"test ! -e {online}")
    guest.sh(f"test $(nproc) = {cpus}")


def monitor(words, machine, cpus, log, check):
    """words(folder, drive): QEMU's command."""
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "extra.img")
        with open(image, "wb") as f:
            f.truncate(4 << 20)
        command = words(folder, qcow2(folder))
        command[command.index("-smp") + 1] = f"{cpus},maxcpus={cpus + 1},sockets={cpus + 1},cores=1,threads=1"
        if machine == "q35":
            for i in (1, 2):
                command += ["-device", f"pcie-root-port,id=port{i},chassis={i},slot={i}"]
        with Debian(command, folder, "monitor", log) as guest:
            guest.login()
            hotplug_disk(guest, machine, image)
            hotplug_network(guest, machine)
            hotplug_cpu(guest, cpus)
            snapshots(guest)
            check(guest)
            guest.power_off()


# ---- the debugger --------------------------------------------------------------------------------------------------

SHELL = b"\x1b[6n"
NAME = "__x64_sys_sethostname"


def address(guest, symbol):
    guest.type(f"grep ' {symbol}$' /proc/kallsyms | sed 's/^/at:/;s/ .*/./'")
    guest.expect(b"\nat:")
    return int(guest.expect(b"."), 16)


def breakpoint_at(gdb, guest, where, kind, name):
    """Stops there; returns with the CPU there and the breakpoint gone."""
    code = gdb.memory(where, 16)
    gdb.done(f"Z{kind},{where:x},1")
    gdb.go()
    guest.type(f"hostname {name}; echo name''d $(hostname)")
    gdb.stop()
    same("RIP at the breakpoint", hex(gdb.register(RIP)), hex(where))
    gdb.done(f"z{kind},{where:x},1")
    same("code without the breakpoint", gdb.memory(where, 16), code)


def debugger(command, log):
    """command: QEMU's, of a guest with a shell."""
    with tempfile.TemporaryDirectory() as folder:
        stub = os.path.join(folder, "gdb")
        with Qemu([*command, "-chardev", f"socket,id=gdb,path={stub},server=on,wait=off", "-gdb", "chardev:gdb"], folder,
                  "monitor", log) as guest:
            guest.expect(SHELL)
            where = address(guest, NAME)
            gdb = Gdb(stub)
            for kind, name in ((0, "software"), (1, "hardware")):
                breakpoint_at(gdb, guest, where, kind, name)
                steps(gdb, where)
                watch(gdb)
                gdb.go()
                guest.expect(b"named " + name.encode())
                gdb.interrupt()
            gdb.command("D")
            gdb.close()
            guest.type("echo still $((40+2))")
            guest.expect(b"still 42")
            guest.type("poweroff -f")
            guest.drain(60)


def steps(gdb, where):
    """Eight instructions, each of which goes on, and none into an interrupt's handler."""
    seen = [where]
    for _ in range(8):
        seen.append(gdb.step())
    if len(set(seen)) < 9 or any(abs(a - b) > 1 << 28 for a, b in zip(seen, seen[1:])):
        raise Fail("single steps: " + " ".join(map(hex, seen)))


def watch(gdb):
    """A write watchpoint on the stack, which the next calls write."""
    slot = (gdb.register(RSP) - 8) & ~7
    gdb.done(f"Z2,{slot:x},8")
    gdb.go()
    said = gdb.stop()
    found = re.search(r"watch:([0-9a-f]+)", said)
    if not found or int(found[1], 16) & ~7 != slot:
        raise Fail(f"watchpoint at {slot:x}: {said}")
    gdb.done(f"z2,{slot:x},8")


# ---- live migration ------------------------------------------------------------------------------------------------

# Writes 24 MiB again and again, of fresh noise each round, and checks what it wrote.
LOAD = ("fill() { for k in $(seq 24); do cat /tmp/base; done; }; "
        "(i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); head -c 1048576 /dev/urandom >/tmp/base; fill >/tmp/load; "
        "[ $(fill | md5sum | cut -c1-32) = $(md5sum </tmp/load | cut -c1-32) ] && echo $i >/tmp/round || echo >/tmp/bad; "
        "done; echo $i >/tmp/last) & echo load''ed")


def migration(command, log):
    """A guest that writes its memory moves to another QEMU while it runs, and its data is whole there."""
    with tempfile.TemporaryDirectory() as folder:
        address = os.path.join(folder, "stream")
        with Qemu(command, folder, "from", log) as source, \
                Qemu([*command, "-incoming", f"unix:{address}"], folder, "to", log) as target:
            source.expect(SHELL)
            source.type(LOAD)
            source.expect(b"\nloaded")
            source.type("while ! grep -qs . /tmp/round; do sleep 0.1; done; echo first''round")
            source.expect(b"\nfirstround", 120)
            target.wait_for("info status", "inmigrate")
            for line in ("migrate_set_parameter max-bandwidth 400M", "migrate_set_parameter downtime-limit 2000"):
                quiet(source, line)
            source.command(f"migrate -d unix:{address}")
            source.wait_for("info migrate", "Migration status: completed", 120)
            said = source.command("info migrate")
            target.wait_for("info status", "running")
            source.process.kill()
            target.type("")
            target.type("r=$(cat /tmp/round); while [ $(cat /tmp/round) -lt $((r+2)) ]; do sleep 0.1; done; touch /tmp/stop; "
                        "wait; ls /tmp/bad; echo moved $(($(cat /tmp/last)-r))")
            before = target.expect(b"\nmoved ", 180)
            if b"No such file" not in before:
                raise Fail("the guest's data is not whole")
            target.type("poweroff -f")
            target.drain(60)
            rounds = re.search(r"dirty sync count: (\d+)", said)
            return f"{rounds[1] if rounds else '?'} rounds of the dirty log"
