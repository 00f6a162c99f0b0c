"""`plumbob bias`: the commands that measure bias, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.bias import reward, terms

GROUP = CommandGroup("bias", "measure how far a reward model treats groups of people differently", (reward, terms))
