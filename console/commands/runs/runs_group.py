"""`plumbob runs`: the commands over a folder of runs, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.runs import compare, list_runs, remove_runs

GROUP = CommandGroup(
    "runs", "list the runs of a folder, remove some, or compare them", (list_runs, remove_runs, compare)
)
