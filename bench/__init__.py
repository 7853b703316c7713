"""Measures the model host against itself, against its peers and under load. See docs/performance.md.

May import `model`; nothing imports this.
"""
