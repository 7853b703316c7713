"""The HTTP routes, by subject. Each takes what it needs from the application's state; none keeps
any.
"""
