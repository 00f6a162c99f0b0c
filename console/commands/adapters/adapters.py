"""`plumbob adapters`: the commands over a library of adapters, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.adapters import add, list_all, locate, merge, rm, show

GROUP = CommandGroup(
    "adapters",
    "keep a library of adapters: what each was trained for, on what, from which base, how good it is",
    (list_all, show, add, merge, locate, rm),
)
