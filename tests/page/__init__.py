"""The page in a real browser. A package, so that the browser ends with its last test:
its event loop would be in the way of the asynchronous tests elsewhere.
"""
