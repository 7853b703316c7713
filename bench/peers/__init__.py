"""Other servers on the same requests: each installed by a script into an environment of its own."""
