"""Exit statuses of the command line: ended well, failed, a user error, to be resumed, interrupted."""

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

RESUME_ME = 75
"""Ended by SIGTERM or SIGHUP, with what was learnt saved: EX_TEMPFAIL of sysexits.h, "try again later"."""
