"""The API: segments and profiles of users over HTTP, while they change.

What belongs here: routes, keys, limits, the shapes of answers, the page that shows the stream. What does not: changing
anything (streaming), computing segments (core), where states lie (io.live_store). Needs the extra [serve]; nothing
outside imports it before somebody serves.
"""
