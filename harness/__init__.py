"""The command line around a search: flags, models, problems, the run, results, table, pictures.

A search does not need it: only main() of a script imports it. Here is no search and no KV cache.
"""
