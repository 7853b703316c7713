"""What can go wrong with a fetch: what another try may mend, and what it never will."""


class FetchError(Exception):
    """One line for the operator; nothing but a change of values, files or disks helps."""


class TryAgain(Exception):
    """The network or the server failed in a way that passes."""
