"""Limits that hold: how much a key and a tenant may ask for, counted before and settled after."""
