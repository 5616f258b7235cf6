"""Runs the suite on a machine and collects what it prints: nanoseconds by the machine's clock, compared with ours."""
import collections
import os
import re

import root
from machine import CONSOLE, Ended, Guest, Process, progress

MEMORY = 1024
LINE = re.compile(r"BENCH (begin|end|sum|failed|done|cpus) ?(\S*)(?: ([0-9a-f]+))?(?: ([0-9]+))?")


class Native:
    """No machine: the suite in a chroot of the host, bound to as many CPUs."""
    name = "native"

    def start(self, names, cpus):
        allowed = ",".join(str(c) for c in sorted(os.sched_getaffinity(0))[-cpus:])
        return Process(root.unshare("bench/native.sh", root.TREE, allowed), env={**os.environ, "bench": ",".join(names)})

    def memory(self, _):
        return None

    @staticmethod
    def cpu(_):
        """The guest's own figure counts."""
        return None


class Virtual:
    """A virtual machine that boots the root."""

    def __init__(self, machine, kernel):
        self.machine, self.kernel = machine, kernel
        self.name = machine.name

    def start(self, names, cpus):
        append = f"{CONSOLE} quiet panic=-1 bench={','.join(names)}"
        return Process(self.machine.command(Guest(self.kernel, root.initrd(names), MEMORY, cpus, append)))

    def memory(self, process):
        return process.memory_beyond(MEMORY)

    @staticmethod
    def cpu(process):
        return process.cpu()


class Results:
    """What was measured, by machine and workload, and what is to be said about it."""

    def __init__(self, cpu_time=False):
        self.cpu_time = cpu_time
        self.times = collections.defaultdict(lambda: collections.defaultdict(list))
        self.sums = collections.defaultdict(lambda: collections.defaultdict(set))
        self.beyond = collections.defaultdict(list)
        self.notes = []

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def add(self, where, name, inside, outside, cpu):
        """Seconds by the machine's clock, by ours, and of the host's CPU."""
        if self.cpu_time:
            inside = cpu
        elif abs(inside - outside) > 0.05 + 0.1 * outside:
            self.note(f"{where}: {name} took {inside:.3f} s by the guest's clock and {outside:.3f} s by the host's; "
                      "the host's counts")
            inside = outside
        self.times[where][name].append(inside)
        progress(f"  {where}: {name} {inside * 1000:.0f} ms")

    def check(self):
        """All machines must have computed the same."""
        for name in sorted({n for sums in self.sums.values() for n in sums}):
            if len(set().union(*(sums[name] for sums in self.sums.values()))) > 1:
                self.note(f"{name}: results differ: " + ", ".join(
                    f"{where} {'/'.join(sorted(sums[name]))}" for where, sums in self.sums.items() if sums[name]))


class Pass:
    """One pass over some workloads in one machine: what each of its lines means."""

    def __init__(self, place, cpus, results):
        self.place, self.cpus, self.results = place, cpus, results
        self.where = label(place.name, cpus)
        self.begin = {}

    def end(self, now, process, name, ns, cpu_ns):
        begin, cpu_begin = self.begin[name]
        cpu = int(cpu_ns) / 1e9 if cpu_begin is None else self.place.cpu(process) - cpu_begin
        self.results.add(self.where, name, int(ns) / 1e9, now - begin, cpu)

    def line(self, now, process, kind, name, value, more):
        if kind == "begin":
            self.begin[name] = now, self.place.cpu(process)
        elif kind == "end":
            self.end(now, process, name, value, more)
        elif kind == "sum":
            self.results.sums[self.where][name].add(value)
        elif kind == "failed":
            self.results.note(f"{self.where}: {name} failed")
        elif kind == "cpus" and int(name) != self.cpus:
            self.results.note(f"{self.where}: the machine shows {name} CPUs, not {self.cpus}")


def label(name, cpus):
    return name + (f" ×{cpus}" if cpus > 1 else "")


def run(place, names, results, cpus=1):
    """One pass over the named workloads. With two CPUs the times go to the machine's name with "×2"."""
    one = Pass(place, cpus, results)
    with place.start(names, cpus) as process:
        for now, text in process.lines():
            found = LINE.search(text)
            if found and found[1] == "done":
                beyond = place.memory(process)
                if beyond is not None:
                    results.beyond[one.where].append(beyond)
                return
            if found:
                one.line(now, process, *found.groups())
        raise Ended(f"{one.where}: ended before the suite did")
