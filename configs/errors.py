"""The one exception that a person's mistake raises."""


class UserError(ValueError):
    """Something that the user can mend: the message says where it is, what was expected and what to do.

    The command line prints it without a traceback and ends with status 2.
    """
