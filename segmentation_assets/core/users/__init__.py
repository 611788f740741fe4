"""From sessions to users: cleaning, features, scores, rules, behaviour clusters, personas, profiles.

What belongs here: pure functions from tables to tables, one module a step. What does not: query segments (the modules
beside this package), Dagster, clients, files.
"""
