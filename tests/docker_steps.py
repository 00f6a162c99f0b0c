"""The steps of a Dockerfile without Docker, in a Debian of their own, and what the image is for (`make docker-steps`).

Debian's smallest and this Python stand where the image has `python:3.11-slim-bookworm`. From there on every line of the
file is taken: packages, variables, copied files, commands, users. Needs root and debootstrap.
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

DEBIAN = "bookworm"
BASE = f"python:3.11-slim-{DEBIAN}"
BASE_PACKAGES = (
    "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,"
    "netbase,tzdata,zlib1g"
)
"""What Python's own image has beside Debian's smallest: what Python links to."""

OF_THE_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
"""What Docker gives a build of the machine that it runs on, and the certificates that this machine trusts."""

BUILD_VARIABLES = ("HTTPS_PROXY", "NO_PROXY", "PIP_CERT", "PIP_INDEX_URL", "SSL_CERT_FILE", "UV_DEFAULT_INDEX")
"""Those of this machine that say by which way packages come, as Docker's `--build-arg` gives them to a build."""

CHECKS = (
    "plumbob --help",
    "plumbob --version",
    "plumbob plan toy",
    "python -c 'import bitsandbytes, deepspeed, peft, ray, torch, vllm'",
)
"""What is run in an image once it is made, by its user and in its folder."""

DOCTOR = "plumbob doctor --json >/tmp/doctor.json || test -s /tmp/doctor.json"
WITHOUT_GPU = {"cpu.Dockerfile": set[str](), "gpu.Dockerfile": {"vllm works"}}
"""What the doctor may find wrong on a machine that has no GPU."""


class Image:
    """A folder that becomes what the image would be: its root, its environment, its user and where it works."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._variables = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        self._variables |= {name: os.environ[name] for name in BUILD_VARIABLES if name in os.environ}
        self._user, self._folder = "0:0", "/"

    def begin(self) -> None:
        """Debian's smallest, and this Python where the image has its own."""
        run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", DEBIAN, str(self.root)])
        left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__")
        for part in ("bin", "include", "lib"):
            source, target = Path(sys.base_prefix) / part, self.root / "usr/local" / part
            shutil.copytree(source, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        for name in OF_THE_NETWORK:
            shutil.copy(name, f"{self.root}{name}")
        memory = self.root / "dev/shm"
        memory.mkdir(exist_ok=True)
        memory.chmod(0o1777)
        self.run("ldconfig && python3.11 -m ensurepip --upgrade")

    def take(self, kind: str, value: str, ignored: Sequence[str]) -> None:
        """One line of a Dockerfile. ValueError for one that this does not know."""
        match kind:
            case "FROM" if value == BASE:
                self.begin()
            case "ENV":
                pairs = (pair.partition("=") for pair in value.split())
                self._variables |= {name: given.replace("$PATH", self._variables["PATH"]) for name, _, given in pairs}
            case "WORKDIR":
                self._folder = value
                self.inside(value).mkdir(parents=True, exist_ok=True)
            case "COPY" if value == ". .":
                self._copy(ignored)
            case "RUN":
                self.run(value)
            case "USER":
                self._user = value
            case "ENTRYPOINT" | "CMD":
                pass  # They begin nothing while an image is made.
            case _:
                raise ValueError(f"{kind} {value}: no step that is known here")

    def inside(self, path: str) -> Path:
        """Where a path of the image stands on this machine."""
        return self.root / path.lstrip("/")

    def _copy(self, ignored: Sequence[str]) -> None:
        """What git knows of, but for what the Dockerfile's own list leaves out."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if not any(fnmatch.fnmatch(name.partition("/")[0], pattern) for pattern in ignored):
                target = self.inside(f"{self._folder}/{name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)

    def run(self, command: str) -> None:
        """In the image, without this machine's environment, processes and files. CalledProcessError where it fails."""
        print(f"[{self._user} {self._folder}] {command}", flush=True)
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc"]
        changed = ["chroot", f"--userspec={self._user}", str(self.root), "/usr/bin/env", "-i"]
        pairs = [f"{name}={value}" for name, value in self._variables.items()]
        run([*alone, *changed, *pairs, "/bin/sh", "-c", f"cd {self._folder} && {command}"])


def run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def make(image: Image, dockerfile: str) -> None:
    """Take every line of the file."""
    ignored = (ROOT / "docker" / f"{dockerfile}.dockerignore").read_text(encoding="utf-8").split()
    for line in (ROOT / "docker" / dockerfile).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, _, value = line.partition(" ")
            image.take(kind, value, ignored)


def problems_in(found: dict[str, Any]) -> dict[str, str]:
    """Check of the doctor's -> what is wrong."""
    return {check["name"]: check["found"] for check in found["checks"] if not check["ok"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dockerfile", choices=sorted(WITHOUT_GPU))
    parser.add_argument("root", type=Path, help="an empty folder, or one to be made; it is left there")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("needs root, for debootstrap and chroot")
    options.root.mkdir(parents=True, exist_ok=True)
    image = Image(options.root.resolve())
    make(image, options.dockerfile)
    for command in (*CHECKS, DOCTOR):
        image.run(command)
    problems = problems_in(json.loads(image.inside("/tmp/doctor.json").read_text(encoding="utf-8")))
    print(f"{options.dockerfile}: every step, and {len(CHECKS)} commands; what the doctor finds wrong: {problems}")
    sys.exit(bool(problems.keys() - WITHOUT_GPU[options.dockerfile]))


if __name__ == "__main__":
    main()
