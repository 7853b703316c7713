"""Measures the model host: against its peers, switch by switch, under load (docs/performance.md).

May import `model`; nothing imports this.
"""
