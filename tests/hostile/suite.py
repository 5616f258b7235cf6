"""Guests that attack the hypervisor, on each CPU engine; docs/threat-model.md says what must hold.

By hand, for as long as you like:
    QUMRA_ENGINE=dbt build/tests/hostile/hostile --seconds 600 --cpus 2 fuzz
"""
import os
import subprocess
import threading

from harness import ROOT, Fail, Missing, Skip, Test, environment, run_process

HERE = os.path.join(ROOT, "tests", "hostile", "guests")
BUILD_GUEST = os.path.join(ROOT, "tests", "guest", "build-guest")
OUT = os.path.join(ROOT, "build", "hostile-guests")
ENGINES = ("interp", "dbt")
SEED = 1
# Guest, bits, options of the host.
GUESTS = (
    ("jumps", 64, ()),
    ("alias", 64, ()),
    ("stale", 64, ()),
    ("stack", 64, ()),
    ("implicit", 64, ()),
    ("poison", 64, ()),
    ("tables", 64, ()),
    ("compat", 64, ()),
    ("sweep", 64, ()),
    ("limits", 32, ()),
    ("race", 64, ("--seconds", "2", "--cpus", "4")),
    ("shootdown", 64, ("--seconds", "1", "--cpus", "2")),
)
LOOPS = 11      # of kick.c
FUZZ = (
    ("fuzz", ("--seconds", "6")),
    ("fuzz-closed", ("--seconds", "3", "--closed")),
    ("fuzz-smp", ("--seconds", "4", "--cpus", "2")),
)
build_lock = threading.Lock()


def sources_time(name):
    lib = os.path.join(ROOT, "tests", "guest", "lib")
    files = [os.path.join(folder, f) for folder in (lib, HERE) for f in os.listdir(folder)
             if folder == lib or f.endswith(".h") or f == name + ".c"]
    return max(os.path.getmtime(f) for f in files + [BUILD_GUEST])


def built(name, bits, log):
    path = os.path.join(OUT, f"{name}-{bits}.elf")
    with build_lock:
        os.makedirs(OUT, exist_ok=True)
        if os.path.exists(path) and os.path.getmtime(path) > sources_time(name):
            return path
        done = subprocess.run([BUILD_GUEST, path, str(bits), os.path.join(HERE, name + ".c")],
                              stdout=log, stderr=log, check=False)
    if done.returncode:
        raise Fail("does not build")
    return path


def run(build, engine, words, log):
    host = os.path.join(build.path, "tests", "hostile", "hostile")
    if not os.path.exists(host):
        raise Missing("not built: cmocka or Zydis is missing")
    r = run_process([host, *words], 90 * build.slow, log, env=environment(QUMRA_ENGINE=engine))
    if r.status == 77:
        raise Skip("no such engine")
    if r.timed_out:
        raise Fail("no end")
    text = (r.out + r.err).decode(errors="replace")
    bad = [line for line in text.splitlines() if line.startswith("FAIL")]
    if r.status or bad:
        raise Fail(bad[0][:200] if bad else f"status {r.status}")
    return text.splitlines()[-1][:120] if text else None


def guest(build, engine, name, bits, options, log):
    path = built(name, bits, log)
    run(build, engine, ["--closed", *options, "guest", path], log)
    return run(build, engine, [*options, "guest", path], log)


def kick(build, engine, log):
    path, bad = built("kick", 32, log), []
    for seed in range(1, LOOPS + 1):
        try:
            run(build, engine, ["--seed", str(seed), "--endless", "--seconds", "0", "guest", path], log)
        except Fail as e:
            bad.append(f"loop {seed}: {e}")
    if bad:
        raise Fail(f"{len(bad)} of {LOOPS}, first: {bad[0]}")
    return f"{LOOPS} loops"


def tests(build):
    yield Test(build.test("hostile/selftest"),
               lambda log: run(build, "interp", ["selftest"], log), cost=1)
    for e in ENGINES:
        for name, bits, options in GUESTS:
            yield Test(build.test(f"hostile/{name}-{bits}-{e}"),
                       lambda log, e=e, n=name, b=bits, o=options: guest(build, e, n, b, o, log), cost=3)
        yield Test(build.test(f"hostile/kick-32-{e}"), lambda log, e=e: kick(build, e, log), cost=3)
        for name, options in FUZZ:
            words = ["--seed", str(SEED), *options, "fuzz"]
            yield Test(build.test(f"hostile/{name}-{e}"),
                       lambda log, e=e, w=words: run(build, e, w, log), cost=8)
