"""The report: one HTML page of everything that was found, for people who will never open Dagster.

What belongs here: the page, its template and its style, pictures made part of it. What does not: drawing the pictures
(plots, user_plots), where the page is written to.
"""
