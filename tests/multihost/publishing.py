"""`plumbob` that samples when every rollout worker has the new version: `python -m tests.multihost.publishing COMMAND`.

So the seconds that a run counts for publishing end with the last worker's proof. In `plumbob` they end with the first:
who has the version begins to sample, whoever else is still at it.
"""

import sys

from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.console.cli import main
from plumbob.models.adapter import Adapter

load = SamplerGroup.load


def load_everywhere(samplers: SamplerGroup, adapter: Adapter) -> None:
    """Workers that are still booting take part in a later publish."""
    load(samplers, adapter)
    pool = samplers._pool
    with pool.membership.work_lock:
        while any(member.opened_with is pool._opening and not pool._is_ready(member) for member in pool.members):
            pool._poll_members(None)
            for member, task in pool._ended():
                pool._handle_result(member, task, None)


if __name__ == "__main__":
    SamplerGroup.load = load_everywhere  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
