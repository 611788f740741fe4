"""The long-running process that keeps segments true while users act: `segments stream`.

What belongs here: the loop, what it does when something fails, telling changes on, its numbers. What does not: rules
about events and users (core.live), brokers (io.streams), stores (io.live_store).
"""
