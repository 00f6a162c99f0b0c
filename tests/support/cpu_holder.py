"""Holds CPUs of a Ray until it dies, and says so: `python -m tests.support.cpu_holder HOST:PORT NUM_CPUS`."""

import sys

import ray


class Hog:
    def is_there(self) -> bool:
        return True


if __name__ == "__main__":
    ray.init(sys.argv[1], log_to_driver=False, logging_level="error")
    hog = ray.remote(num_cpus=float(sys.argv[2]))(Hog).remote()
    assert ray.get(hog.is_there.remote())
    print("held", flush=True)
    sys.stdin.read()
