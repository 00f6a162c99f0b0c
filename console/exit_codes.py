"""Exit statuses of the command line: ended well, failed, a user error, interrupted."""

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
