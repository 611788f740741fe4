"""Clusterers of users behind one small contract.

What belongs here: one file a method, and ``METHODS``, where its name is given. What does not: clustering of queries
(core.clustering), preprocessing, names.
"""
