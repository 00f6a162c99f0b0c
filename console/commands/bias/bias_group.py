"""`plumbob bias`: the commands that measure bias, one word each."""

from plumbob.console.command import CommandGroup
from plumbob.console.commands.bias import bias_of_policy, bias_of_reward, terms

GROUP = CommandGroup(
    "bias", "measure how differently a model treats groups of people", (bias_of_reward, bias_of_policy, terms)
)
