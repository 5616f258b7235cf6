"""The workloads: a row each, in the order in which they run and are printed. docs/benchmarks.md describes them."""
import collections

# command: of the shell in the root; None: `work run NAME`, a workload of bench/work/.
Workload = collections.namedtuple("Workload", "name group command")

INTEGER, FLOAT, MEMORY, SYSTEM, PROGRAMS = "integer", "floating point", "memory", "system", "programs"
PARALLEL = "two CPUs"
DATA, DATA_SIZE = "/bench/data", 4 << 20       # text
COMPILE = "gcc -O2 -c -I/bench/work"

WORKLOADS = [
    *(Workload(name, INTEGER, None) for name in
      ("sieve", "quicksort", "sha256-c", "bytecode", "recursion", "chase-cache", "chase-memory")),
    *(Workload(name, FLOAT, None) for name in ("double", "vector", "x87")),
    *(Workload(name, MEMORY, None) for name in ("memcpy", "faults", "mmap")),
    *(Workload(name, SYSTEM, None) for name in ("syscalls", "pipe", "fork", "fork+exec")),
    Workload("gzip", PROGRAMS, f"head -c 700000 {DATA} | gzip -c -6 -n"),
    Workload("xz", PROGRAMS, f"head -c 250000 {DATA} | xz -c -6"),
    Workload("openssl-sha256", PROGRAMS, "openssl dgst -sha256 -r" + f" {DATA}" * 32),
    Workload("openssl-aes", PROGRAMS, "for i in 1 2 3 4 5 6; do openssl enc -aes-256-cbc -bufsize 1048576"
             f" -K {'5a' * 32} -iv {'a5' * 16} -in {DATA}; done"),
    Workload("openssl-rsa2048", PROGRAMS, None),
    Workload("sqlite", PROGRAMS, "sqlite3 :memory: </bench/programs/sqlite.sql"),
    Workload("python", PROGRAMS, "python3 -S -E /bench/programs/python.py"),
    Workload("perl", PROGRAMS, "perl /bench/programs/perl.pl"),
    Workload("gcc", PROGRAMS, f"{COMPILE} -o /tmp/object /bench/work/integer.c && cat /tmp/object"),
    Workload("shell", PROGRAMS, "sh /bench/programs/small.sh"),
    Workload("sort", PROGRAMS, f"head -c 2000000 {DATA} | tr ' ' '\\n' | sort"),
]

# Each runs in a machine with one CPU and in one with two.
PARALLEL_WORKLOADS = [
    Workload("parallel-compile", PARALLEL, "cd /tmp && printf '%s\\n' integer float memory system main rsa float main |"
             f" xargs -P $(nproc) -I N sh -c '{COMPILE} -o /tmp/N.$$.o /bench/work/N.c && rm /tmp/N.$$.o'"),
    Workload("threads", PARALLEL, None),
]

OPENSSL = ("openssl-sha256", "openssl-aes", "openssl-rsa2048")
PROCESSES = ("fork+exec", "gcc", "shell")


def names(workloads):
    return [w.name for w in workloads]


def group(*groups):
    return [w.name for w in WORKLOADS if w.group in groups]


def needs_programs(chosen):
    """Whether any of the names is more than the benchmark's own program."""
    return any(w.command or w.name in OPENSSL for w in [*WORKLOADS, *PARALLEL_WORKLOADS] if w.name in chosen)


def script():
    """The shell's list of them: NAME COMMAND on each line."""
    return "".join(f"{w.name} {w.command or ''}\n" for w in [*WORKLOADS, *PARALLEL_WORKLOADS])
