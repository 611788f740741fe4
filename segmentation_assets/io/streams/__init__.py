"""Sources of events, and where events are told on to, behind one contract; one file a broker."""
