"""The program that puts itself into a sandbox and then runs what nobody trusts.

A process of its own begins here for each program, and becomes three::

    outer    keeps the scorer's view of the system; waits, and takes all with it when it is killed
      init     process 1 of a PID namespace, in a root of its own: read-only but for a scratch in memory, no network
        inner    another user without any right, with limits; runs the role

Linux alone. With `isolation=limits` there are no namespaces, and outer runs inner by itself: other user, limits.
"""

import ctypes
import errno
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE, DETACH = 1, 2, 4, 32, 4096, 16384, 1 << 18, 2
KEPT_FLAGS = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""A mount's flag as `statvfs` has it -> as `mount` takes it: those that a mount may have to keep."""

PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
"""Number of the system call, which the C library has no name for."""

PDEATHSIG, NO_NEW_PRIVS, CAPABILITY_VERSION = 1, 38, 0x20080522

MOUNTED_OVER = "/proc"
"""Where the new root is built: a folder that every system has and that no file of ours is in."""

DEVICES = ("null", "zero", "urandom", "random")
FIRST_UID = 2_000_000_000
"""Each sandbox has a user of its own, above those of people, so that its processes alone are counted for it."""

NOBODY = 65_534
INSIDE_UID = 1000
MAX_OPEN_FILES = 64

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """`argv`: the specification, as `reward.programs.sandbox.Sandbox` writes it."""
    spec = json.loads(sys.argv[1])
    _die_with_parent(spec["parent"])
    role = _role(spec["role"])
    begin = _in_namespaces if spec["isolation"] == "namespaces" else _in_limits
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # Where memory is short, this is ended, not a run.
        begin(spec, lambda: _run(role, spec))
    except OSError as error:
        os.write(spec["status"], f"{error.filename or 'set-up'}: {error.strerror}".encode())
        os._exit(1)


def _role(name: str) -> Callable[[dict[str, Any]], None]:
    """What is to be done inside; all of its modules are imported before the sandbox is closed."""
    if name == "answers":
        from plumbob.reward.programs.inside.answer_program import serve

        return serve
    if name == "tests":
        from plumbob.reward.programs.inside.tester_program import run_tests

        return run_tests
    from plumbob.reward.programs.inside.script_program import run_script

    return run_script


def _run(role: Callable[[dict[str, Any]], None], spec: dict[str, Any]) -> None:
    """The role, as the last thing that this process does."""
    os.write(spec["status"], b"ready")
    os.close(spec["status"])
    sys.path[:] = [path for path in sys.path if path != spec["ours"]] + spec["packages"]
    sys.argv[:] = ["program"]
    status = 1
    try:
        role(spec)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            status = status or 1
        os._exit(status & 0xFF)


# ---------------------------------------------------------------------------------------------------- in namespaces


def _in_namespaces(spec: dict[str, Any], run: Callable[[], None]) -> None:
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    mounts = _mount_points()
    uid, gid = os.geteuid(), os.getegid()
    is_mapped = uid != 0 or not _unshared(flags)
    if is_mapped:
        _check(libc.unshare(flags | NEWUSER), "unshare")
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{INSIDE_UID} {uid} 1"),
            ("gid_map", f"{INSIDE_UID} {gid} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(content)
    outside = os.getpid()
    init = os.fork()
    if init:
        os.close(spec["status"])
        os._exit(_exit_status(os.waitpid(init, 0)[1]))
    _check(libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    _enter_root(spec, mounts)
    inner = os.fork()
    if inner == 0:
        # Of the same user in the same namespace of users are also outer and init.
        _limit(spec, spec["max_processes"] + (2 if is_mapped else 0))
        _drop_rights(None if is_mapped else FIRST_UID + outside % 1_000_000)
        run()
    os.close(spec["status"])
    while True:
        ended, status = os.wait()
        if ended == inner:
            os._exit(_exit_status(status))  # With process 1 end all others of the namespace.


def _unshared(flags: int) -> bool:
    """Whether root may do it; one without the right to, such as a container's, needs a namespace of users too."""
    if libc.unshare(flags) == 0:
        return True
    if ctypes.get_errno() == errno.EPERM:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")


def _enter_root(spec: dict[str, Any], mounts: list[str]) -> None:
    """A root of what `spec.readable` names, read-only, with a scratch of bounded size in memory as `/tmp`."""
    _mount(None, "/", None, REC | PRIVATE)
    _mount("tmpfs", MOUNTED_OVER, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    box = f"{MOUNTED_OVER}/box"
    Path(f"{box}/tmp").mkdir(parents=True)
    _mount("tmpfs", f"{box}/tmp", "tmpfs", NOSUID | NODEV, f"size={spec['scratch_bytes']},nr_inodes=1000,mode=1777")
    for path in spec["readable"]:
        _show(Path(path), Path(f"{box}{path}"), [point for point in mounts if point.startswith(f"{path}/")])
    Path(f"{box}/dev").mkdir()
    for name in DEVICES:
        Path(f"{box}/dev/{name}").touch()
        _mount(f"/dev/{name}", f"{box}/dev/{name}", None, BIND)
    Path(f"{MOUNTED_OVER}/old").mkdir()
    number = PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"not known on {os.uname().machine}", "pivot_root")
    _check(libc.syscall(number, MOUNTED_OVER.encode(), f"{MOUNTED_OVER}/old".encode()), "pivot_root")
    os.chdir("/")
    _check(libc.umount2(b"/old", DETACH), "umount")
    Path("/old").rmdir()
    _mount(None, "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    # In a root that is not the namespace's own, the kernel gives nobody a new namespace of users, and so no new rights.
    os.chroot("/box")
    os.chdir("/tmp")


def _show(path: Path, target: Path, below: list[str]) -> None:
    """A folder of outside, with what is mounted below it, to be read alone; a link within the system as a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not path.readlink().is_absolute():
        target.symlink_to(path.readlink())
        return
    target.mkdir(exist_ok=True)
    _mount(str(path), str(target), None, BIND | REC)
    for point in (target, *(Path(f"{target}{point.removeprefix(str(path))}") for point in below)):
        if point.is_dir():
            found = os.statvfs(point).f_flag
            kept = sum(flag for known, flag in KEPT_FLAGS.items() if found & known)
            _mount(None, str(point), None, REMOUNT | BIND | RDONLY | NOSUID | NODEV | kept)


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


# -------------------------------------------------------------------------------------------------- in limits alone


def _in_limits(spec: dict[str, Any], run: Callable[[], None]) -> None:
    """Without namespaces: another user where this is root, and no process beside its own, which nobody would end."""
    uid = FIRST_UID + os.getpid() % 1_000_000 if os.geteuid() == 0 else None
    if uid is not None:
        try:
            os.chown(spec["scratch"], uid, -1)
        except OSError:  # A container may have few users.
            uid = NOBODY
            os.chown(spec["scratch"], uid, -1)
    outer = os.getpid()
    inner = os.fork()
    if inner == 0:
        os.chdir(spec["scratch"])
        _limit(spec, 1)
        _drop_rights(uid)
        _die_with_parent(outer)
        run()
    os.close(spec["status"])
    os._exit(_exit_status(os.waitpid(inner, 0)[1]))


# ----------------------------------------------------------------------------------------------- limits and rights


def _limit(spec: dict[str, Any], max_processes: int) -> None:
    cpu_s = math.ceil(spec["cpu_s"])
    for kind, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, spec["memory_bytes"]),
        (resource.RLIMIT_FSIZE, spec["file_bytes"]),
        (resource.RLIMIT_NPROC, max_processes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _drop_rights(uid: int | None) -> None:
    """Become another user, where this is root; have no right that a user has not, nor get any."""
    if uid is not None:
        os.setgroups([])
        try:
            os.setresgid(uid, uid, uid)
        except OSError:  # A container may have few users.
            uid = NOBODY
            os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header, nothing = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _check(libc.capset(header, nothing), "capset")
    _check(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _die_with_parent(parent: int) -> None:
    _check(libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(result, f"mount {target.removeprefix(f'{MOUNTED_OVER}/box')}")


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), doing)
