"""Tables of what was measured: times, ratios, geometric means, and the goals beside them; the same as JSON."""
import collections
import json
import math
import statistics

import bochs
import workloads
from machine import Qemu, Qumra, Softkvm
from suite import Native, label

NATIVE, OURS, THEIRS, CLIENT = Native.name, Qumra.name, Qemu.name, Softkvm.name

# Rows of the second table. faster: how many times faster than TCG; slower: how many times native's time.
Summary = collections.namedtuple("Summary", "name workloads faster slower")
SUMMARIES = [
    Summary("all single-CPU workloads", workloads.names(workloads.WORKLOADS), 5, None),
    Summary("integer", workloads.group(workloads.INTEGER), 2.5, 2.2),
    Summary("floating point, openssl", workloads.group(workloads.FLOAT) + list(workloads.OPENSSL), 10, 1.6),
    Summary("memory, system", workloads.group(workloads.MEMORY, workloads.SYSTEM), None, None),
    Summary("fork+exec, shell, gcc", list(workloads.PROCESSES), 4, None),
]
BOOT_GOAL, SCALING_GOAL, BEYOND_GOAL, CLIENT_GOAL = 0.6, 1.7, 96, 4.5


def number(x, unit=""):
    if x is None:
        return ""
    text = f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"
    return f"{text} {unit}".rstrip()


def ratio(a, b):
    return a / b if a is not None and b else None


def times(x):
    return "" if x is None else f"{x:.0f} ×" if x >= 100 else f"{x:.3g} ×"


def median(values):
    return statistics.median(values) if values else None


def mean(values):
    """Geometric; None if there is nothing, or a part is missing."""
    values = list(values)
    if not values or None in values:
        return None
    return math.exp(sum(map(math.log, values)) / len(values))


def verdict(met):
    return "" if met is None else "met" if met else "missed"


def table(head, rows):
    rows = [head, *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for i, r in enumerate(rows):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(r, widths)) + " |")
        if not i:
            print("|-" + "-|-".join("-" * w for w in widths) + "-|")
    print()


class Report:
    def __init__(self, results, boots, figures, wanted):
        self.results, self.boots, self.figures, self.wanted = results, boots, figures, wanted

    def seconds(self, machine, name, cpus=1):
        return median(self.results.times[label(machine, cpus)][name])

    def spread(self, name):
        """How far the slowest and the fastest round of our machine lie apart, as a part of the median."""
        values = self.results.times[OURS][name]
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None

    def row(self, group, name, cpus=1):
        native, ours, theirs = (self.seconds(m, name, cpus) for m in (NATIVE, OURS, THEIRS))
        ms = [number(x and x * 1000) for x in (native, ours, theirs)]
        spread = self.spread(name) if cpus == 1 else None
        return (group, label(name, cpus), *ms, times(ratio(ours, native)), times(ratio(theirs, native)),
                times(ratio(theirs, ours)), "" if spread is None else f"{spread * 100:.0f} %")

    def suite(self):
        rows, last = [], None
        for w in workloads.WORKLOADS:
            if w.name in self.wanted:
                rows.append(self.row(w.group if w.group != last else "", w.name))
                last = w.group
        for w in workloads.PARALLEL_WORKLOADS:
            for cpus in (1, 2):
                if w.name in self.wanted:
                    rows.append(self.row(w.group if w.group != last else "", w.name, cpus))
                    last = w.group
        if rows:
            table(("group", "workload", "native ms", "Qumra ms", "TCG ms", "Qumra / native", "TCG / native",
                   "TCG / Qumra", "spread"), rows)

    def summary(self, s):
        ours = {n: self.seconds(OURS, n) for n in s.workloads}
        faster = mean(ratio(self.seconds(THEIRS, n), ours[n]) for n in s.workloads)
        slower = mean(ratio(ours[n], self.seconds(NATIVE, n)) for n in s.workloads)
        tcg = mean(ratio(self.seconds(THEIRS, n), self.seconds(NATIVE, n)) for n in s.workloads)
        goals, met = [], []
        if s.faster:
            goals.append(f"{s.faster} × faster than TCG")
            met.append(faster and faster >= s.faster)
        if s.slower:
            goals.append(f"at most {s.slower} × native")
            met.append(slower and slower <= s.slower)
        met = None if None in met or not met else all(met)
        return (s.name, times(slower), times(tcg), times(faster), ", ".join(goals), verdict(met))

    def slower_than_tcg(self):
        slow = [n for n in workloads.names(workloads.WORKLOADS)
                if (ratio(self.seconds(THEIRS, n), self.seconds(OURS, n)) or 1) < 1]
        if self.seconds(OURS, "sieve") and self.seconds(THEIRS, "sieve"):
            print("Slower than TCG: " + (", ".join(slow) or "none") + " (goal: none)\n")

    def summaries(self):
        rows = [self.summary(s) for s in SUMMARIES if set(s.workloads) <= self.wanted]
        if rows:
            table(("geometric mean", "Qumra / native", "TCG / native", "TCG / Qumra", "goal", ""), rows)
            self.slower_than_tcg()

    def client_row(self, name, ours, client, theirs):
        faster = ratio(theirs, client)
        return (name, *(number(x and x * 1000) for x in (ours, client, theirs)), times(ratio(client, ours)), times(faster))

    def client_mean(self, names):
        """The goal stands beside the mean over all of them only."""
        client = {n: self.seconds(CLIENT, n) for n in names}
        faster = mean(ratio(self.seconds(THEIRS, n), client[n]) for n in names)
        goal = names == SUMMARIES[0].workloads
        end = f" (goal: {CLIENT_GOAL} ×{', ' * bool(faster)}{verdict(faster and faster >= CLIENT_GOAL)})" if goal else ""
        return ("geometric mean", "", "", "", times(mean(ratio(client[n], self.seconds(OURS, n)) for n in names)),
                times(faster) + end)

    def client(self):
        """QEMU as a KVM program on our hypervisor."""
        names = [w.name for w in workloads.WORKLOADS if w.name in self.wanted and self.seconds(CLIENT, w.name)]
        rows = [self.client_row(n, *(self.seconds(m, n) for m in (OURS, CLIENT, THEIRS))) for n in names]
        if rows:
            rows.append(self.client_mean(names))
        for name, by_machine in (("boot to init", self.boots.init), ("boot to power-off", self.boots.off)):
            if by_machine[CLIENT]:
                rows.append(self.client_row(name, *(median(by_machine[m]) for m in (OURS, CLIENT, THEIRS))))
        if rows:
            table(("QEMU on softkvm", "Qumra ms", "softkvm ms", "TCG ms", "softkvm / Qumra", "TCG / softkvm"), rows)

    def boot_rows(self):
        for name, by_machine in (("start to init", self.boots.init), ("start to power-off", self.boots.off)):
            ours, theirs, third = (median(by_machine[m]) for m in (OURS, THEIRS, bochs.NAME))
            part = ratio(ours, theirs)
            goal = f"at most {BOOT_GOAL} of TCG" if name == "start to init" else ""
            yield (f"Debian cloud kernel, {name}", number(ours, "s"), number(theirs, "s"), number(third, "s"),
                   "" if part is None else f"{part:.2f}", goal, verdict(part and part <= BOOT_GOAL) if goal else "")

    def scaling_row(self):
        def gain(machine):
            return ratio(self.seconds(machine, "parallel-compile"), self.seconds(machine, "parallel-compile", 2))
        ours = gain(OURS)
        return ("two CPUs against one, parallel compile", times(ours), times(gain(THEIRS)), "",
                f"native {times(gain(NATIVE))}", f"at least {SCALING_GOAL} ×", verdict(ours and ours >= SCALING_GOAL))

    def beyond_row(self):
        ours, theirs = (median(self.results.beyond[m]) for m in (OURS, THEIRS))
        return ("memory beyond guest RAM, after the suite", number(ours, "MiB"), number(theirs, "MiB"), "", "",
                f"at most {BEYOND_GOAL} MiB", verdict(ours and ours <= BEYOND_GOAL))

    def start_rows(self):
        for what, name, unit in (
                ("integer", "integer loop, instructions a second", "M/s"), ("memory", "loads, stores, calls", "M/s"),
                ("branches", "branches", "M/s"), ("instruction", "start to first guest instruction", "ms"),
                ("output", "start to first output of a small guest", "ms"),
                ("idle", "idle Linux, share of a core", "%")):
            ours, theirs = (self.figures.get(m, {}).get(what) for m in (OURS, THEIRS))
            yield (name, number(ours, unit), number(theirs, unit), "", times(ratio(ours, theirs)), "", "")
        ours, theirs = (median(self.boots.beyond[m]) for m in (OURS, THEIRS))
        if ours:
            yield ("memory beyond guest RAM, at init", number(ours, "MiB"), number(theirs, "MiB"), "",
                   times(ratio(ours, theirs)), "", "")

    def machines(self):
        rows = []
        if any(self.boots.init.values()):
            rows += self.boot_rows()
        if "parallel-compile" in self.wanted:
            rows.append(self.scaling_row())
        if self.results.beyond:
            rows.append(self.beyond_row())
        if self.figures:
            rows += self.start_rows()
        if rows:
            table(("the machine", "Qumra", "TCG", "Bochs", "Qumra / TCG", "goal", ""), rows)

    def print(self):
        self.suite()
        self.summaries()
        self.client()
        self.machines()
        for note in self.results.notes:
            print(f"Note: {note}.")

    def json(self, about):
        return json.dumps({
            **about, "notes": self.results.notes, "seconds": self.results.times, "memory_beyond": self.results.beyond,
            "boot_to_init": self.boots.init, "boot_to_off": self.boots.off, "start": self.figures,
        }, indent=1, ensure_ascii=False)
