"""`plumbob adapters`: the commands over a library of adapters, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.adapters import add, list_adapters, locate, merge_adapters, remove_adapter, show

GROUP = CommandGroup(
    "adapters",
    "keep a library of adapters: what each was trained for, on what, from which base, how good it is",
    (list_adapters, show, add, merge_adapters, locate, remove_adapter),
)
