"""`plumbob bias`: the commands that measure bias, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.bias import policy, reward, terms

GROUP = CommandGroup("bias", "measure how differently a model treats groups of people", (reward, policy, terms))
