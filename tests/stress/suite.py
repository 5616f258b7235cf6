"""Linux under load: with more CPUs than the host has, it forks, execs, signals, faults, writes code and runs it,
and checks each result. And Debian's kernels booted again and again with two CPUs.

By hand, longer than in CI:
    QUMRA_STRESS_SECONDS=600 tests/run --no-asan stress/linux
    QUMRA_BOOTS=50 tests/run --no-asan stress/boots
"""
import importlib.util
import os
import re
import subprocess

from harness import GUEST_FILES, ROOT, Fail, Test, need_qumra, run_process, script_output

HERE = os.path.join(ROOT, "tests", "stress")
SECONDS = int(os.environ.get("QUMRA_STRESS_SECONDS", "0"))
BOOTS = int(os.environ.get("QUMRA_BOOTS", "2"))
# Beside the default engine's 20 seconds.
SHORT = 8

spec = importlib.util.spec_from_file_location("boot_suite", os.path.join(ROOT, "tests", "boot", "suite.py"))
boot_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(boot_suite)


def built(log):
    """The initramfs, and what a right CPU computes."""
    program, initrd = os.path.join(GUEST_FILES, "stress"), os.path.join(GUEST_FILES, "stress.cpio")
    os.makedirs(GUEST_FILES, exist_ok=True)
    with boot_suite.fetch_lock:
        newest = max(os.path.getmtime(os.path.join(HERE, f)) for f in os.listdir(HERE))
        if not os.path.exists(initrd) or os.path.getmtime(initrd) < newest:
            if subprocess.run([os.path.join(HERE, "build-stress"), program], stdout=log, stderr=log,
                              check=False).returncode:
                raise Fail("does not build")
            script_output("scripts/make-initramfs", initrd, script_output("scripts/fetch-busybox", "amd64"), program)
    return initrd, script_output(program, "reference")


def judge(r, limit):
    text = r.out.decode(errors="replace").replace("\r", "")
    wrong = re.findall(r"^WRONG .*", text, re.M) + re.findall(r"^CHECK BAD .*", text, re.M)
    if wrong:
        raise Fail(f"{len(wrong)}, first: {wrong[0][:160]}")
    if r.timed_out:
        last = text.strip().splitlines()[-1:] or ["nothing printed"]
        raise Fail(f"no end within {limit:.0f} s; last: {last[0][:120]}")
    if r.status or "STRESS DONE" not in text:
        raise Fail(f"status {r.status}, {'' if 'STRESS DONE' in text else 'not '}done")
    known = boot_suite.known()
    lines = [line for line in text.splitlines() if boot_suite.BAD.search(line) and not any(k.search(line) for k in known)]
    # Programs that fault on purpose are named by the kernel now and then.
    lines = [line for line in lines if not re.search(r"stress\[\d+\]", line)]
    if lines:
        raise Fail(f"{len(lines)} lines of dmesg, first: {lines[0].strip()[:160]}")
    rounds = sum(int(n) for n in re.findall(r"^CHECK ok \S+ (\d+) rounds", text, re.M))
    return f"{rounds} rounds"


def linux(build, cpus, seconds, log):
    need_qumra(build)
    kernel, _ = boot_suite.files("cloud-amd64")
    initrd, reference = built(log)
    limit = (180 + 5 * seconds) * build.slow
    append = f"console=ttyS0 panic=-1 cpus={cpus} seconds={seconds} reference={reference}"
    r = run_process([*build.run, "--cpus", str(cpus), "--kernel", kernel, "--initrd", initrd, "--memory", "384M",
                     "--serial", "stdio", "--append", append], limit, log)
    return judge(r, limit)


def boots(build, name, cpus, log):
    """As the boot suite judges each of them."""
    for n in range(BOOTS):
        try:
            remark = boot_suite.on_qumra(build, name, log, cpus)
        except Fail as e:
            raise Fail(f"boot {n + 1} of {BOOTS}: {e}") from None
    return f"{BOOTS} times, the last: {remark}"


def tests(build):
    for k, b in enumerate(build.variants()):
        if b.name and k:    # the instrumented interpreter does not get each worker through one round in minutes
            continue
        seconds = SECONDS or (20 if k == 0 and not b.name else SHORT)
        yield Test(b.test("stress/linux"), lambda log, b=b, s=seconds: linux(b, 4, s, log), cost=(60 + seconds) * b.slow)
        if b.name or k:
            continue
        for name in boot_suite.KERNELS:
            yield Test(b.test(f"stress/boots-{name}"), lambda log, b=b, n=name: boots(b, n, 2, log), cost=100)
