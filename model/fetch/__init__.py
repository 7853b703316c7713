"""Fills a folder with a model's files: checked, resumable, all or nothing.

`python -m model.fetch` is what the chart's Job runs before a release starts; it fetches from the
Hub or a web server. Knows neither torch nor the rest of the model host.
"""
