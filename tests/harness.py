"""What the suites share: a test, its verdict, and running a process under a time limit."""
import functools
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from typing import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GUEST_FILES = os.path.join(ROOT, "build", "guest")
ENGINES = ("dbt", "interp")     # the first one that a build has is its default
SANITIZER_ENV = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=98",
    "LSAN_OPTIONS": "exitcode=99",
}
# With its colon: libFuzzer says what LeakSanitizer will do where it stops looking for leaks itself.
SANITIZER_WORDS = (b"AddressSanitizer", b"LeakSanitizer:", b"runtime error:")


class Skip(Exception):
    """Raised by a test that cannot run here; its text is the reason."""


class Missing(Skip):
    """What scripts/need installs, or Debian's mirror has, is not there: a failure in CI, where a guest must not stay out unseen."""


class Fail(Exception):
    """Raised by a test that failed; its text is the detail."""


@dataclass
class Build:
    """One build directory; the tests of both run the same suites."""
    name: str       # "" or "asan"
    path: str
    options: tuple
    slow: float     # how much longer things take
    engine: str = ""        # "": whatever the build takes by itself

    @property
    def qumra(self):
        return os.path.join(self.path, "qumra")

    @property
    def run(self):
        """The command that runs a guest on our hypervisor, without the guest."""
        return [self.qumra, "run", *(["--engine", self.engine] if self.engine else ["--accel", "soft"])]

    def test(self, name):
        """A test's name here: NAME[@ENGINE][@BUILD], the engine only where it is not the default."""
        if self.engine and self.engine != engines(self.qumra)[0]:
            name += f"@{self.engine}"
        return f"{name}@{self.name}" if self.name else name

    def variants(self):
        """This build with each of its engines; the default one first."""
        return [replace(self, engine=e) for e in engines(self.qumra)]


@functools.cache
def engines(qumra):
    """The engines that a program has; one that it lacks is a usage error."""
    def there(name):
        try:
            r = subprocess.run([qumra, "run", "--engine", name, "--kernel", "/nonexistent"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return b"--engine" not in r.stderr
    return [e for e in ENGINES if there(e)] or list(ENGINES[-1:])


BUILDS = (
    Build("", os.path.join(ROOT, "build"), (), 1),
    Build("asan", os.path.join(ROOT, "build-asan"), ("-Db_sanitize=address,undefined", "-Db_lundef=false"), 6),
)


@dataclass
class Test:
    """run(log) returns a remark or nothing, raises Skip or Fail. Alone: measures time, so runs by itself. Slow: waits for
    minutes and needs little of the CPUs; runs beside the others, where all tests are wanted or this one by its name."""
    name: str
    run: Callable
    alone: bool = False
    slow: bool = False
    cost: float = 1     # rough seconds; longer tests start first


@dataclass
class Result:
    status: int         # as the shell has it: 128 + signal when killed
    out: bytes
    err: bytes
    seconds: float
    timed_out: bool = False


def environment(**more):
    env = dict(os.environ)
    env.update(SANITIZER_ENV)
    env.update(more)
    return env


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_process(command, timeout, log=None, stdin=b"", env=None, cwd=None):
    """Runs a command in a process group of its own; kills all of it after timeout seconds."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=env or environment(), cwd=cwd, start_new_session=True)
    timed_out = False
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        kill_group(process)
        out, err = process.communicate()
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    result = Result(status, out, err, time.monotonic() - start, timed_out)
    if log:
        log.write(("$ " + " ".join(map(str, command)) + "\n").encode())
        log.write(out)
        if err:
            log.write(b"\n--- standard error\n" + err)
        log.write(f"\n--- status {status}{' (timed out)' if timed_out else ''}, {result.seconds:.1f} s\n".encode())
        log.flush()
    for word in SANITIZER_WORDS:
        if word in err or word in out:
            raise Fail(f"{word.decode().rstrip(':')} spoke")
    return result


def need_qumra(build):
    if not os.path.exists(build.qumra):
        raise Fail(f"{build.qumra} is not built")


def verdicts(path):
    """{name: (verdict, words, reason)} of a list of others' tests: NAME passes|skips|either|fails [WORD...][: REASON]"""
    rows = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            match = re.match(r"(\S+)\s+(passes|skips|either|fails)((?:\s+[^\s:]+)*?)(?::\s*(.*))?$", line)
            if match and not line.startswith("#"):
                rows[match[1]] = (match[2], match[3].split(), match[4] or "")
            elif line.strip() and not line.startswith("#"):
                raise Fail(f"{path}: {line.strip()}")
    return rows


def script_output(*command):
    """A helper script of ours: its output without the newline; its failure is the test's."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Fail(f"{command[0]}: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
    return done.stdout.decode().strip()
