"""The Dagster layer: one file for each stage, read top to bottom, checks beside their asset.

What belongs here: assets, checks, schedules, sensors, resources, all thin: read inputs, call one function of core or
io,
return the value with metadata. What does not: computing anything.
"""
