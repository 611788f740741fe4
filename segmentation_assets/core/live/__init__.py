"""What keeps segments true while users act: events, the state of a user, live features, and when to look anew.

What belongs here: rules, the same for a stream, a test and a computation afterwards. What does not: where events come
from (io.streams), where states lie (io.live_store), the process (streaming), the API (serving).
"""
