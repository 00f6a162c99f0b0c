"""Whether texts and settings fit a model's context, asked before a run starts."""

from collections.abc import Mapping

from plumbob.core.errors import UserError

LENGTH_KEYS = "data.max_prompt_tokens and data.max_response_tokens"


def check_sequences(longest: int, max_positions: int, keys: str) -> None:
    """Refuse sequences that the model has no positions for. Lengths in tokens; `keys` names what limits them."""
    if longest > max_positions:
        raise UserError(
            f"the longest training sequence has {longest} tokens and the model has {max_positions} positions: "
            f"lower {keys}, together at most {max_positions}"
        )


def check_limits(limits: Mapping[str, int], max_positions: int, model: str) -> None:
    """Refuse settings that together ask for more positions than the model has.

    Args:
        limits: dotted keys -> tokens.
        model: the setting that names it or its size, for people.
    """
    total = sum(limits.values())
    if total > max_positions:
        asked = " + ".join(f"{key}={tokens}" for key, tokens in limits.items())
        together = f"{asked} = {total} tokens" if len(limits) > 1 else f"{asked} tokens"
        raise UserError(f"{together} do not fit the {max_positions} positions of {model}: lower them to fit")


def check_context(
    longest_prompt: int, max_new_tokens: int, max_positions: int, response_key: str = "rollout.max_tokens"
) -> None:
    """Refuse prompts that leave no room for a response. Lengths in tokens; `response_key` names the setting of its."""
    if longest_prompt + max_new_tokens <= max_positions:
        return
    room = max_positions - max_new_tokens
    fix = (
        f"lower data.max_prompt_tokens to {room}, which drops longer prompts, or lower {response_key}"
        if room > 0
        else f"lower {response_key}"
    )
    raise UserError(
        f"the longest prompt has {longest_prompt} tokens and a response up to {response_key}={max_new_tokens}, "
        f"together {longest_prompt + max_new_tokens}; the model has {max_positions} positions: {fix}"
    )
