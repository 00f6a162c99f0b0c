"""All stages in order, each handing its folder to the next."""
