"""Linux under load."""


def tests(build):
    return ()
