"""What a person answers to a question on a terminal."""


def typed_answer(question: str) -> str:
    """A line, without blanks around it. Ctrl-D, which ends the input, interrupts the command as Ctrl-C does."""
    try:
        return input(question).strip()
    except EOFError:
        raise KeyboardInterrupt from None
