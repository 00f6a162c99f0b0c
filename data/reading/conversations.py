"""A row's conversation cut at the assistant's turns: what the chat template writes before each of them, and of each."""

from dataclasses import dataclass

from plumbob.data.reading.field_values import Fields, shown, text_at
from plumbob.data.reading.messages import messages_in, template_values
from plumbob.data.reading.question import question_messages, with_system
from plumbob.data.records import Demonstration, RowError
from plumbob.data.texts.chat_text import Message, RowRender

_PROBE = "the response's end is looked for behind this"


@dataclass(frozen=True)
class TurnInContext:
    """The messages before a response, and the response's own, which stands in the field `name`."""

    name: str
    context: list[Message]
    response: Message


def last_turn(fields: Fields, name: str, question: str | None) -> TurnInContext:
    """Of a list of messages that may or may not repeat the prompt's; `question` names its field, where there is one."""
    messages = _answered(fields, name)
    context = messages[:-1]
    if question is not None:
        prompt = question_messages(fields, question)
        if context and with_system(fields, context) != prompt:
            raise RowError(f"'{name}': expected the response's message alone, or after the messages of '{question}'")
        context = prompt
    else:
        context = with_system(fields, context)
    return TurnInContext(name, context, messages[-1])


def answering_turns(last: TurnInContext, first: int) -> list[TurnInContext]:
    """The last turn and those before it, from the message `first` on, that answer a message: another than their own."""
    roles = [message["role"] for message in last.context]
    indices = [
        index
        for index in range(first, len(roles))
        if roles[index] == "assistant" and index and roles[index - 1] != "assistant"
    ]
    return [*(TurnInContext(last.name, last.context[:index], last.context[index]) for index in indices), last]


def parted_turns(fields: Fields, question: str | None) -> tuple[list[TurnInContext], list[TurnInContext]]:
    """The turns of `chosen` and of `rejected`, lists of messages, from the first that they have not alike on.

    Args:
        question: names the field of their prompt, where there is one.
    """
    chosen, rejected = (_side(fields, name, question) for name in ("chosen", "rejected"))
    both = [[*side.context, side.response] for side in (chosen, rejected)]
    alike = zip(*(map(_content, side) for side in both), strict=False)
    index = next((index for index, (one, other) in enumerate(alike) if one != other), min(map(len, both)))
    if index == min(map(len, both)):
        if len(both[0]) != len(both[1]):
            raise RowError("expected 'chosen' and 'rejected' to part, found that one is the beginning of the other")
        index -= 1
    check_same_prompt(all(side[index]["role"] == "assistant" for side in both))
    return answering_turns(chosen, index), answering_turns(rejected, index)


def written_turn(fields: Fields, turn: TurnInContext, render: RowRender, prompt: str | None = None) -> Demonstration:
    """The turn behind its prompt, where that is not written yet."""
    if prompt is None:
        prompt = written_prompt(fields, turn.context, render)
    return Demonstration(prompt, _response(fields, turn, prompt, render))


def written_prompt(fields: Fields, messages: list[Message], render: RowRender) -> str:
    if not messages or messages[-1]["role"] == "assistant":
        raise RowError("expected a prompt that ends with a message of the user's before the assistant's response")
    if messages[-1]["role"] != "tool" and not messages[-1]["content"].strip():
        return ""  # A template would hide that there is no question.
    return text_at({"messages": render(messages, **template_values(fields))}, "messages")


def check_same_prompt(same: bool) -> None:
    if not same:
        raise RowError(
            "expected 'chosen' and 'rejected' to be the same dialogue up to the last response, found two prompts"
        )


def _side(fields: Fields, name: str, question: str | None) -> TurnInContext:
    """All of one side of a pair; beside a prompt its messages follow those of the prompt, or repeat them first."""
    given = _answered(fields, name)
    if question is None:
        whole = with_system(fields, given)
    else:
        prompt = question_messages(fields, question)
        whole = [*prompt, *given] if given[0]["role"] == "assistant" else with_system(fields, given)
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            raise RowError(f"'{name}': expected the response's message alone, or after the messages of '{question}'")
    return TurnInContext(name, whole[:-1], whole[-1])


def _answered(fields: Fields, name: str) -> list[Message]:
    """Messages of which the last is the assistant's."""
    messages = messages_in(name, fields[name])
    if messages[-1]["role"] != "assistant":
        raise RowError(
            f"'{name}': expected the last message to be the assistant's, found {shown(messages[-1]['role'])}"
        )
    return messages


def _response(fields: Fields, turn: TurnInContext, prompt: str, render: RowRender) -> str:
    """The response's text; where its message carries more, such as tool calls, what the template writes of it all."""
    name, response = turn.name, turn.response
    content: str = response["content"]
    if not prompt:
        return content
    values = template_values(fields)
    if response.keys() == {"role", "content"}:
        return render.response(turn.context, response, prompt, **values)

    def whole(message: Message) -> str:
        return text_at({name: render([*turn.context, message], **values, add_generation_prompt=False)}, name)

    written = whole(response)
    if "tool_calls" in response and written == whole({key: response[key] for key in response if key != "tool_calls"}):
        raise RowError(
            f"'{name}': the response has tool_calls, which the chat template does not write, so that they would not "
            f"be learnt: give the model a chat template that does, or leave such rows out"
        )
    if written == whole({"role": response["role"], "content": content}):
        return render.response(turn.context, response, prompt, **values)
    if not written.startswith(prompt):
        raise RowError(
            f"'{name}': the chat template writes a conversation with a response otherwise than the prompt that asks "
            f"for it, so that the response's own part cannot be told: {shown(written)}"
        )
    end = whole({"role": response["role"], "content": _PROBE}).rpartition(_PROBE)[2]
    learnt = written.removeprefix(prompt)
    return learnt.removesuffix(end) if end.strip() and learnt.endswith(end) else render.ended(learnt)


def _content(message: Message) -> tuple[object, ...]:
    """What tells messages apart; others of their keys no template may write, such as a weight."""
    return message["role"], message["content"], message.get("tool_calls")
