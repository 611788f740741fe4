"""Pure logic: numbers and tables in, numbers and tables out.

What belongs here: features, clustering, labels, quality numbers, validation, generated sessions, plots.
What does not: Dagster, clients, files, the clock, the environment.
"""
