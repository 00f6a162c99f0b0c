"""Folders at the top of the checkout are installed below one package: trainers/ is plumbob.trainers."""

from setuptools import find_packages, setup

# Each imports those before it and itself (tests/test_imports.py).
FOLDERS = (
    "core",
    "configs",
    "data",
    "models",
    "rollout",
    "reward",
    "trainers",
    "cluster",
    "driver",
    "verify",
    "console",
)
found = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])

setup(
    packages=["plumbob", *(f"plumbob.{name}" for name in found)],
    package_dir={f"plumbob.{folder}": folder for folder in FOLDERS},
)
