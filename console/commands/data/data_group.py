"""`plumbob data`: the commands over files of data, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.data import clean, report_on_data

GROUP = CommandGroup("data", "say what is in files of data, or clean them", (report_on_data, clean))
