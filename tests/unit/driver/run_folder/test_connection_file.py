"""What a run's folder tells of the Ray that it is on."""

import os
import stat
from pathlib import Path

import pytest
import ray

from plumbob.configs.settings.workers import ClusterSettings
from plumbob.driver.run_folder.connection_file import ConnectionFile, read_connection_file
from plumbob.driver.run_folder.folder import CLUSTER_FILE

pytestmark = pytest.mark.usefixtures("one_cpu")


def test_a_folder_says_how_to_reach_its_run_while_it_runs(tmp_path: Path) -> None:
    assert read_connection_file(tmp_path) is None
    with ConnectionFile(tmp_path, "one", ClusterSettings()):
        reach = read_connection_file(tmp_path)
        assert reach is not None
        assert (reach.name, reach.token) == ("one", os.environ["RAY_AUTH_TOKEN"])
        assert reach.address == ray.get_runtime_context().gcs_address
        # It holds the token of a private Ray cluster.
        assert stat.S_IMODE((tmp_path / CLUSTER_FILE).stat().st_mode) == 0o600
    assert read_connection_file(tmp_path) is None
    with ConnectionFile(tmp_path, "one", ClusterSettings(address="auto")):
        reach = read_connection_file(tmp_path)
        assert reach is not None and reach.token is None
